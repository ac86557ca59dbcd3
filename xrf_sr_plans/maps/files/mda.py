"""MDA: the files of EPICS's saveData, which the sscan record of 2-ID writes.

The format is described with the sscan module ("saveData and the MDA format"): big-endian XDR, a
header, and a tree of scans. The outer scan of a map has a row for each of its points, each row
being a scan of its own with as many points as it got, so that short and missing rows show.
Nothing of this format is read but numbers and names, and every count is checked against the bytes
that are left before memory is taken for it.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.npz_archive import MAX_VALUES

MAX_TEXT_BYTES = 4096
"""Longest name in a file."""

MAX_EXTRA = 100_000
"""Largest number of process variables that are saved besides."""

MAX_CHANNELS = 1000
"""Largest number of positioners or detectors of one scan."""

_CHARACTERS = 32
# Types of values as EPICS numbers them (DBR_CTRL_SHORT ...), and how XDR stores each of them.
_EXTRA_KINDS = {29: ">i4", 30: ">f4", _CHARACTERS: ">i4", 33: ">i4", 34: ">f8"}


@dataclass(frozen=True, eq=False)
class MdaChannel:
    """A positioner or a detector of one scan.

    Parameters
    ----------
    field
        Which one it is: P1, or D01 ...
    name
        Process variable; of a positioner that of its readback, where it has one.
    description
        What the record says it is.
    unit
        Unit, as EPICS spells it.
    values
        One for each point that was measured [point].
    """

    field: str
    name: str
    description: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class MdaScan:
    """One scan of the tree.

    Parameters
    ----------
    rank
        1 for a row of points, 2 for rows.
    num
        Number of points that were asked for.
    done
        Number of points that were measured.
    name
        Name of the scan record.
    positioners, detectors
        Its channels.
    inner
        The scans at its points, None where there is none. Numbers of the innermost scans of three
        are as they are stored, big-endian.
    """

    rank: int
    num: int
    done: int
    name: str
    positioners: tuple[MdaChannel, ...]
    detectors: tuple[MdaChannel, ...]
    inner: tuple[MdaScan | None, ...] = field(default=())


@dataclass(frozen=True, eq=False)
class Mda:
    """What an MDA file holds.

    Parameters
    ----------
    scan
        The outer scan, of the rank 2, or 3 where there are scans at each point of its rows.
    extra
        Value of each process variable that was saved besides, by its name: a text, or numbers.
    """

    scan: MdaScan
    extra: dict[str, str | np.ndarray]


def read_mda(path: Path, shown: str, before: Callable[[int], None]) -> Mda:
    """Return what an MDA file holds, of two dimensions or of three with spectra at the points.

    Parameters
    ----------
    path
        The file.
    shown
        Its name in messages.
    before
        Called before each scan is read, with the number of its values.

    Raises
    ------
    FileFormatError
        It is no MDA file, a damaged one, or one of one dimension or of more than three.
    """
    content = path.read_bytes()
    try:
        stream = _Xdr(content)
        version, _number, rank = stream.real(), stream.whole(), stream.whole()
        if not 1.0 <= version < 2 or not 1 <= rank <= 4:
            raise FileFormatError(f"{shown}: no MDA file: version {version:g}, {rank} dimensions")
        shape = [stream.whole() for _ in range(rank)]
        if rank not in (2, 3):
            raise FileFormatError(
                f"{shown}: an MDA file of {rank} dimensions {shape}; two are needed, a row of"
                " points for each point of the outer scan, or three with spectra at these points"
            )
        stream.whole()  # whether all rows have the same length, which they say themselves
        extra = stream.whole()
        # There may be millions of numbers in the spectra of a map: they stay as they are.
        tree = _scan(stream, rank, before, stream.stored if rank > 2 else stream.numbers)
        stream.at = extra
        return Mda(tree, _extra(stream) if extra > 0 else {})
    except FileFormatError:
        raise
    except (struct.error, ValueError, OverflowError) as error:
        raise FileFormatError(f"{shown}: damaged MDA file ({error})") from error


class _Xdr:
    """Reads big-endian XDR, and never past the end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.at = 0

    def take(self, size: int) -> bytes:
        if size < 0 or size > len(self.content) - self.at:
            raise ValueError(f"{size} bytes are needed at {self.at} of {len(self.content)}")
        part = self.content[self.at : self.at + size]
        self.at += size
        return part

    def whole(self) -> int:
        return int(struct.unpack(">i", self.take(4))[0])

    def count(self, most: int) -> int:
        number = self.whole()
        if not 0 <= number <= most:
            raise ValueError(f"a count of {number} at {self.at - 4}; 0 to {most} are possible")
        return number

    def real(self) -> float:
        return float(struct.unpack(">f", self.take(4))[0])

    def text(self) -> str:
        """Return a counted string: its length, and where that isn't 0 an XDR string."""
        if not self.count(MAX_TEXT_BYTES):
            return ""
        length = self.count(MAX_TEXT_BYTES)
        raw = self.take(length + -length % 4)[:length]
        return raw.decode("latin-1").strip("\0 ")

    def numbers(self, count: int, kind: str) -> np.ndarray:
        return self.stored(count, kind).astype(float)

    def stored(self, count: int, kind: str) -> np.ndarray:
        """Return numbers as they are stored, without memory of their own."""
        return np.frombuffer(self.take(count * np.dtype(kind).itemsize), dtype=kind)


