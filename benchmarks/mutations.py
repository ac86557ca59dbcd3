"""Damaged documents and files: whether anything crashes, hangs or becomes silently wrong.

    python benchmarks/mutations.py [--documents 10000] [--files 10000] [--maps 1000]
        [--foreign 1000] [--seed 0] [--json OUT]

Documents of whole runs (a survey with its rescan and result, a pair, single maps with and without
event pages, scans of other programs) are damaged, lost, doubled, moved and exchanged, and all that
reads documents is fed with them. Files that this package keeps are damaged byte by byte and member
by member, and read; so are files of maps, so many of each family, and runs of other beamlines, so
many of each kind (`mutation_foreign`). Every case follows from the seed and its number. Counted are

- crashes: the process that reads died;
- foreign exceptions: any that is not an error of this package, and any at all from what takes live
  documents;
- hangs: more than 10 s of processor time for one case, or more than a minute by the clock, since
  the machine may be busy with other things (15 s where libhdf5 hangs or crashes);
- wrong rows: of an undamaged row in a run whose start document and descriptors are undamaged, the
  map holds something else than without the damage; of a damaged file, values that stand at the
  places of others, or under the name of another element;
- silent: the analysis was asked for a map whose start and stop documents came, and tells nothing.

The cases run in processes with a watchdog. HDF5 files are read there by the function that users'
files are read by in a process of their own; where it crashes or hangs, the file is read again as
users read it, and that counts. The script fails if anything was counted.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

LONGEST_S = 10.0
"""How much time of the processor one case may take."""
WAITED_S = 60.0
"""How long one case may take by the clock."""
SUSPICIOUS_S = 2.0
"""What an HDF5 file may take in this process before it is read as users read it."""
AS_USERS_S = 15.0
"""How long that may take by the clock, the start of a process included; see `--patience`."""
START_S = 300.0
MEMORY_BYTES = 12 * 2**30
HERE = Path(__file__).parent

Found = tuple[str, str, str]
"""What was found: the format or reader, the kind, and words."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case."""

    label: str
    found: list[Found] = field(default_factory=list)
    rows_compared: int = 0
    """Number of undamaged rows whose values were compared with those before."""


def where(error: BaseException) -> str:
    """Return an exception and the last place of this package that it came through."""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if "benchmarks" not in frame.filename and "site-packages" not in frame.filename
    ]
    text = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {text} at {places[-1] if places else '?'}"


