"""Images: EDF (PyMca) and TIFF, one for each element or all of them in one file.

An image has no names and no positions of its own. The name of an element comes from the image's
title, from the description that OME-TIFF and ImageJ keep, or from the name of the file; images of
other elements lie beside it under the same name but for the element (``scan1_Fe_K.edf``,
``scan1_Zn_K.edf``). Positions come from the description, or from a JSON file beside the images
(``scan1.json``: ``elements``, ``step_um`` or ``x_um`` and ``y_um``, ``units``, ``dwell_ms``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.maps.files.model import (
    FileAxis,
    LiveTime,
    MapsFile,
    atomic_number,
    build,
    is_element,
)
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.tiff import Image, open_tiff

MAX_EDF_BYTES = 2**30
"""Largest size of an EDF file in bytes."""

_MAX_JSON_BYTES = 2**22
_ENDINGS = (".tif", ".tiff", ".edf")
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f]")
"""Bytes that no text has."""
# PyMca puts an s before the element where an image holds the uncertainties of another one.
_UNCERTAIN = re.compile(r"(^|_)s\(?[A-Z][a-z]?([ _-][KLM]\w*)?\)?$")


def read_tiff(
    path: Path, shown: str, options: ReadOptions, before: Callable[[int], None]
) -> MapsFile:
    """Return the maps in TIFF files, or in those that a JSON file describes.

    Parameters
    ----------
    path
        A TIFF file of one or several images, or the JSON beside them.
    shown
        Its name in messages.
    options
        What the user knows better than the file.
    before
        Called before each step, with the number of values that it is going to read.

    Raises
    ------
    FileFormatError
        The file is damaged, no image has the name of an element, or sizes differ.
    MissingExtraError
        tifffile is not installed.
    """
    return _read(path, shown, options, before, "tiff", open_tiff)


def read_edf(
    path: Path, shown: str, options: ReadOptions, before: Callable[[int], None]
) -> MapsFile:
    """Return the maps in EDF files; see `read_tiff`.

    Raises
    ------
    FileFormatError
        As `read_tiff`.
    MissingExtraError
        fabio is not installed.
    """
    return _read(path, shown, options, before, "edf", _edf)


Opener = Callable[[Path, Callable[[int], None]], Image]


def _read(
    path: Path,
    shown: str,
    options: ReadOptions,
    before: Callable[[int], None],
    reader: str,
    opened: Opener,
) -> MapsFile:
    described, facts = _description(path, shown)
    files = _files(path, described, facts, shown)
    names: list[str] = []
    planes: list[np.ndarray] = []
    notes: list[str] = []
    for name, file in files:
        image = _open(opened, file, f"{shown} ({file.name})" if len(files) > 1 else shown, before)
        facts = {**image.facts, **facts}
        notes += [f"{file.name}: {note}" for note in image.notes]
        own = image.names
        if len(own) == 1 and (name or not own[0]):
            own = (name or file.stem,)
        names += own
        planes += list(image.planes)
    listed = facts.get("elements")
    if isinstance(listed, list) and len(listed) == len(names):
        named = len(files) > 1 or all(names)
        names = names if named and all(map(is_element, names)) else [str(n) for n in listed]
    _refuse_unnamed(names, shown)
    if len({plane.shape for plane in planes}) > 1:
        sizes = sorted({plane.shape for plane in planes})
        raise FileFormatError(f"{shown}: its images have the sizes {sizes}; one is needed")
    dwell_ms = facts.get("dwell_ms")
    return build(
        np.stack(planes),
        names,
        layout=f"{reader} {', '.join(file.name for _, file in files[:4])}",
        path=shown,
        axes=_axes(facts, planes[0].shape, shown),
        options=options,
        units=facts.get("units"),
        live_time=LiveTime(np.array(dwell_ms / 1e3), "dwell_ms")
        if isinstance(dwell_ms, int | float)
        else None,
        meta={"reader": reader, "notes": notes},
    )


def _open(opened: Opener, path: Path, shown: str, before: Callable[[int], None]) -> Image:
    try:
        return opened(path, before)
    except (FileFormatError, MissingExtraError, MemoryError):
        raise
    except Exception as error:  # the libraries raise a dozen kinds for damaged bytes
        raise FileFormatError(f"{shown}: damaged image file ({in_words(error)})") from error


def _refuse_unnamed(names: list[str], shown: str) -> None:
    if any(map(is_element, names)):
        return
    uncertain = [name for name in names if _UNCERTAIN.search(name)]
    if uncertain:
        raise FileFormatError(
            f"{shown}: holds the uncertainties of fits ({uncertain[0]}), not their results: give"
            " the file without the s before the element"
        )
    raise FileFormatError(
        f"{shown}: its {len(names)} images ({', '.join(names[:4])}) have no names of elements;"
        " a JSON file of the same name beside it can give them"
        ' ({"elements": ["Fe", ...], "step_um": 2.0})'
    )


def _description(path: Path, shown: str) -> tuple[Path, dict[str, Any]]:
    """Return the JSON file beside images, which need not be there, and what it says."""
    candidates = [path.with_suffix(".json")]
    candidates += [path.with_name(f"{_split(path)[0]}.json")]
    described = next((file for file in candidates if file.is_file()), candidates[0])
    if not described.is_file():
        return described, {}
    if described.stat().st_size > _MAX_JSON_BYTES:
        raise FileFormatError(f"{shown}: {described.name} is too large for a description")
    try:
        facts = json.loads(described.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise FileFormatError(f"{shown}: {described.name}: {in_words(error)}") from error
    if not isinstance(facts, dict):
        raise FileFormatError(f"{shown}: {described.name} describes no images")
    return described, facts


def _split(path: Path) -> tuple[str, str]:
    """Return the name of a file before its element, and the element; "" where it names none."""
    if _UNCERTAIN.search(path.stem):
        return path.stem, ""
    parts = path.stem.split("_")
    for start in range(len(parts)):
        name = "_".join(parts[start:])
        if is_element(name):
            return "_".join(parts[:start]), name
    return path.stem, ""


def _files(
    path: Path, described: Path, facts: Mapping[str, Any], shown: str
) -> list[tuple[str, Path]]:
    """Return the files of a set of images, with the element that each one's name says."""
    stem, element = _split(path)
    if path.suffix.lower() != ".json" and not element:
        return [("", path)]
    if path.suffix.lower() == ".json":
        stem = path.stem
    endings = _ENDINGS if path.suffix.lower() == ".json" else (path.suffix,)
    found: dict[str, Path] = {}
    for other in sorted(path.parent.iterdir()):
        if other.suffix.lower() not in {ending.lower() for ending in endings}:
            continue
        begin, name = _split(other)
        if name and begin == stem and other.is_file():
            found.setdefault(name, other)
        elif other.stem == stem and path.suffix.lower() == ".json":
            return [("", other)]
    if not found:
        raise FileFormatError(
            f"{shown}: describes images, but there is no {stem}_ELEMENT.tif beside it"
        )
    listed = facts.get("elements")
    if isinstance(listed, list):
        order = {str(name): place for place, name in enumerate(listed)}
        # Both "Fe" and "Fe_K" may be listed for a file that is named Fe_K.
        return sorted(
            found.items(),
            key=lambda item: order.get(item[0], order.get(item[0].split("_")[0], len(order))),
        )
    return sorted(found.items(), key=lambda item: atomic_number(item[0]))


