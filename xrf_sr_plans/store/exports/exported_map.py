"""`ExportedMap`: what every format is written from, whatever kind of map it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.value_units import value_unit

AnyMap = ElementalMaps | EnhancedMaps | CompositeMap

_MODEL = "model"
_SOURCE = ("source_file", "source_uid", "result_uid", "survey_uid", "tile_uids", "rescan_uids")
_TEXTS = ("notes", "data_notes")
_OTHERS = ("placements", "forecast")


@dataclass(frozen=True, eq=False)
class ExportedMap:
    """A map of several elements as files hold it.

    Parameters
    ----------
    kind
        ``measured``, ``enhanced`` or ``composite``.
    signal
        Name of the array of `planes` that is *the* map.
    error
        Name of the array that is one standard deviation of its error; "" where there is none.
    elements
        Element names, in the order of the arrays.
    planes
        Arrays (element, y, x) by name, in photons per measured pixel unless they are flags.
    shared
        Arrays (y, x) that belong to no element, by name.
    x_um, y_um
        Pixel centers along both axes in um.
    units
        Unit in which each element's values are to be told (element,).
    photons
        Photons that a value of 1 is in that unit (element,).
    attributes
        All that is known about the map.
    verification
        How fine maps compared with what had been predicted, as in `write_verification`.
    """

    kind: str
    signal: str
    error: str
    elements: tuple[str, ...]
    planes: Mapping[str, np.ndarray]
    shared: Mapping[str, np.ndarray]
    x_um: np.ndarray
    y_um: np.ndarray
    units: tuple[str, ...]
    photons: np.ndarray
    attributes: Mapping[str, Any] = field(default_factory=dict)
    verification: Sequence[Mapping[str, Any]] = ()

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self.y_um), len(self.x_um)

    @property
    def title(self) -> str:
        """What the map is, in a few words."""
        words = {
            "measured": "measured elemental maps",
            "enhanced": f"elemental maps, super-resolved {self.attributes.get('factor')} times",
            "composite": "composite map: measured where it was rescanned, else estimated",
        }[self.kind]
        uid = self.attributes.get("source_uid") or self.attributes.get("survey_uid")
        source = str(uid)[:8] if uid else Path(self.attributes.get("source_file") or "").name
        return f"{words}, of {source}" if source else words

    @property
    def dwell_s(self) -> float | None:
        """How long each measured pixel was counted, in s; None where it is not known."""
        dwell_ms = self.attributes.get("dwell_ms")
        if dwell_ms:
            return float(dwell_ms) / 1e3
        # Of values that were rates, the photons of a rate of 1 say it.
        for unit, photons in zip(self.units, self.photons, strict=True):
            per_s = value_unit(unit).per_s
            if per_s > 0:
                return float(photons / per_s)
        return None

    def in_units(self, name: str) -> np.ndarray:
        """Return an array of `planes` in the `units` of its elements; flags are 0 and 1 (uint8)."""
        array = self.planes[name]
        if not is_photons(array):
            return array.astype(np.uint8) if array.dtype == bool else array
        return (array / self.photons[:, None, None]).astype(array.dtype)

    def settings(self) -> Iterator[tuple[str, Any]]:
        """Yield the attributes that say how the map was made."""
        left_out = (_MODEL, *_SOURCE, *_TEXTS, *_OTHERS)
        for name, value in self.attributes.items():
            if name not in left_out and value is not None:
                yield name, value

    def source(self) -> Iterator[tuple[str, Any]]:
        """Yield the attributes that say what the map was made from."""
        for name in _SOURCE:
            value = self.attributes.get(name)
            if value:
                yield name, value

    @property
    def model(self) -> Mapping[str, Any]:
        """Name, sha256 and calibration of the model; empty where there was none."""
        return self.attributes.get(_MODEL) or {}

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the map, in words."""
        fallback = self.attributes.get("fallback")
        told = [f"no model was used: {fallback}"] if fallback else []
        for name in _TEXTS:
            told += [str(note) for note in self.attributes.get(name) or ()]
        return told


def program_version() -> str:
    """Return the version of this package."""
    try:
        return version("xrf-sr-plans")
    except PackageNotFoundError:  # a source tree on PYTHONPATH
        return "unknown"


def is_photons(array: np.ndarray) -> bool:
    """Return whether an array holds numbers of photons, and not flags or numbers of maps."""
    return array.dtype.kind == "f"


def exported_map(
    maps: AnyMap,
    *,
    units: Sequence[str] = (),
    photons: np.ndarray | None = None,
    verification: Sequence[Mapping[str, Any]] = (),
    source_file: Path | str | None = None,
) -> ExportedMap:
    """Return what is to be written of a map.

    Parameters
    ----------
    maps
        Measured maps, enhanced ones, or the composite map of a survey.
    units
        Unit in which to tell the values of each element; none: photons.
    photons
        Photons of a value of 1 in that unit (element,); None: one.
    verification
        How fine maps compared with what had been predicted.
    source_file
        The file that the map was made from; None: it was made from runs.

    Raises
    ------
    GridError
        `units` or `photons` has another length than there are elements.
    """
    kind, signal, error = _kind(maps)
    elements = tuple(maps.elements)
    units = tuple(units) or ("photons",) * len(elements)
    per_unit = np.ones(len(elements)) if photons is None else np.asarray(photons, dtype=float)
    if len(units) != len(elements) or per_unit.shape != (len(elements),):
        raise GridError(
            f"{len(elements)} elements, but {len(units)} units and photons of the shape"
            f" {per_unit.shape}; one of each is needed for each element"
        )
    attributes = dict(maps.dataset.attrs)
    if source_file is not None:
        attributes["source_file"] = str(source_file)
    arrays = {str(name): array for name, array in maps.dataset.data_vars.items()}
    return ExportedMap(
        kind=kind,
        signal=signal,
        error=error,
        elements=elements,
        planes={name: one.values for name, one in arrays.items() if one.ndim == 3},
        shared={
            name: one.values
            for name, one in arrays.items()
            # A monitor that nobody read is all NaN.
            if one.ndim == 2 and (one.dtype.kind != "f" or np.isfinite(one.values).any())
        },
        x_um=np.asarray(maps.dataset["x"].values, dtype=float),
        y_um=np.asarray(maps.dataset["y"].values, dtype=float),
        units=units,
        photons=per_unit,
        attributes=attributes,
        verification=tuple(verification),
    )


def _kind(maps: AnyMap) -> tuple[str, str, str]:
    if isinstance(maps, EnhancedMaps):
        return "enhanced", "estimate", "sigma"
    if isinstance(maps, CompositeMap):
        return "composite", "value", "sigma"
    return "measured", "counts", ""
