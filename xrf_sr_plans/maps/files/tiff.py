"""The images of one TIFF file, unless its parts don't fit together.

TIFF has no checksums, and values lie one behind the other. A file that lost bytes, or whose
directory points elsewhere, can therefore be read with all values at the places of others. What
tells is that directories, tags and images must neither overlap nor lead nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError
from xrf_sr_plans.maps.files.npz_archive import MAX_VALUES

_ENTRY_BYTES = {False: (12, 6), True: (20, 16)}
"""Bytes of an entry of a directory and of what is around them, in TIFF and in BigTIFF."""
_SPARE_BYTES = 15
"""Zero bytes behind the last image that some writers fill up with."""


@dataclass(frozen=True, eq=False)
class Image:
    """The images of one file.

    Parameters
    ----------
    planes
        Values [image, row, column].
    names
        Name of each, "" where the file says none.
    facts
        What else the file says, as the JSON beside images has it.
    notes
        What whoever sees the maps must know.
    """

    planes: np.ndarray
    names: tuple[str, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_tiff(path: Path, before: Callable[[int], None]) -> Image:
    """Return the images of a TIFF file, and what OME or ImageJ say of them.

    Parameters
    ----------
    path
        The file.
    before
        Called with the number of values before they are read.

    Raises
    ------
    FileFormatError
        Its images are no maps, or it is damaged.
    MissingExtraError
        tifffile is not installed.
    """
    try:
        import tifffile
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}", "files") from error
    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        size = int(np.prod(series.shape, dtype=float))
        if len(series.shape) not in (2, 3) or not 0 < size <= MAX_VALUES:
            raise FileFormatError(
                f"{path}: a TIFF image of the shape {series.shape}; (row, column) or (image, row,"
                " column) is needed"
            )
        if series.dtype is None or series.dtype.kind not in "fiu":
            raise FileFormatError(f"{path}: TIFF values of the type {series.dtype}")
        _check_directory(file, series, size, path)
        notes = _check_places(file, size, path)
        before(size)
        planes = series.asarray()
        planes = planes[None] if planes.ndim == 2 else planes
        facts = _ome(tifffile, file.ome_metadata) if file.is_ome else {}
        imagej = file.imagej_metadata or {}
    names = facts.pop("names", None) or imagej.get("Labels") or [""] * len(planes)
    names = [str(name).split("\n")[0] for name in names]
    if len(names) != len(planes):
        names = [""] * len(planes)
    return Image(planes, tuple(names), facts, notes)


def _check_directory(file: Any, series: Any, size: int, path: Path) -> None:
    """Refuse a file whose directory lacks images that are said to be there.

    Images lie one behind the other, so the values of a file that lost some bytes can still be read,
    but at the places of others. That its directory doesn't lead on is what tells.

    Raises
    ------
    FileFormatError
        It is such a file.
    """
    expected, listed = size // series.keyframe.size, len(series.pages)
    if listed == expected and None not in list(series.pages):
        return
    # Writers of very large files may list the first image only, and say so.
    shortened = file.is_imagej or any(said.get("truncated") for said in file.shaped_metadata or ())
    if shortened and len(file.pages) == listed == 1:
        return
    raise FileFormatError(
        f"{path}: damaged TIFF: it is said to hold {expected} images, and its directory lists"
        f" {listed}"
    )


def _check_places(file: Any, size: int, path: Path) -> tuple[str, ...]:
    """Refuse a file in which an image lies where directories and tags are; note what is left over.

    Raises
    ------
    FileFormatError
        It is such a file.
    """
    # Where the images have been looked at as a series, only the first one has its tags.
    with type(file)(path) as opened:
        opened.pages.useframes = False
        pages = list(opened.pages)
    images = [part for page in pages for part in _values(page)]
    others = [(0, 8), *(part for page in pages for part in _directory(file, page))]
    for start, end in images:
        for other_start, other_end in others:
            if start < other_end and other_start < end:
                raise FileFormatError(
                    f"{path}: damaged TIFF: an image at the bytes {start} to {end} lies over what"
                    f" is at {other_start} to {other_end}"
                )
    last = max((end for _, end in images), default=0)
    left = path.stat().st_size - last
    # A directory at the end may have room to spare, and leads nowhere where values have moved.
    # Where the first of several images is listed only, the others follow it.
    tells = last > max(end for _, end in others) and (len(pages) > 1 or size <= pages[0].size)
    if tells and left > 0 and not _is_filling(path, last):
        return (f"{left} bytes at its end belong to nothing: its values may be displaced",)
    return ()


def _is_filling(path: Path, start: int) -> bool:
    with path.open("rb") as stream:
        stream.seek(start)
        rest = stream.read(_SPARE_BYTES + 1)
    return len(rest) <= _SPARE_BYTES and not any(rest)


def _values(page: Any) -> Iterator[tuple[int, int]]:
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=False):
        if size:
            yield start, start + size


def _directory(file: Any, page: Any) -> Iterator[tuple[int, int]]:
    """Yield where the directory of an image lies, and the values of its tags."""
    entry, around = _ENTRY_BYTES[bool(file.tiff.is_bigtiff)]
    yield page.offset, page.offset + around + len(page.tags) * entry
    for tag in page.tags:
        if tag.valuebytecount > file.tiff.tagoffsetthreshold:
            yield tag.valueoffset, tag.valueoffset + tag.valuebytecount


def _ome(tifffile: Any, description: str | None) -> dict[str, Any]:
    """Return names, steps and unit in the description of an OME-TIFF."""
    described = tifffile.xml2dict(description or "<OME/>").get("OME", {})
    image = described.get("Image", {})
    image = image[0] if isinstance(image, list) and image else image
    pixels = image.get("Pixels", {}) if isinstance(image, dict) else {}
    channels = pixels.get("Channel", []) if isinstance(pixels, dict) else []
    channels = channels if isinstance(channels, list) else [channels]
    facts: dict[str, Any] = {"names": [str(c.get("Name", "")) for c in channels]}
    for name in "XY":
        step = pixels.get(f"PhysicalSize{name}")
        unit = pixels.get(f"PhysicalSize{name}Unit", "um")
        if isinstance(step, int | float):
            from xrf_sr_plans.maps.units import um_per_unit

            scale = um_per_unit(unit, f"PhysicalSize{name}", error=FileFormatError)
            facts[f"step_{name.lower()}_um"] = float(step) * scale
    return facts