def quiet() -> None:
    """Say nothing of what damaged input is logged as, and take no more memory than allowed."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # What libraries print of damaged input.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)


def document_cases(seed: int, corpus: Any) -> Callable[[int, bool], Outcome]:
    """Return what carries out one case of damaged documents."""
    import mutation_readers

    from xrf_sr_plans.errors import XrfSrError

    def case(number: int, _as_users: bool) -> Outcome:
        rng = np.random.default_rng([seed, 1, number])
        stream, items = mutation_readers.mutate(rng, corpus)
        found: list[Found] = []
        for who, problem in mutation_readers.problems(stream, items, number):
            if isinstance(problem, str):
                silent = problem.startswith(mutation_readers.SILENT)
                found.append((who, "silent" if silent else "wrong rows", problem))
            else:
                kind = "raised" if isinstance(problem, XrfSrError) else "foreign"
                found.append((who, "foreign", f"{kind}: {where(problem)}"))
        rows = mutation_readers.compared.total()
        mutation_readers.compared.clear()
        return Outcome(stream.name, found, rows)

    return case


def file_cases(seed: int, corpus: Any) -> Callable[[int, bool], Outcome]:
    """Return what carries out one case of a damaged file that this package keeps."""
    import mutation_files

    known = mutation_files.subjects(Path(tempfile.mkdtemp(prefix="mutations-")), corpus)
    return _of_files([seed, 2], [known])


def map_file_cases(seed: int, corpus: Any) -> Callable[[int, bool], Outcome]:
    """Return what carries out one case of a damaged file of maps; families take turns."""
    import mutation_files

    families = mutation_files.map_families(Path(tempfile.mkdtemp(prefix="mutations-")))
    for family in families:
        for subject in family:
            # Undamaged it is read, and as the map that damaged ones are compared with.
            found = subject.read(subject.content, False)
            planes = getattr(found, "maps", np.zeros(0))
            if not np.array_equal(planes, mutation_files.COUNTS):
                raise AssertionError(f"{subject.name}: an undamaged file is read as another map")
    return _of_files([seed, 4], families)


def _of_files(seeds: list[int], families: list[list[Any]]) -> Callable[[int, bool], Outcome]:
    import mutation_files
    import mutation_hdf5
    import mutation_images

    from xrf_sr_plans.errors import XrfSrError

    def case(number: int, as_users: bool) -> Outcome:
        rng = np.random.default_rng([*seeds, number])
        subject, content = mutation_files.mutate(rng, families[number % len(families)])
        as_users |= subject.is_hdf5 and rng.random() < 1 / mutation_hdf5.PUBLIC_EVERY
        try:
            found = subject.read(content, as_users)
        except XrfSrError:
            return Outcome(f"{subject.name}: refused")
        except Exception as error:  # noqa: BLE001 - what this benchmark looks for
            return Outcome(f"{subject.name}: raised", [(subject.name, "foreign", where(error))])
        wrong = "" if subject.is_description else mutation_images.wrong_map(found)
        if wrong:
            return Outcome(f"{subject.name}: read", [(subject.name, "wrong rows", wrong)])
        return Outcome(f"{subject.name}: read")

    return case


def foreign_cases(seed: int, corpus: Any) -> Callable[[int, bool], Outcome]:
    """Return what carries out one case of a damaged run of another beamline."""
    import mutation_foreign

    folder = Path(tempfile.mkdtemp(prefix="mutations-"))
    corpus = mutation_foreign.families(folder)
    # Undamaged, and with what is imported only then.
    for family in corpus:
        mutation_foreign.assembled(family.documents, family)
    case_of = mutation_foreign.case_of(seed, corpus)

    def case(number: int, _as_users: bool) -> Outcome:
        try:
            label, wrong, frames = case_of(number)
        except Exception as error:  # noqa: BLE001 - what this benchmark looks for
            return Outcome("raised", [("adapted", "foreign", where(error))])
        return Outcome(label, [(label, "wrong rows", words) for words in wrong], frames)

    return case


MAKERS = {
    "documents": document_cases,
    "files": file_cases,
    "maps": map_file_cases,
    "foreign": foreign_cases,
}
_OF_FILES = ("files", "maps")


def work(pipe: Connection, kind: str, seed: int, corpus: Any) -> None:
    """Carry out cases as they are asked for, in a process of its own."""
    quiet()
    case = MAKERS[kind](seed, corpus)
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        pipe.send(case(*asked))


@dataclass
class Table:
    """What was counted for one kind of case."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    slowest_s: float = 0.0
    rows_compared: int = 0
    seconds: float = 0.0

    def add(self, number: int, found: list[Found]) -> None:
        """Count what one case found, once for each kind."""
        for kind in {kind for _, kind, _ in found}:
            self.counts[kind] += 1
        for who, kind, words in found:
            # One example of each place where something is wrong is enough to mend it.
            label = f"{kind}, {who}: {words.rpartition(' at ')[2] if ' at ' in words else ''}"
            mine = self.examples.setdefault(label, [])
            mine.append(f"{number}: {words}")


class Pool:
    """Processes that carry out cases, each watched."""

    def __init__(self, kind: str, seed: int, corpus: Any, size: int, patience: float) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._task = (kind, seed, corpus)
        self._size = size
        self._kind = kind
        self._patience = patience
        self.table = Table()

    def run(self, cases: int) -> Table:
        """Carry out the cases of all numbers below `cases`."""
        began = time.monotonic()
        todo = iter([(number, False) for number in range(cases)])
        again: list[tuple[int, bool]] = []
        workers = [_Worker(self._context, self._task) for _ in range(self._size)]
        while True:
            replaced = False
            for place, worker in enumerate(workers):
                if worker.idle:
                    asked = again.pop() if again else next(todo, None)
                    if asked is not None:
                        worker.ask(asked)
                elif worker.overdue(self._kind, self._patience) or not worker.alive:
                    how = "hang" if worker.alive else "crash"
                    again += self._died(worker, how)
                    worker.kill()
                    workers[place] = _Worker(self._context, self._task)
                    replaced = True
            busy = [worker for worker in workers if not worker.idle]
            if not busy and not again and not replaced:
                break
            for ready in wait([worker.pipe for worker in busy], timeout=0.2):
                self._take(next(worker for worker in busy if worker.pipe is ready))
        for worker in workers:
            worker.kill()
        self.table.seconds = time.monotonic() - began
        return self.table

    def _take(self, worker: _Worker) -> None:
        asked, took_s = worker.asked, time.monotonic() - worker.began
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            worker.alive = False
            return
        worker.asked = None
        if asked is None or answer is None:
            return
        self.table.cases += 1
        self.table.slowest_s = max(self.table.slowest_s, took_s)
        self.table.outcomes[answer.label] += 1
        self.table.rows_compared += answer.rows_compared
        self.table.add(asked[0], answer.found)
        if self.table.cases % 1000 == 0:
            print(f"{self._kind}: {self.table.cases} cases, {dict(self.table.counts)}", flush=True)

    def _died(self, worker: _Worker, how: str) -> Iterator[tuple[int, bool]]:
        """Count a case that did not end, or yield it to be read as users read it."""
        if worker.asked is None:
            sys.exit("a process ended before it had anything to do")
        number, as_users = worker.asked
        if self._kind in _OF_FILES and not as_users:
            self.table.outcomes[f"{how} of libhdf5 in this process"] += 1
            yield number, True
            return
        self.table.cases += 1
        self.table.add(number, [("", how, f"after {time.monotonic() - worker.began:.0f} s")])