def _scan(
    stream: _Xdr,
    most: int,
    before: Callable[[int], None],
    innermost: Callable[[int, str], np.ndarray],
) -> MdaScan:
    """Return the scan that begins here, and those within it; `innermost` reads their numbers."""
    numbers = innermost if most == 1 else stream.numbers
    rank = stream.count(most)
    if rank != most:
        raise ValueError(f"a scan of {rank} dimensions, where one of {most} is due")
    num = stream.count(MAX_VALUES)
    done = min(stream.count(MAX_VALUES), num)
    below = stream.numbers(num, ">i4").astype(int) if rank > 1 else np.zeros(0, int)
    name, _time = stream.text(), stream.text()
    n_positioners, n_detectors, n_triggers = (stream.count(MAX_CHANNELS) for _ in range(3))
    positioners = [_positioner(stream) for _ in range(n_positioners)]
    detectors = [_detector(stream) for _ in range(n_detectors)]
    for _ in range(n_triggers):
        stream.whole()
        stream.text()
        stream.real()
    before(num * (n_positioners + n_detectors))
    placed, counted = (
        tuple(MdaChannel(*known, numbers(num, kind)[:done]) for known in channels)
        for channels, kind in ((positioners, ">f8"), (detectors, ">f4"))
    )
    inner: list[MdaScan | None] = []
    for offset in below:
        if offset <= 0:
            inner.append(None)
            continue
        stream.at = int(offset)
        inner.append(_scan(stream, rank - 1, before, innermost))
    return MdaScan(rank, num, done, name, placed, counted, tuple(inner))


def _extra(stream: _Xdr) -> dict[str, str | np.ndarray]:
    """Return the process variables that were saved with the scan, texts and numbers."""
    found: dict[str, str | np.ndarray] = {}
    for _ in range(stream.count(MAX_EXTRA)):
        name, _description, kind = stream.text(), stream.text(), stream.whole()
        if kind == 0:
            found[name] = stream.text()
            continue
        count, _unit = stream.count(MAX_TEXT_BYTES), stream.text()
        if kind not in _EXTRA_KINDS:
            raise ValueError(f"a process variable of the type {kind}")
        values = stream.numbers(count, _EXTRA_KINDS[kind])
        if kind == _CHARACTERS:
            text = bytes(int(value) & 0xFF for value in values).decode("latin-1")
            found[name] = text.split("\0")[0].strip()
        else:
            found[name] = values
    return found


def _positioner(stream: _Xdr) -> tuple[str, str, str, str]:
    number = stream.whole()
    name, description, _mode, unit = (stream.text() for _ in range(4))
    readback, readback_description, readback_unit = (stream.text() for _ in range(3))
    # What is stored are the positions of the readback, where there is one.
    return (
        f"P{number + 1}",
        readback or name,
        readback_description or description,
        readback_unit or unit,
    )


def _detector(stream: _Xdr) -> tuple[str, str, str, str]:
    number = stream.whole()
    return f"D{number + 1:02d}", stream.text(), stream.text(), stream.text()


def is_mda(path: Path, head: bytes) -> bool:
    """Return whether a file may be MDA: by its name, or by version and number of dimensions."""
    if path.suffix.lower() == ".mda":
        return True
    if len(head) < 12:
        return False
    version, _number, rank = struct.unpack(">fii", head[:12])
    return math.isfinite(version) and 1.0 < version < 2.0 and 1 <= rank <= 4
