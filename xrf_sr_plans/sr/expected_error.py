"""How exact an enhanced map is, by how it was flown and how many photons it has: measured figures.

This module reads the figures that ship with the model, and needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import FACTORS, SAME_GRID, Measurement

FILE_NAME = "expected_error.json"
"""Written by ``python benchmarks/survey_design.py --write``."""


def way_of(factor: int, *, rows: bool) -> str:
    """Return the name under which the figures of one way to fly are kept, such as "2 rows".

    On the grid of the result, rows and squares are the same: "1".
    """
    if factor == SAME_GRID:
        return str(factor)
    return f"{factor} {'rows' if rows else 'squares'}"


def ways() -> Iterator[tuple[str, Measurement]]:
    """Yield the ways to fly there are, by name, and how each measures a sample.

    The probe's blur is that of the sample here: it stays in the result.
    """
    for factor in FACTORS:
        yield way_of(factor, rows=False), Measurement(factor, "fly", deblur=False)
        if factor != SAME_GRID:
            yield way_of(factor, rows=True), Measurement(factor, "rows", deblur=False)


@dataclass(frozen=True)
class ErrorTable:
    """Peak signal-to-noise ratios that enhanced maps reach, in dB, as means over many samples.

    The peak is the range of the sample itself (`metrics.image.data_range`).

    Parameters
    ----------
    photons
        Photons that an area as large as a fine pixel counts where the element is brightest (its
        99.9 % quantile), ascending, all above 0.
    probe_px
        Widths (FWHM) of the probe in fine pixels, ascending from 0. The result keeps this blur.
    psnr_db
        For each way to fly (`way_of`) one row for each probe, with one value for each number of
        photons, that never falls with the photons.
    classical_db
        The same for the best linear treatment of the map, without a network; None: not measured.

    Raises
    ------
    ConfigError
        The numbers make no such table.
    """

    photons: Sequence[float]
    probe_px: Sequence[float]
    psnr_db: Mapping[str, Sequence[Sequence[float]]]
    classical_db: Mapping[str, Sequence[Sequence[float]]] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.probe_px), len(self.photons))
        sound = len(self.photons) > 1 and self.photons[0] > 0
        sound = sound and bool(np.all(np.diff(self.photons) > 0))
        sound = sound and len(self.probe_px) > 0 and bool(np.all(np.diff(self.probe_px) > 0))
        for values in (*self.psnr_db.values(), *(self.classical_db or {}).values()):
            plane = np.asarray(values, dtype=float)
            sound = sound and plane.shape == shape and bool(np.isfinite(plane).all())
            sound = sound and bool(np.all(np.diff(plane, axis=1) >= 0))
        if not sound:
            raise ConfigError("the table of expected errors is damaged")

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> ErrorTable:
        """Return the table that a file holds.

        Raises
        ------
        ConfigError
            Something is missing, or the numbers make no table.
        """
        try:
            return cls(**{field.name: plain[field.name] for field in fields(cls)})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"the table of expected errors is damaged: {error!r}") from error

    def expected_db(self, way: str, photons: float, probe_px: float = 0.0) -> float | None:
        """Return the expected peak signal-to-noise ratio of an enhanced map in dB.

        It is interpolated between the logarithms of the photons, and goes on beyond their ends
        as it rose there. Between probes it is interpolated, too; a wider probe than the widest
        one counts as that.

        Parameters
        ----------
        way
            How the map is flown (`way_of`).
        photons
            Photons that an area as large as a fine pixel counts where the element is brightest;
            above 0.
        probe_px
            Width (FWHM) of the probe in fine pixels.

        Returns
        -------
        float or None
            None for a way of which nothing was measured.
        """
        if way not in self.psnr_db:
            return None
        at, level = np.log(photons), np.log(self.photons)
        by_probe = []
        for values in np.asarray(self.psnr_db[way], dtype=float):
            slopes = np.diff(values) / np.diff(level)
            beyond = slopes[0] * min(at - level[0], 0.0) + slopes[-1] * max(at - level[-1], 0.0)
            by_probe.append(np.interp(at, level, values) + beyond)
        return float(np.interp(probe_px, self.probe_px, by_probe))

    def gains_db(self, way: str) -> list[float]:
        """Return what the network gains over classical treatment, in dB, for each of `photons`.

        It is that without a probe's blur, and 0 where nothing was measured.
        """
        if self.classical_db is None or way not in self.psnr_db:
            return [0.0] * len(self.photons)
        gains = np.subtract(self.psnr_db[way][0], self.classical_db[way][0])
        return [float(gain) for gain in gains]


@cache
def shipped_errors() -> ErrorTable:
    """Return the table of the model that ships with this package."""
    text = files("xrf_sr_plans.sr").joinpath(FILE_NAME).read_text(encoding="utf-8")
    return ErrorTable.from_dict(json.loads(text))
