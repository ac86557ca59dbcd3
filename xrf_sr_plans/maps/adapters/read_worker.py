"""The process in which `read_apart` has the files of runs read: ``python -m`` with this module.

From its standard input it takes jobs, each behind the number of its bytes, until there are no more.
To its standard output it writes lines (see `read_apart`). It limits its own memory and time, so
that it ends even where nobody waits for it any more.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, BinaryIO

from xrf_sr_plans.errors import AssemblyError, XrfSrError, in_our_words
from xrf_sr_plans.maps.adapters.adapted import read_run
from xrf_sr_plans.maps.adapters.assets import Assets
from xrf_sr_plans.maps.adapters.handed_over import (
    map_as_fields,
    options_of_fields,
    packed,
    run_of_fields,
    unpacked,
)
from xrf_sr_plans.maps.adapters.read_apart import ANSWER, READING, STEP_S
from xrf_sr_plans.maps.files.child_process import address_space_bytes, set_limit

_MOST_OF_MEMORY = 0.8


class _Lines:
    """What is written before each step."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def reading(self, what: str) -> None:
        """Say what is going to be read, and allow time for it."""
        spent = resource.getrusage(resource.RUSAGE_SELF)
        set_limit(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime + 10 * STEP_S) + 2)
        self._out.write(READING + " ".join(what.split()).encode("utf-8", "replace") + b"\n")
        self._out.flush()

    def answer(self, value: Any) -> None:
        """Write the answer."""
        content = packed(value)
        self._out.write(ANSWER + b"%d\n" % len(content))
        self._out.write(content)
        self._out.flush()


def _read(job: dict[str, Any], lines: _Lines) -> dict[str, Any]:
    """Return the map of a run, or the error, as what is answered."""
    run, fields = run_of_fields(job["run"]), job["options"]
    assets = Assets({}, fields["root_map"], fields["roots"], before=lines.reading)
    try:
        with in_our_words(run.owner, AssemblyError):
            options = options_of_fields(fields, assets)
            return {"map": map_as_fields(read_run(run, job["reader"], options))}
    except XrfSrError as error:
        return {"error": str(error), "kind": type(error).__name__}


def serve(jobs: BinaryIO, out: BinaryIO) -> None:
    """Do jobs until there are no more."""
    lines = _Lines(out)
    while len(head := jobs.read(8)) == 8:
        lines.reading("documents of a run")
        job = unpacked(jobs.read(int.from_bytes(head, "big")))
        lines.answer(_read(job, lines))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    set_limit(resource.RLIMIT_AS, address_space_bytes() + int(_MOST_OF_MEMORY * _memory))
    with open(sys.stdin.fileno(), "rb") as _jobs, open(sys.stdout.fileno(), "wb") as _out:
        serve(_jobs, _out)
