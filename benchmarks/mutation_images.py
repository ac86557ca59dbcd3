"""Files of maps that are no HDF5, and whether the map of a damaged file is another one.

A byte of a value that changed is another value: no format here has checksums, and nobody can tell.
But values must not move: a map is wrong where it holds the values of the undamaged one at other
places, or under the name of another element, and no note says that this may be so.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import fabio
import numpy as np
import tifffile
from mutating import Subject, mutated_bytes, mutated_json
from mutation_hdf5 import COUNTS

from xrf_sr_plans.maps.files import MapsFile, read_maps
from xrf_sr_plans.maps.files.hdf5_worker import WORK
from xrf_sr_plans.maps.files.options import ReadOptions

NAMES = ("Fe", "Zn", "Pb_L")
ALIKE = 0.9
"""Correlation above which a map is that of the undamaged file, moved."""
UNLIKE = 0.5
"""Correlation with the undamaged map in its own place, below which it is another one."""
MOST_MOVED = 0.5
"""Share of the pixels of a map that have to hold values of other pixels, for it to be wrong."""


def image_families(folder: Path) -> dict[str, list[Subject]]:
    """Return the files of each family, which are read in a folder of their own."""
    one_file = {"MDA": (_mda(), "mda", "mda"), "PyMca CSV": (_table(), "csv", "csv")}
    one_file |= {"PyMca EDF": (_edf(folder), "edf", "edf")}
    one_file |= {"OME-TIFF": (_tiff(folder), "ome.tif", "tiff")}
    families = {}
    for name, (content, ending, reader) in one_file.items():
        home = folder / name
        home.mkdir()
        read = _reader(home / f"maps.{ending}", reader)
        families[name] = [Subject(name, content, read, mutated_bytes)]
    for name, described in (("PyMca TIFF", False), ("TIFF stack", True)):
        home = folder / name
        home.mkdir()
        families[name] = _sets(name, home, described)
    return families


def _sets(name: str, home: Path, described: bool) -> list[Subject]:
    """Return each file of a set, of which the others stay whole: images and what describes them."""
    given = home / "scan1.tif"
    if described:
        tifffile.imwrite(given, COUNTS, photometric="minisblack")
        facts = {"elements": list(NAMES), "step_um": [0.75, 0.5], "units": "counts", "dwell_ms": 20}
        (home / "scan1.json").write_text(json.dumps(facts))
    else:
        given = home / f"scan1_{NAMES[0]}.tif"
        for element, counts in zip(NAMES, COUNTS, strict=True):
            tifffile.imwrite(home / f"scan1_{element}.tif", counts)
            tifffile.imwrite(home / f"scan1_s{element}.tif", np.sqrt(counts))
    subjects = []
    for path in sorted(home.iterdir()):
        whole = path.read_bytes()
        read = _reader(path, "tiff", given, whole)
        is_json = path.suffix == ".json"
        mutate = mutated_json if is_json else mutated_bytes
        subjects.append(Subject(name, whole, read, mutate, is_description=is_json))
    return subjects


def _reader(
    path: Path, reader: str, given: Path | None = None, whole: bytes = b""
) -> Callable[[bytes, bool], object]:
    """Return what writes a file and reads it, or a set of which it is one."""
    source = given or path

    def read(content: bytes, as_users: bool) -> object:
        path.write_bytes(content)
        try:
            if as_users:
                return read_maps(source, reader=reader)
            os.chdir(source.parent)
            return WORK[reader](source, source.name, ReadOptions(), lambda values: None)
        finally:
            if given is not None:
                path.write_bytes(whole)

    return read


def wrong_map(found: object) -> str:
    """Return how a map that was read of a damaged file is another one; "" where it isn't."""
    if not isinstance(found, MapsFile) or found.maps.shape[1:] != COUNTS.shape[1:]:
        return ""
    if any("displaced" in note for note in found.notes):
        return ""
    for name, plane in zip(found.elements, found.maps, strict=True):
        own = next((k for k, known in enumerate(_names()) if known == name), None)
        if own is None or not np.isfinite(plane).all() or np.ptp(plane) == 0:
            continue
        if _alike(plane, COUNTS[own]) > UNLIKE:
            continue
        for k, other in enumerate(COUNTS):
            if k != own and _alike(plane, other) > ALIKE:
                return f"{name} holds another element"
            if _alike(plane, np.sqrt(other)) > ALIKE:
                return f"{name} holds uncertainties"
        truth = COUNTS[own]
        for what, moved in {
            "mirrored along x": truth[:, ::-1],
            "mirrored along y": truth[::-1],
            "turned by half": truth[::-1, ::-1],
        }.items():
            if _alike(plane, moved) > ALIKE:
                return f"{name} is {what}"
        for shift in range(1, truth.size):
            if np.mean(np.roll(truth.ravel(), shift) == plane.ravel()) > MOST_MOVED:
                return f"{name} is moved by {shift} pixels"
    return ""


