"""The process in which `hdf5_process.read_hdf5` has a file read: ``python -m`` with this module.

It writes lines to its standard output: a number before each step, which is how many values are
going to be read, and at the end an object in JSON, which the values of the maps, and the live times
if there are any, follow as float64.
It limits its own memory and time, so that it ends even where nobody waits for it any more.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np

from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.files.hdf5_layouts import read_layouts
from xrf_sr_plans.maps.files.hdf5_process import patience_s

_SPARE_BYTES = 2**30
# As read, as chosen, as floats, and what it takes to find the absurd ones among them.
_BYTES_PER_VALUE = 40


class Limits:
    """Limits of memory and processor time that grow with the values that a file declares."""

    def __init__(self) -> None:
        self._values = 0
        self._base = _address_space_bytes()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def grow(self, values: int) -> None:
        """Allow for one more step, which reads so many values."""
        self._values += values
        bytes_allowed = self._base + _SPARE_BYTES + _BYTES_PER_VALUE * self._values
        _limit(resource.RLIMIT_AS, bytes_allowed)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        _limit(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime + patience_s(values)) + 2)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _address_space_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 2**31


def serve(path: Path, shown: str, step_um: float | None, out: BinaryIO) -> None:
    """Read a file and write what becomes of it."""
    limits = Limits()

    def before(values: int) -> None:
        limits.grow(values)
        out.write(b"%d\n" % values)
        out.flush()

    # libhdf5 looks here for files to which a file refers.
    os.chdir(path.parent)
    try:
        found = read_layouts(path, shown, step_um, before)
    except XrfSrError as error:
        out.write(json.dumps({"error": str(error)}).encode() + b"\n")
        return
    head = {
        "shape": found.maps.shape,
        "elements": found.elements,
        "pixel_size_um": found.pixel_size_um,
        "meta": found.meta,
    }
    arrays = [found.maps]
    if found.live_time is not None:
        arrays.append(found.live_time.seconds)
        head["live_time"] = {"place": found.live_time.place, "shape": arrays[1].shape}
    out.write(json.dumps(head).encode() + b"\n")
    for array in arrays:
        out.write(np.ascontiguousarray(array, dtype="<f8").data)


if __name__ == "__main__":
    _path, _shown, _step = sys.argv[1:]
    with open(sys.stdout.fileno(), "wb") as _out:
        serve(Path(_path), _shown, float(_step) if _step else None, _out)
