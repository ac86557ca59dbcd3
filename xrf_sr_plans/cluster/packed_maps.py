"""`plain_of_maps` and `maps_of_plain`: maps as what `packing` holds, to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import ClusterError, GridError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.packing import LARGEST_ARRAY

Maps = TypeVar("Maps", ElementalMaps, EnhancedMaps)


def plain_of_maps(maps: ElementalMaps | EnhancedMaps) -> dict[str, Any]:
    """Return maps as plain types and arrays, each of its own type of number.

    Raises
    ------
    ClusterError
        An array is larger than `packing.LARGEST_ARRAY`.
    """
    dataset = maps.dataset
    for name, values in dataset.data_vars.items():
        if values.nbytes > LARGEST_ARRAY:
            raise ClusterError(
                f"the map's {name} have {values.nbytes} bytes; at most {LARGEST_ARRAY} are sent"
            )
    return {
        "grid": maps.grid.to_dict(),
        "fields": {str(name): _plain(values) for name, values in dataset.data_vars.items()},
        "coordinates": {str(name): _plain(values) for name, values in dataset.coords.items()},
        "attributes": dict(dataset.attrs),
    }


def maps_of_plain(plain: Mapping[str, Any], kind: type[Maps]) -> Maps:
    """Return the maps that `plain_of_maps` made these types of.

    Raises
    ------
    ClusterError
        Something is missing, or doesn't fit together.
    """
    try:
        dataset = xr.Dataset(
            {name: _variable(*parts) for name, parts in plain["fields"].items()},
            {name: _variable(*parts) for name, parts in plain["coordinates"].items()},
            plain["attributes"],
        )
        return kind(dataset, ScanGrid.from_dict(plain["grid"]))
    except (AttributeError, KeyError, TypeError, ValueError, GridError) as error:
        raise ClusterError(f"what came across are no maps: {error}") from error


def _plain(values: xr.DataArray) -> list[Any]:
    """Return dimensions, values and attributes of an array; names come as a list."""
    array = values.values
    held = np.ascontiguousarray(array) if array.dtype.kind in "biuf" else array.tolist()
    return [[str(dim) for dim in values.dims], held, dict(values.attrs)]


def _variable(dims: list[str], values: Any, attributes: dict[str, Any]) -> xr.Variable:
    # What was unpacked can't be written to, which maps that are made here can.
    return xr.Variable(dims, np.array(values), attributes)
