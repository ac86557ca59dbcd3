"""The process in which `hdf5_process.read_apart` has a file read: ``python -m`` with this module.

It writes lines to its standard output: a number before each step, which is how many values are
going to be read, and at the end an object in JSON, which names the arrays that follow as float64.
It limits its own memory and time, so that it ends even where nobody waits for it any more.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.files.child_process import address_space_bytes, set_limit
from xrf_sr_plans.maps.files.hdf5_layouts import LAYOUTS, read_layouts
from xrf_sr_plans.maps.files.hdf5_process import patience_s
from xrf_sr_plans.maps.files.images import read_edf, read_tiff
from xrf_sr_plans.maps.files.mda_maps import read_mda_maps
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.table import read_table

_SPARE_BYTES = 2**30
# As read, as chosen, as floats, and what it takes to find the absurd ones among them.
_BYTES_PER_VALUE = 40

Work = Callable[[Path, str, ReadOptions, Callable[[int], None]], MapsFile]
"""Reads a file: its path, its name in messages, options, and what to call before each step."""


class Limits:
    """Limits of memory and processor time that grow with the values that a file declares."""

    def __init__(self) -> None:
        self._values = 0
        self._base = address_space_bytes()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def grow(self, values: int) -> None:
        """Allow for one more step, which reads so many values."""
        self._values += values
        bytes_allowed = self._base + _SPARE_BYTES + _BYTES_PER_VALUE * self._values
        set_limit(resource.RLIMIT_AS, bytes_allowed)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        set_limit(
            resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime + patience_s(values)) + 2
        )


def _hdf5(layout: str | None) -> Work:
    def read(
        path: Path, shown: str, options: ReadOptions, before: Callable[[int], None]
    ) -> MapsFile:
        return read_layouts(path, shown, options, before, layout)

    return read


WORK: dict[str, Work] = {
    "hdf5": _hdf5(None),
    **{name: _hdf5(name) for name in LAYOUTS},
    "mda": read_mda_maps,
    "edf": read_edf,
    "tiff": read_tiff,
    "csv": read_table,
}
"""What reads a file, by the name of the reader; ``hdf5`` finds the layout out."""


def serve(path: Path, shown: str, job: dict[str, Any], out: BinaryIO) -> None:
    """Read a file and write what becomes of it."""
    limits = Limits()

    def before(values: int) -> None:
        limits.grow(values)
        out.write(b"%d\n" % values)
        out.flush()

    # Limits of its own from the first byte on: some libraries search directories before they say
    # how many values there are.
    before(0)
    # libhdf5 looks here for files to which a file refers.
    os.chdir(path.parent)
    try:
        found = WORK[job["reader"]](path, shown, ReadOptions.from_dict(job["options"]), before)
    except XrfSrError as error:
        said = {"error": str(error), "kind": type(error).__name__}
        out.write(json.dumps(said).encode() + b"\n")
        return
    except MemoryError:
        said = {"error": f"{shown}: takes more memory than its size allows", "kind": ""}
        out.write(json.dumps(said).encode() + b"\n")
        return
    arrays = {
        name: getattr(found, name)
        for name in ("maps", "x_um", "y_um", "i0", "coverage")
        if getattr(found, name) is not None
    }
    head: dict[str, Any] = {
        "elements": found.elements,
        "pixel_size_um": found.pixel_size_um,
        "meta": found.meta,
    }
    if found.live_time is not None:
        head["live_time"] = found.live_time.place
        arrays["live_time"] = found.live_time.seconds
    head["arrays"] = {name: np.shape(array) for name, array in arrays.items()}
    out.write(json.dumps(head).encode() + b"\n")
    for array in arrays.values():
        out.write(np.ascontiguousarray(array, dtype="<f8").data)


if __name__ == "__main__":
    _path, _shown, _job = sys.argv[1:]
    with open(sys.stdout.fileno(), "wb") as _out:
        serve(Path(_path), _shown, json.loads(_job), _out)