def _names() -> tuple[str, ...]:
    return NAMES


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    """Return by which share two planes agree."""
    return float(np.mean(np.abs(first - second) < 1e-3))


def _tiff(folder: Path) -> bytes:
    path = folder / "made.ome.tif"
    described = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, COUNTS, metadata={**described, "Channel": {"Name": list(NAMES)}})
    return path.read_bytes()


def _edf(folder: Path) -> bytes:
    image = fabio.edfimage.EdfImage(data=COUNTS[0], header={"Title": NAMES[0]})
    for name, counts in zip(NAMES[1:], COUNTS[1:], strict=True):
        image.append_frame(data=counts, header={"Title": name})
    path = folder / "made.edf"
    image.write(str(path))
    return path.read_bytes()


def _table() -> bytes:
    lines = [";".join(["row", "column", "x_mm", "y_mm", *NAMES])]
    for row, column in np.ndindex(COUNTS.shape[1:]):
        values = [row, column, 0.002 * column, 0.003 * row, *COUNTS[:, row, column].tolist()]
        lines.append(";".join(f"{value:g}" for value in values))
    return "\n".join(lines).encode()


def _mda() -> bytes:
    """Return a scan of the sscan record with regions of two detector elements."""
    ny, nx = COUNTS.shape[1:]
    head = struct.pack(">f", 1.4) + _whole(1, 2, ny, nx, 1)
    outer = ("2xfm:m13.VAL", "Sample Y", 0.003 * np.arange(ny))
    size = len(head) + 4 + len(_scan(2, outer, [], [0] * ny))
    rows, offsets = b"", []
    for row in range(ny):
        detectors = [
            (f"dxp:mca{element}.R{k}", COUNTS[k, row] / 2)
            for element in (1, 2)
            for k in range(len(NAMES))
        ]
        offsets.append(size + len(rows))
        rows += _scan(1, ("2xfm:m12.VAL", "Sample X", 0.002 * np.arange(nx)), detectors)
    body = _scan(2, outer, [], offsets) + rows
    labels = [
        _text(f"dxp:mca{element}.R{k}NM") + _text("") + _whole(0) + _text(name)
        for element in (1, 2)
        for k, name in enumerate(NAMES)
    ]
    extra = len(head) + 4 + len(body)
    return head + _whole(extra) + body + _whole(len(labels)) + b"".join(labels)


def _whole(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def _text(value: str) -> bytes:
    raw = value.encode()
    return _whole(len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4) if raw else _whole(0)


def _scan(rank: int, positions: tuple, detectors: list, offsets: list[int] | None = None) -> bytes:
    name, description, values = positions
    content = _whole(rank, len(values), len(values), *(offsets or ()))
    content += _text("2xfm:scan") + _text("today") + _whole(1, len(detectors), 0)
    content += _whole(0) + b"".join(map(_text, (name, description, "LINEAR", "mm", "", "", "")))
    for number, (channel, _) in enumerate(detectors):
        content += _whole(number) + _text(channel) + _text("") + _text("")
    content += np.asarray(values, ">f8").tobytes()
    return content + b"".join(np.asarray(v, ">f4").tobytes() for _, v in detectors)
