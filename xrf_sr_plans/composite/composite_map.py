"""`CompositeMap`: what is known of a surveyed area, in one map with error bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import coordinates
from xrf_sr_plans.maps.grid import ScanGrid

FIELDS = ("value", "sigma", "measured", "trusted", "source")
"""Names of the arrays [row, column] that a composite map has of each element."""
KINDS = {"measured": bool, "trusted": bool, "source": np.uint16}
"""Types of the arrays that are no numbers of photons."""
MOST_SOURCES = int(np.iinfo(np.uint16).max)
"""Largest number of fine maps in one composite map."""


@dataclass(frozen=True)
class FinePlacement:
    """Where a fine map lies in the survey, and what part it has in a composite map."""

    fine_uid: str
    """Uid of the fine map's run."""
    dx_um: float
    """What is at x in the fine map is at x + dx_um in the survey, as measured; NaN: unknown."""
    dy_um: float
    """What is at y in the fine map is at y + dy_um in the survey, as measured; NaN: unknown."""
    error_um: float
    """One standard deviation of the larger of both errors; NaN: unknown."""
    correlation: float
    """Correlation of fine map and prediction at that displacement, of the best element."""
    corrected_x_um: float = 0.0
    """What was added to x in the composite map."""
    corrected_y_um: float = 0.0
    """What was added to y in the composite map."""
    pixels: int = 0
    """Pixels of the composite map that the fine map has a part in, of any element."""
    note: str = ""
    """Why it was not moved or not used at all; empty where there is nothing to tell."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FinePlacement:
        """Return the placement that `to_dict` made these values of.

        Numbers that are missing, or null as in strict JSON, are unknown.
        """
        unknown = dict.fromkeys(("dx_um", "dy_um", "error_um", "correlation"), float("nan"))
        names = {field.name for field in fields(cls)}
        told = {key: value for key, value in values.items() if key in names and value is not None}
        return cls(**{**unknown, **told})


@dataclass(frozen=True, eq=False)
class CompositeMap:
    """One result of a survey: fine counts where it was rescanned, the estimate elsewhere.

    All values are in photons per *measured* pixel of the survey, like those of `EnhancedMaps`.

    Parameters
    ----------
    dataset
        Each (element, y, x): ``value``; ``sigma``, one standard deviation of its error (counting
        noise where it was measured, else what was predicted); ``measured`` (bool); ``trusted``
        (bool), False where the model was outside what it was calibrated for and nothing was
        measured; and ``source``, 0 for an estimate and k for the k-th fine map. Its attributes are
        ``survey_uid``, ``tile_uids``, ``rescan_uids``, ``placements``, ``model``, ``factor``,
        ``sampling``, ``fallback``, ``dwell_ms``, ``i0_median`` and ``notes``.
    grid
        The pixels, which are the fine ones of all tiles of the survey.
    """

    dataset: xr.Dataset
    grid: ScanGrid

    @classmethod
    def from_arrays(
        cls,
        grid: ScanGrid,
        elements: list[str],
        fields: Mapping[str, np.ndarray],
        **attributes: Any,
    ) -> CompositeMap:
        """Build from arrays of shape (element, y, x).

        Parameters
        ----------
        grid
            The pixels.
        elements
            Element names, in the order of the arrays.
        fields
            The arrays `FIELDS` by name.
        **attributes
            What belongs to the dataset's attributes.

        Raises
        ------
        GridError
            An array is missing or doesn't have the shape (number of elements, ny, nx), or two
            elements have the same name.
        """
        expected = (len(elements), *grid.shape)
        variables = {}
        for name in FIELDS:
            shape = np.shape(fields[name]) if name in fields else None
            if shape != expected:
                raise GridError(f"{name} has the shape {shape}; {expected} is needed")
            array = np.asarray(fields[name])
            variables[name] = (("element", "y", "x"), array.astype(KINDS.get(name, array.dtype)))
        return cls(xr.Dataset(variables, coordinates(grid, elements), attributes), grid)

    @property
    def value(self) -> xr.DataArray:
        """Photons per coarse pixel (element, y, x); NaN where nothing is known."""
        return self.dataset["value"]

    @property
    def sigma(self) -> xr.DataArray:
        """One standard deviation of the value's error (element, y, x), in photons."""
        return self.dataset["sigma"]

    @property
    def measured(self) -> xr.DataArray:
        """Where the value was measured finely (element, y, x)."""
        return self.dataset["measured"]

    @property
    def trusted(self) -> xr.DataArray:
        """Where the value was measured finely, or the estimate is trusted (element, y, x)."""
        return self.dataset["trusted"]

    @property
    def source(self) -> xr.DataArray:
        """0 for an estimate, k for the k-th of `rescan_uids` (element, y, x)."""
        return self.dataset["source"]

    @property
    def elements(self) -> list[str]:
        """Element names, in the order of the arrays."""
        return [str(name) for name in self.dataset["element"].values]

    @property
    def rescan_uids(self) -> list[str]:
        """Uids of the fine maps' runs, in the order of the numbers in `source`."""
        return [str(uid) for uid in self.dataset.attrs.get("rescan_uids", ())]

    @property
    def placements(self) -> list[FinePlacement]:
        """Where each fine map lies, in the order of `rescan_uids`."""
        return [FinePlacement.from_dict(one) for one in self.dataset.attrs.get("placements", ())]

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the map, in words."""
        return [str(note) for note in self.dataset.attrs.get("notes", ())]