class _Worker:
    """One process and what it was asked for."""

    def __init__(self, context: Any, task: tuple[str, int, Any]) -> None:
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, *task), daemon=True)
        self._process.start()
        theirs.close()
        # None while it starts, and while it has nothing to do.
        self.asked: tuple[int, bool] | None = None
        self.alive = True
        self._spent = 0.0
        self.began = time.monotonic()
        if not self.pipe.poll(START_S):
            sys.exit("a process does not start")
        self.pipe.recv()

    @property
    def idle(self) -> bool:
        """Whether it can be asked for another case."""
        return self.alive and self.asked is None

    def ask(self, case: tuple[int, bool]) -> None:
        """Have a case carried out."""
        self.asked, self.began, self._spent = case, time.monotonic(), self._processor_s()
        self.pipe.send(case)

    def overdue(self, kind: str, patience: float) -> bool:
        """Whether the case takes too long."""
        sooner = kind in _OF_FILES and self.asked is not None and not self.asked[1]
        spent = self._processor_s() - self._spent
        waited = time.monotonic() - self.began
        as_users = self.asked is not None and self.asked[1]
        return spent > (SUSPICIOUS_S if sooner else LONGEST_S) or waited > patience * (
            AS_USERS_S if as_users else WAITED_S
        )

    def _processor_s(self) -> float:
        """Return how much time of the processor the process has had."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def main() -> None:
    """Mutate, count and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--maps", type=int, default=1000, help="of each family")
    parser.add_argument("--foreign", type=int, default=1000, help="of each kind of run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--patience", type=float, default=1.0, help="times the limits by the clock: a busy machine"
    )
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    sys.path.insert(0, str(HERE))
    import mutation_files
    import mutation_foreign
    import mutation_streams

    logging.disable(logging.WARNING)
    corpus = mutation_streams.streams() if options.documents or options.files else []
    tables = {}
    asked = (
        ("documents", options.documents),
        ("files", options.files),
        ("maps", options.maps * len(mutation_files.MAP_FAMILIES)),
        ("foreign", options.foreign * mutation_foreign.KINDS),
    )
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        # Processes that are killed leave their files behind.
        os.environ["TMPDIR"] = folder
        for kind, cases in ((kind, cases) for kind, cases in asked if cases):
            tables[kind] = Pool(
                kind, options.seed, corpus, options.processes, options.patience
            ).run(cases)
    kinds = ("crash", "foreign", "hang", "wrong rows", "silent")
    print(f"{'':10}{'cases':>8}" + "".join(f"{kind:>12}" for kind in kinds) + f"{'slowest':>9} s")
    for name, table in tables.items():
        counted = "".join(f"{table.counts[kind]:12d}" for kind in kinds)
        print(f"{name:10}{table.cases:8d}{counted}{table.slowest_s:9.1f}   {table.seconds:.0f} s")
        if table.rows_compared:
            print(f"    {table.rows_compared} undamaged rows compared")
        for outcome, count in sorted(table.outcomes.items()):
            print(f"    {count:6d} {outcome}")
    plain = {name: vars(table) for name, table in tables.items()}
    if options.json:
        options.json.write_text(json.dumps(plain, indent=1))
    bad = [
        f"{len(cases):6d} x {label} e.g. {cases[0]}"
        for table in tables.values()
        for label, cases in sorted(table.examples.items(), key=lambda pair: -len(pair[1]))
    ]
    if bad:
        sys.exit("\n".join(bad[:100]))


if __name__ == "__main__":
    main()
