"""Elemental maps, measured and enhanced, as thin frozen views of an `xarray.Dataset`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.monitors import Beam, beam_of
from xrf_sr_plans.measurement import Measurement, Sampling, checked_sampling, doubled_names

_PIXEL = ("y", "x")
_ELEMENT_PIXEL = ("element", "y", "x")


def coordinates(grid: ScanGrid, elements: Sequence[str]) -> dict[str, Any]:
    """Return the coordinates of all maps; raise GridError where an element is named twice."""
    doubled = doubled_names(elements)
    if doubled:
        raise GridError(f"elements {list(elements)}: {doubled}")
    um = {"units": "um"}
    return {
        "element": list(elements),
        "y": ("y", grid.slow.centers_um, um),
        "x": ("x", grid.fast.centers_um, um),
    }


@dataclass(frozen=True, eq=False)
class ElementalMaps:
    """Measured maps: what the detector counted on a `ScanGrid`.

    Parameters
    ----------
    dataset
        ``counts`` (element, y, x) in detected photons, ``i0`` (y, x), ``live_time_s`` (y, x) and
        ``coverage`` (y, x), the number of frames that contributed. Where coverage is 0 nothing
        was measured, and counts are NaN, never 0. Its attributes are ``source_uid``,
        ``dwell_ms``, ``step_um``, ``probe_fwhm_um``, ``sampling`` and ``complete``.
    grid
        The pixels of the maps.
    """

    dataset: xr.Dataset
    grid: ScanGrid

    @classmethod
    def from_arrays(
        cls,
        counts: np.ndarray,
        grid: ScanGrid,
        elements: Sequence[str],
        *,
        i0: np.ndarray | None = None,
        live_time_s: np.ndarray | None = None,
        coverage: np.ndarray | None = None,
        **attributes: Any,
    ) -> ElementalMaps:
        """Build from arrays.

        Parameters
        ----------
        counts
            Detected photons (element, y, x).
        grid
            The pixels of the maps.
        elements
            Element names, in the order of `counts`.
        i0
            Flux monitor (y, x); None: unknown.
        live_time_s
            Live time of the detector (y, x); None: unknown.
        coverage
            Number of frames in each pixel (y, x); None: 1 where all elements have counts.
        **attributes
            What is known about the measurement, as attributes of the dataset.

        Raises
        ------
        GridError
            `counts` doesn't have the shape (number of elements, ny, nx), or two elements have the
            same name.
        """
        counts = np.asarray(counts, dtype=float)
        expected = (len(elements), *grid.shape)
        if counts.shape != expected:
            raise GridError(f"counts have the shape {counts.shape}; {expected} is needed")
        measured = np.isfinite(counts).all(axis=0) if coverage is None else np.asarray(coverage)
        empty = np.full(grid.shape, np.nan)
        variables = {
            "counts": (_ELEMENT_PIXEL, np.where(measured > 0, counts, np.nan)),
            "i0": (_PIXEL, empty if i0 is None else np.asarray(i0, dtype=float)),
            "live_time_s": (
                _PIXEL,
                empty if live_time_s is None else np.asarray(live_time_s, dtype=float),
            ),
            "coverage": (_PIXEL, measured.astype(int)),
        }
        dataset = xr.Dataset(variables, coordinates(grid, elements), attributes)
        return cls(dataset, grid)

    @property
    def counts(self) -> xr.DataArray:
        """Detected photons (element, y, x); NaN where nothing was measured."""
        return self.dataset["counts"]

    @property
    def i0(self) -> xr.DataArray:
        """Reading of the incoming flux monitor (y, x); NaN where it is unknown."""
        return self.dataset["i0"]

    def beam(self) -> Beam:
        """Return the beam intensity of each pixel, as far as the flux monitor tells."""
        return beam_of(np.asarray(self.i0.values, dtype=float), self.counts.values)

    @property
    def coverage(self) -> xr.DataArray:
        """Number of frames that contributed (y, x)."""
        return self.dataset["coverage"]

    @property
    def elements(self) -> list[str]:
        """Element names, in the order of the arrays."""
        return [str(name) for name in self.dataset["element"].values]

    @property
    def attrs(self) -> dict[str, Any]:
        """What is known about the measurement: the attributes of the dataset."""
        return dict(self.dataset.attrs)


@dataclass(frozen=True, eq=False)
class EnhancedMaps:
    """Super-resolved maps with their trust, in photons per *measured* pixel.

    The mean of the estimate over the fine pixels of a measured pixel agrees with what was counted
    there. Rows have several measured pixels per step of the survey, squares have one.

    Parameters
    ----------
    dataset
        Each (element, y, x): ``estimate``; ``sigma``, one standard deviation of its error;
        ``lower`` and ``upper``, the ends of the 90 % interval; ``baseline``, what no network has
        touched; and ``trusted`` (bool). Its attributes are ``factor``, ``sampling`` (that of the
        measured map), ``model`` {name, sha256, calibration}, ``source_uid``, ``fallback`` (why the
        model was not used, "" where it was), ``notes`` and ``data_notes`` (those of them that are
        about the measured values).
    grid
        The fine pixels.
    """

    dataset: xr.Dataset
    grid: ScanGrid

    @classmethod
    def from_arrays(
        cls,
        grid: ScanGrid,
        elements: Sequence[str],
        *,
        estimate: np.ndarray,
        sigma: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        baseline: np.ndarray,
        trusted: np.ndarray,
        doubtful: np.ndarray | None = None,
        **attributes: Any,
    ) -> EnhancedMaps:
        """Build from arrays of shape (element, y, x) on the fine grid.

        Parameters
        ----------
        grid
            The fine pixels.
        elements
            Element names, in the order of the arrays.
        estimate
            Best estimate, in photons per measured pixel.
        sigma
            One standard deviation of the estimate's error.
        lower
            Lower end of the 90 % interval.
        upper
            Upper end of the 90 % interval.
        baseline
            The measured counts, interpolated bicubically; of rows, and on the same grid, smoothed.
        trusted
            False where the model is outside what it was calibrated for, and where `doubtful`.
        doubtful
            True where nothing but the size of the likely error speaks against trust; None: nowhere.
        **attributes
            ``factor``, ``model`` and what else belongs to the dataset's attributes.

        Raises
        ------
        GridError
            An array doesn't have the shape (number of elements, ny, nx), or two elements have the
            same name.
        """
        arrays = {
            "estimate": estimate,
            "sigma": sigma,
            "lower": lower,
            "upper": upper,
            "baseline": baseline,
            "trusted": trusted,
            "doubtful": np.zeros(np.shape(trusted), bool) if doubtful is None else doubtful,
        }
        expected = (len(elements), *grid.shape)
        for name, array in arrays.items():
            if np.shape(array) != expected:
                raise GridError(f"{name} has the shape {np.shape(array)}; {expected} is needed")
        dataset = xr.Dataset(
            {name: (_ELEMENT_PIXEL, np.asarray(array)) for name, array in arrays.items()},
            coordinates(grid, elements),
            attributes,
        )
        return cls(dataset, grid)

    @property
    def estimate(self) -> xr.DataArray:
        """Best estimate (element, y, x), in photons per measured pixel."""
        return self.dataset["estimate"]

    @property
    def sigma(self) -> xr.DataArray:
        """One standard deviation of the estimate's error (element, y, x), in photons."""
        return self.dataset["sigma"]

    @property
    def lower(self) -> xr.DataArray:
        """Lower end of the 90 % interval (element, y, x), in photons per measured pixel."""
        return self.dataset["lower"]

    @property
    def upper(self) -> xr.DataArray:
        """Upper end of the 90 % interval (element, y, x), in photons per measured pixel."""
        return self.dataset["upper"]

    @property
    def baseline(self) -> xr.DataArray:
        """What the measured counts are without a network (element, y, x): see `from_arrays`."""
        return self.dataset["baseline"]

    @property
    def trusted(self) -> xr.DataArray:
        """Trust (element, y, x): False where the model is outside what it was calibrated for."""
        return self.dataset["trusted"]

    @property
    def doubtful(self) -> xr.DataArray:
        """True where a pixel is untrusted only as it is likeliest to be far off (`error_odds`)."""
        return self.dataset["doubtful"]

    @property
    def elements(self) -> list[str]:
        """Element names, in the order of the arrays."""
        return [str(name) for name in self.dataset["element"].values]

    @property
    def factor(self) -> int:
        """Fine pixels per coarse step, along each axis."""
        return int(self.dataset.attrs["factor"])

    @property
    def sampling(self) -> Sampling:
        """How the map was measured that was enhanced.

        Maps that were kept before there were rows don't name a sampling.
        """
        return checked_sampling(str(self.dataset.attrs.get("sampling") or "fly"))

    @property
    def refinement(self) -> tuple[int, int]:
        """Fine pixels per measured pixel along the (slow, fast) axis, as those of `Measurement`."""
        return Measurement(self.factor, self.sampling).refinement

    @property
    def fast_pixels(self) -> int:
        """Measured pixels per step of the survey along the fast axis: `factor` for rows, else 1."""
        return Measurement(self.factor, self.sampling).fast_pixels

    def per_coarse_pixel(self) -> EnhancedMaps:
        """Return the maps in photons per coarse pixel, a square of one step of the survey.

        Queries are asked in that unit, and it is the one in which counts tell structure from
        noise: all measured pixels of a step are information about the same place. Maps that were
        made from square pixels have that unit anyway.
        """
        if self.fast_pixels == 1:
            return self
        names = ("estimate", "sigma", "lower", "upper", "baseline")
        dwell_ms = self.dataset.attrs.get("dwell_ms")
        dataset = self.dataset.assign(
            {name: self.dataset[name] * self.fast_pixels for name in names}
        ).assign_attrs(
            sampling="fly",
            dwell_ms=None if dwell_ms is None else float(dwell_ms) * self.fast_pixels,
        )
        return EnhancedMaps(dataset, self.grid)

    @property
    def model(self) -> dict[str, Any]:
        """Name, sha256 and calibration of the model that made the estimate."""
        return dict(self.dataset.attrs["model"])

    @property
    def fallback(self) -> str:
        """Why the model was not used; "" where it was."""
        return str(self.dataset.attrs.get("fallback", ""))
