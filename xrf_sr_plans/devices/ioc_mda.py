"""MDA files of the simulated IOC, as EPICS's saveData writes them while a scan goes on.

The format is described with the sscan module ("saveData and the MDA format"): big-endian XDR.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_VERSION = 1.4
_TEXT = 0


@dataclass(frozen=True)
class MdaPositioner:
    """A positioner: process variable, description, unit and where it was at each point."""

    name: str
    description: str
    unit: str
    values: np.ndarray


@dataclass(frozen=True)
class MdaRow:
    """A row of points: its positioner and the values of each detector, by process variable."""

    positioner: MdaPositioner
    detectors: Mapping[str, np.ndarray]


def mda_bytes(
    number: int,
    names: tuple[str, str],
    slow: MdaPositioner,
    rows: Sequence[MdaRow],
    num: tuple[int, int],
    labels: Mapping[str, str],
) -> bytes:
    """Return the file of a two-dimensional scan that may still go on.

    Parameters
    ----------
    number
        Number of the scan.
    names
        Names of the outer and the inner scan record.
    slow
        The positioner of the outer scan, with a value for each of its points.
    rows
        The rows so far.
    num
        Number of rows and of points in a row that were asked for.
    labels
        Texts that are saved besides, by process variable.
    """
    head = struct.pack(">fii2ii", _VERSION, number, 2, *num, 1)
    outer_size = len(_scan(2, num[0], len(rows), names[0], slow, {}, [0] * num[0]))
    # Offsets count from the start of the file; the head ends with that of the texts.
    at = len(head) + 4 + outer_size
    inner, offsets = [], [0] * num[0]
    for index, row in enumerate(rows):
        offsets[index] = at
        inner.append(
            _scan(1, num[1], num[1], names[1], row.positioner, row.detectors, offsets=None)
        )
        at += len(inner[-1])
    outer = _scan(2, num[0], len(rows), names[0], slow, {}, offsets)
    texts = [struct.pack(">i", len(labels))]
    for name, value in labels.items():
        texts.append(_text(name) + _text("") + struct.pack(">i", _TEXT) + _text(value))
    return b"".join([head, struct.pack(">i", at), outer, *inner, *texts])


def _text(text: str) -> bytes:
    raw = text.encode("latin-1", errors="replace")
    if not raw:
        return struct.pack(">i", 0)
    return struct.pack(">ii", len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4)


def _scan(
    rank: int,
    num: int,
    done: int,
    name: str,
    positioner: MdaPositioner,
    detectors: Mapping[str, np.ndarray],
    offsets: Sequence[int] | None,
) -> bytes:
    parts = [struct.pack(">iii", rank, num, done)]
    parts += [struct.pack(f">{num}i", *offsets)] if offsets is not None else []
    parts += [_text(name), _text(""), struct.pack(">iii", 1, len(detectors), 0)]
    parts.append(struct.pack(">i", 0))
    known = (positioner.name, positioner.description, "LINEAR", positioner.unit, "", "", "")
    parts += [_text(part) for part in known]
    for index, detector in enumerate(detectors):
        parts += [struct.pack(">i", index), _text(detector), _text(""), _text("cts")]
    parts.append(_numbers(positioner.values, num, ">f8"))
    parts += [_numbers(values, num, ">f4") for values in detectors.values()]
    return b"".join(parts)


def _numbers(values: np.ndarray, num: int, kind: str) -> bytes:
    """Return `num` numbers; points without a value are 0, as in the record's arrays."""
    padded = np.zeros(num, dtype=kind)
    padded[: len(values)] = values[:num]
    return padded.tobytes()
