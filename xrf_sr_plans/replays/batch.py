"""`replay_all`: replay every run of many sources, and go on where an earlier replay stopped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xrf_sr_plans.bulk.execute import WORKERS, executed
from xrf_sr_plans.bulk.fitness import marked
from xrf_sr_plans.bulk.journal import Journal
from xrf_sr_plans.bulk.on_workers import needs_of, refuse_clients
from xrf_sr_plans.bulk.units import Job
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import AnalysisError, in_words
from xrf_sr_plans.ranges import check
from xrf_sr_plans.replays.on_workers import options_there, unit_there
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.task import UnitReport, replay_unit
from xrf_sr_plans.replays.units import Unit, selected

JOURNAL = "replay.jsonl"
"""Name of the journal in the output folder."""


@dataclass(frozen=True)
class Progress:
    """How far a replay is."""

    done: int
    """Units that are done, those of an earlier replay included."""
    of: int
    failed: int
    report: UnitReport | None = None
    """What was done last; None before the first."""


@dataclass(frozen=True)
class BatchReport:
    """What became of all runs of the sources."""

    reports: tuple[UnitReport, ...] = ()
    """Of the units that were replayed now, in the order in which they were done."""
    earlier: tuple[UnitReport, ...] = ()
    """Of those that an earlier replay had done."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What went wrong, in words, by unit or source."""
    left_alone: Mapping[str, int] = field(default_factory=dict)
    """How many runs were not replayed, by the reason in words."""
    ended: str = ""
    """Why it ended before all was done, in words; "" where it didn't."""

    @property
    def digests(self) -> dict[str, str]:
        """The digest of the result of each map, by the uid of its run."""
        return {
            run.source_uid: run.digest
            for report in (*self.earlier, *self.reports)
            for run in report.runs
        }


def replay_all(
    sources: Iterable[Any],
    out: str | Path | None = None,
    options: ReplayOptions | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    workers: int = 1,
    dask: ClusterAddress | None = None,
    again: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
) -> BatchReport:
    """Replay every run of some sources that asks for analysis.

    What is not replayed for want of something, or because it is damaged, is in the report and
    does not keep the others.

    Parameters
    ----------
    sources
        Files, folders, Tiled catalogs and databroker catalogs (`store.sources.places`). Clients
        of catalogs are taken, too, where no other process has to open them.
    out
        Folder of the results and the journal, which is made if need be. With None only the report
        is kept, and nothing is remembered.
    options
        What is asked of the runs; None: what they asked themselves.
    where
        What the start documents must hold (`store.sources.runs`).
    workers
        Number of processes on this machine.
    dask
        A Dask cluster, whose workers must see the same files; None: it is computed on this
        machine. Where the cluster is lost, the report says so, and what was done is kept.
    again
        Whether to replay also what the journal says was replayed with the same options.
    progress
        Called before the first and after each unit.

    Raises
    ------
    ConfigError
        A source is nothing that could hold runs, `out` can't be written to, `workers` is not a
        whole number above 0, there is no such reader, no scheduler answers, or a worker of the
        cluster has other versions or doesn't see the same files.
    MissingExtraError
        Something is not installed.
    """
    check("replay", WORKERS.flaw("workers", workers), folder_flaw("out", out) if out else "")
    options = options or ReplayOptions()
    options.check()
    selection = selected(sources, options, where, out)
    if workers > 1 or dask is not None:
        refuse_clients(run for unit in selection.units for run in unit.runs)
    journal = None
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        journal = journal_in(Path(out), options)
    earlier: list[UnitReport] = []
    units = {}
    for unit in selection.units:
        known = journal.done(unit) if journal is not None and not again else None
        if known is None:
            units[unit.key] = unit
        else:
            earlier.append(known)
    versions = {key: unit.version for key, unit in units.items()} if journal is not None else {}
    reports: list[UnitReport] = []
    failures = dict(selection.unreadable)
    total = len(selection.units) + len(selection.unreadable)

    def tell(report: UnitReport | None = None) -> None:
        done = len(earlier) + len(reports) + len(selection.unreadable)
        progress(Progress(done, total, len(failures), report))

    made: dict[str, tuple[str, str]] = {}
    for report in earlier:
        if flaw := _overwritten(report, made):
            failures[report.key] = flaw
    tell()
    ended = ""
    try:
        for report in _executed(list(units.values()), options, out, workers, dask):
            if journal is not None:
                journal.add(versions[report.key], report)
            reports.append(report)
            if told := "; ".join(
                one for one in (*report.failures, _overwritten(report, made)) if one
            ):
                failures[report.key] = told
            tell(report)
    except AnalysisError as error:
        left = len(units) - len(reports)
        ended = f"{in_words(error)}; {left} are left to do: start it again"
    return BatchReport(tuple(reports), tuple(earlier), failures, selection.left_alone, ended)


def journal_in(folder: Path, options: ReplayOptions) -> Journal[UnitReport]:
    """Return the journal of an output folder, which exists."""
    return Journal(folder / JOURNAL, options.checksum, UnitReport.from_dict)


def _overwritten(report: UnitReport, made: dict[str, tuple[str, str]]) -> str:
    """Return in words whose results a unit's are mixed with, or "".

    Parameters
    ----------
    report
        What became of the unit.
    made
        Unit and digest of each run that has results, by its uid; those of the report are added.
    """
    for run in report.runs:
        key, digest = made.setdefault(run.source_uid, (report.key, run.digest))
        if run.files and digest != run.digest:
            return (
                f"run {run.source_uid} is in {key}, too, with another result, and whichever was"
                " done last has overwritten the other; replay them into folders of their own"
            )
    return ""


def _executed(
    units: list[Unit],
    options: ReplayOptions,
    out: str | Path | None,
    workers: int,
    dask: ClusterAddress | None,
) -> Iterator[UnitReport]:
    folder = None if out is None else Path(out).absolute()
    if dask is not None:
        units, options = [unit_there(unit) for unit in units], options_there(options)
    work = functools.partial(
        replay_unit, options=options, out=None if folder is None else str(folder)
    )
    runs = [run for unit in units for run in unit.runs]
    with marked(folder if dask is not None else None) as mark:
        job = Job(
            "replay",
            work,
            lambda unit, why: UnitReport(unit.key, error=why),
            () if dask is None else (*needs_of(runs, options.settings.model), *mark),
        )
        threads = options.settings.threads
        yield from executed(units, job, workers=workers, threads=threads, cluster=dask)