def _axes(facts: Mapping[str, Any], shape: tuple[int, ...], shown: str) -> dict[str, FileAxis]:
    """Return the positions that a description gives: lists, or steps from 0 on."""
    axes = {}
    step = facts.get("step_um", facts.get("pixel_size_um"))
    steps = step if isinstance(step, list) and len(step) == 2 else [step, step]
    steps = [facts.get(f"step_{name}_um", each) for name, each in zip("yx", steps, strict=True)]
    for name, num, each in zip("yx", shape, steps, strict=True):
        listed = facts.get(f"{name}_um")
        try:
            if isinstance(listed, list):
                axes[name] = FileAxis(np.array(listed, dtype=float), "um", f"{name}_um")
            elif each is not None and num > 1:
                axes[name] = FileAxis(float(each) * np.arange(num), "um", "step_um")
        except (TypeError, ValueError) as error:
            raise FileFormatError(f"{shown}: {name}_um or step_um is no number: {error}") from error
    return axes


def _edf(path: Path, before: Callable[[int], None]) -> Image:
    try:
        from fabio.edfimage import EdfImage
    except ImportError as error:
        raise MissingExtraError(f"reading {path.name}", "files") from error
    size = path.stat().st_size
    if size > MAX_EDF_BYTES:
        raise FileFormatError(f"{path}: an EDF file of {size} bytes; at most {MAX_EDF_BYTES}")
    before(size)
    _check_blocks(path.read_bytes(), path.name)
    image = EdfImage().read(str(path))
    planes, names = [], []
    for number in range(image.nframes):
        frame = image.get_frame(number)
        data = np.asarray(frame.data)
        if data.ndim != 2 or data.dtype.kind not in "fiu":
            raise FileFormatError(f"{path}: an EDF image of the shape {data.shape}")
        declared = str(frame.header.get("Size", data.nbytes)).strip()
        if declared != str(data.nbytes) and "Compression" not in frame.header:
            raise FileFormatError(
                f"{path}: damaged EDF file: an image of {declared} bytes for {data.shape} values"
            )
        planes.append(data)
        names.append(str(frame.header.get("Title", frame.header.get("title", ""))).strip())
    if not planes or len({plane.shape for plane in planes}) > 1:
        raise FileFormatError(f"{path}: EDF images of no or several sizes")
    return Image(np.stack(planes), tuple(names))


def _check_blocks(content: bytes, shown: str) -> None:
    """Refuse an EDF file whose headers and images don't fill it exactly.

    A file that lost bytes, or has too many, would be read with all values moved.
    """
    at = 0
    while at < len(content.rstrip(b"\0")):
        end = content.find(b"}\n", at)
        header = content[at : end + 2]
        sizes = re.findall(rb"(?:^|[;\s])Size\s*=\s*(\d{1,12})\s*;", header)
        # Where its end is lost, a header goes on through the values of its image to the next one.
        is_text = header.lstrip().startswith(b"{") and not _BINARY.search(header)
        if end < 0 or not is_text or len(sizes) != 1:
            raise FileFormatError(f"{shown}: damaged EDF file: no header at byte {at}")
        at = end + 2 + int(sizes[0])
    if at > len(content):
        raise FileFormatError(
            f"{shown}: damaged EDF file: {len(content)} bytes, where its headers name {at}"
        )


def is_tiff(path: Path, head: bytes) -> bool:
    """Return whether a file is TIFF, or a JSON file that may describe TIFF files beside it."""
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return True
    described = path.suffix.lower() == ".json" and head.lstrip().startswith(b"{")
    return described and (b'"elements"' in head or b'"step' in head)


def is_edf(path: Path, head: bytes) -> bool:
    """Return whether a file is EDF: a header between braces of lines that end in semicolons."""
    start = head.lstrip()
    return start.startswith(b"{") and (b"HeaderID" in start or b"Dim_1" in start)
