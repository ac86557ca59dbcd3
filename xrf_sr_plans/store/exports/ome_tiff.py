"""OME-TIFF, which Fiji, napari, QuPath and tifffile open with names and pixel sizes.

The file holds one image of several channels, in which each channel is an element, for the map, one
for its standard deviation and one for each flag. Rows are in the order of the array, so the first
one, at the top, has the first y of the axis. ``PhysicalSizeX`` and ``PhysicalSizeY`` are the pixel
sizes, and ``PositionX`` and ``PositionY`` the center of the first pixel, all in um.

The format: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.store.exports.exported_map import ExportedMap, is_photons, program_version
from xrf_sr_plans.store.exports.whole_file import whole_bytes

_LARGEST_CLASSIC = 2**31
"""Bytes above which a file has the offsets of BigTIFF, as others end at 4 GiB."""


def write_ome_tiff(exported: ExportedMap, path: Path | str) -> Path:
    """Save a map as an OME-TIFF; an existing file is replaced.

    Parameters
    ----------
    exported
        The map.
    path
        File name, which should end in ``.ome.tif``. The folder must exist.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    OSError
        The file can't be written.
    """
    # Of scikit-image, so it is always there.
    from tifffile import TiffWriter

    flags = [name for name, array in exported.planes.items() if not is_photons(array)]
    arrays = [exported.signal, *filter(None, [exported.error]), *flags]
    size = sum(exported.planes[name].nbytes for name in arrays)
    with (
        whole_bytes(path) as memory,
        TiffWriter(memory, ome=True, bigtiff=size > _LARGEST_CLASSIC) as tiff,
    ):
        for name in arrays:
            stack = exported.in_units(name)
            if is_photons(stack):
                stack = stack.astype(np.float32)
            tiff.write(
                # Planes in the order of OME: (element, y, x).
                stack,
                photometric="minisblack",
                compression="zlib",
                metadata=_ome(exported, name),
                software=f"xrf-sr-plans {program_version()}",
            )
    return Path(path)


def _ome(exported: ExportedMap, name: str) -> dict[str, Any]:
    """Return the metadata of an image, as `tifffile` takes them."""
    number = len(exported.elements)
    facts = {"title": exported.title, "notes": "; ".join(exported.notes)}
    if is_photons(exported.planes[name]):
        facts["units"] = ", ".join(dict.fromkeys(exported.units))
    told = [*exported.model.items(), *exported.settings(), *exported.source()]
    facts |= {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in told
    }
    return {
        "axes": "CYX",
        "Name": name,
        "Description": exported.title,
        "PhysicalSizeX": _step_um(exported.x_um),
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": _step_um(exported.y_um),
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": list(exported.elements)},
        "Plane": {
            "PositionX": [float(exported.x_um[0])] * number,
            "PositionXUnit": ["µm"] * number,
            "PositionY": [float(exported.y_um[0])] * number,
            "PositionYUnit": ["µm"] * number,
        },
        "MapAnnotation": {"Namespace": "xrf-sr-plans", **facts},
    }


def _step_um(centers_um: np.ndarray) -> float:
    """Return the width of a pixel; 1 where there is only one, whose width the axis doesn't say."""
    return float(np.abs(np.diff(centers_um)).mean()) if len(centers_um) > 1 else 1.0
