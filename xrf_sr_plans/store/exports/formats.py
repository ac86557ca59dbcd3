"""`export_map`: save a map in one of the layouts that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import alternatives
from xrf_sr_plans.store.exports.exported_map import AnyMap, ExportedMap, exported_map
from xrf_sr_plans.store.exports.maps_h5 import write_maps_h5
from xrf_sr_plans.store.exports.nexus import write_nexus
from xrf_sr_plans.store.exports.ome_tiff import write_ome_tiff
from xrf_sr_plans.store.exports.pyxrf_h5 import write_pyxrf_h5


@dataclass(frozen=True)
class Format:
    """A layout of files."""

    write: Callable[[ExportedMap, Path | str], Path]
    suffixes: tuple[str, ...]
    """Endings of file names that stand for this layout, the usual one first."""


FORMATS: Mapping[str, Format] = {
    "nexus": Format(write_nexus, (".h5", ".nxs", ".hdf5", ".hdf")),
    "maps": Format(write_maps_h5, (".maps.h5",)),
    "pyxrf": Format(write_pyxrf_h5, (".pyxrf.h5",)),
    "ome-tiff": Format(write_ome_tiff, (".ome.tif", ".ome.tiff", ".tif", ".tiff")),
}
"""The layouts by the names that `--format` has for them."""


def format_for(path: Path | str, name: str | None = None) -> str:
    """Return the layout for a file: the one that is named, else that of the name's ending.

    Raises
    ------
    ConfigError
        There is no such layout, or the ending is that of none.
    """
    if name is not None:
        if name not in FORMATS:
            raise ConfigError(f"format is {name!r}; one of {alternatives(tuple(FORMATS))}")
        return name
    ending = str(path).lower()
    endings = {suffix: key for key, one in FORMATS.items() for suffix in one.suffixes}
    # The longest first: .maps.h5 also ends in .h5.
    for suffix in sorted(endings, key=len, reverse=True):
        if ending.endswith(suffix):
            return endings[suffix]
    raise ConfigError(
        f"{path}: the ending stands for no format; give one of {', '.join(endings)}, or the format"
    )


def new_file(
    source: Path, addition: str, out: Path | None = None, format: str | None = None
) -> tuple[Path, str]:
    """Return the file for a map that is made from another file, and its layout.

    Parameters
    ----------
    source
        The file that the map is made from.
    addition
        What the name of the new file has more than that of `source`.
    out
        The new file; None: beside `source`.
    format
        A name of `FORMATS`; None: what the ending of `out` stands for, else NeXus.

    Raises
    ------
    ConfigError
        There is no such format, or the ending of `out` stands for none.
    """
    if out is not None:
        return out, format_for(out, format)
    chosen = format_for("", format or "nexus")
    return source.with_name(source.stem + addition + FORMATS[chosen].suffixes[0]), chosen


def export_map(
    maps: AnyMap,
    path: Path | str,
    format: str | None = None,
    *,
    units: Sequence[str] = (),
    photons: np.ndarray | None = None,
    verification: Sequence[Mapping[str, Any]] = (),
    source_file: Path | str | None = None,
) -> Path:
    """Save measured maps, enhanced maps or a composite map for other programs.

    An existing file is replaced, and no half-written file is ever seen under the name `path`.

    Parameters
    ----------
    maps
        The map.
    path
        File name. The folder must exist.
    format
        A name of `FORMATS`; None: the one that the ending of `path` stands for.
    units
        Unit in which to tell the values of each element, in the formats that name units; none:
        photons per measured pixel.
    photons
        Photons of a value of 1 in that unit (element,); None: one.
    verification
        How fine maps compared with what had been predicted, which NeXus files take in; see
        `write_verification`.
    source_file
        The file that the map was made from; None: it was made from runs.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    ConfigError
        There is no such format.
    GridError
        There is not one unit for each element.
    OSError
        The file can't be written.
    """
    chosen = FORMATS[format_for(path, format)]
    exported = exported_map(
        maps, units=units, photons=photons, verification=verification, source_file=source_file
    )
    return chosen.write(exported, path)
