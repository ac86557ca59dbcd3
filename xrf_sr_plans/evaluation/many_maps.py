"""`evaluate_all`: evaluate the maps of many sources, and go on where an earlier one stopped."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from xrf_sr_plans.bulk.execute import WORKERS, executed
from xrf_sr_plans.bulk.fitness import marked
from xrf_sr_plans.bulk.journal import Journal
from xrf_sr_plans.bulk.on_workers import (
    model_checksum,
    model_there,
    needs_of,
    refuse_clients,
    run_there,
)
from xrf_sr_plans.bulk.units import Job
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.cluster.versions import versions_here
from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import AnalysisError, XrfSrError, in_words
from xrf_sr_plans.evaluation.degraded_map import check_numbers, degraded
from xrf_sr_plans.evaluation.own_map import evaluate
from xrf_sr_plans.evaluation.table import EvaluationTable, to_dict
from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.readers import RUN_READERS, map_of_run, read_map
from xrf_sr_plans.maps.readers.run_map import known_of_run
from xrf_sr_plans.measurement import Sampling
from xrf_sr_plans.ranges import check
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.store.sources import StoredRun, places, runs

JOURNAL = "evaluate.jsonl"
"""Name of the journal in the output folder."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How maps are degraded and read; the fields are parameters of `own_map.evaluate_file`."""

    factor: int = 2
    counts: float | None = None
    probe_um: float | None = None
    sampling: Sampling = "fly"
    seed: int = 0
    model: str | None = None
    methods: tuple[str, ...] | None = None
    reader: str | None = None
    known: ReadOptions = field(default_factory=ReadOptions)

    @property
    def there(self) -> EvaluationOptions:
        """The same for a process in another folder."""
        return replace(self, model=model_there(self.model), known=self.known.there)

    @property
    def checksum(self) -> str:
        """Checksum of everything that the figures depend on besides the map."""
        facts = [versions_here(), model_checksum(self.model), asdict(self)]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class MapUnit:
    """A map that is evaluated."""

    key: str
    """The name of its file, or of its catalog and the uid of its run."""
    run: StoredRun

    @property
    def version(self) -> str:
        """What changes where its file is written again."""
        return self.run.place.state


@dataclass(frozen=True)
class MapReport:
    """What became of a map."""

    key: str
    figures: Mapping[str, Any] | None = None
    """Its table as `table.to_dict` returns it; None where there is none."""
    error: str = ""
    """Why there is none, in words."""
    elapsed_s: float = 0.0
    table: EvaluationTable | None = field(default=None, compare=False)
    """Its table; None where it comes from a journal."""

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, in words; () where nothing did."""
        return (self.error,) if self.error else ()

    @property
    def files(self) -> tuple[str, ...]:
        """Nothing is written beside the journal."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        names = ("key", "figures", "error", "elapsed_s")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> MapReport:
        """Return the report that `to_dict` was called on.

        Raises
        ------
        TypeError
            `facts` are those of something else.
        """
        return cls(**facts)


@dataclass(frozen=True)
class Evaluations:
    """What became of all maps of the sources."""

    reports: tuple[MapReport, ...] = ()
    """Of all maps, those of an earlier evaluation included, in the order of the sources."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What went wrong, in words, by map or source."""
    left_alone: int = 0
    """Number of runs that are no measured maps."""
    ended: str = ""
    """Why it ended before all was done, in words; "" where it didn't."""

    @property
    def figures(self) -> list[Mapping[str, Any]]:
        """The tables of all maps as JSON types."""
        return [report.figures for report in self.reports if report.figures is not None]


def evaluate_all(
    sources: Iterable[Any],
    out: str | Path | None = None,
    options: EvaluationOptions | None = None,
    *,
    where: Mapping[str, Any] | None = None,
    workers: int = 1,
    dask: ClusterAddress | None = None,
    again: bool = False,
    told: Callable[[MapReport], None] = lambda _: None,
) -> Evaluations:
    """Evaluate every map of some sources. One that can't be evaluated does not keep the others.

    Parameters
    ----------
    sources
        Files, folders and catalogs, as `store.sources.places` takes them. Of runs, the measured
        maps count.
    out
        Folder of the journal, which is made if need be; None: nothing is remembered.
    options
        How maps are degraded and read.
    where
        What the start documents must hold (`store.sources.runs`).
    workers
        Number of processes on this machine.
    dask
        A Dask cluster, whose workers must see the same files; None: this machine is used.
    again
        Whether to evaluate also what the journal says was evaluated with the same options.
    told
        Called with each report as it comes.

    Raises
    ------
    ConfigError
        A number that can't be, a source that is nothing that could hold maps, `out` can't be
        written to, or no cluster is reached, or its workers can't do it.
    MissingExtraError
        Something is not installed.
    """
    options = options or EvaluationOptions()
    check_numbers(options.factor, options.counts, options.probe_um, options.seed)
    check("evaluate", WORKERS.flaw("workers", workers), folder_flaw("out", out) if out else "")
    units, failures, left_alone = _units(sources, options, where, out)
    if workers > 1 or dask is not None:
        refuse_clients(unit.run for unit in units.values())
    journal = None
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        journal = Journal(Path(out) / JOURNAL, options.checksum, MapReport.from_dict)
    reports: dict[str, MapReport] = {}
    if journal is not None and not again:
        earlier = {key: journal.done(unit) for key, unit in units.items()}
        reports = {key: report for key, report in earlier.items() if report is not None}
    waiting = [unit for key, unit in units.items() if key not in reports]
    versions = {unit.key: unit.version for unit in waiting} if journal is not None else {}
    ended = ""
    try:
        for report in _executed(waiting, options, out, workers, dask):
            if journal is not None:
                journal.add(versions[report.key], report)
            reports[report.key] = report
            told(report)
    except AnalysisError as error:
        left = len(units) - len(reports)
        ended = f"{in_words(error)}; {left} are left to do: start it again"
    in_order = tuple(reports[key] for key in units if key in reports)
    failures |= {report.key: report.error for report in in_order if report.error}
    return Evaluations(in_order, failures, left_alone, ended)


def evaluate_unit(unit: MapUnit, options: EvaluationOptions) -> MapReport:
    """Evaluate one map. It never raises: what goes wrong is in the report.

    Parameters
    ----------
    unit
        The map.
    options
        How it is degraded and read.
    """
    began = time.perf_counter()
    table, error = None, ""
    try:
        file = _read(unit.run, options)
        case = degraded(
            file,
            options.factor,
            options.counts,
            options.probe_um,
            options.sampling,
            options.seed,
        )
        table = evaluate(
            case,
            path=unit.key,
            layout=file.meta["layout"],
            methods=options.methods,
            model=options.model,
        )
    except Exception as problem:  # noqa: BLE001 - one bad map must not cost the thousand others
        error = in_words(problem)
    figures = None if table is None else to_dict(table)
    return MapReport(unit.key, figures, error, time.perf_counter() - began, table)


def _executed(
    units: list[MapUnit],
    options: EvaluationOptions,
    out: str | Path | None,
    workers: int,
    dask: ClusterAddress | None,
) -> Iterator[MapReport]:
    needs: tuple[Callable[[], str], ...] = ()
    if dask is not None:
        units = [replace(unit, run=run_there(unit.run)) for unit in units]
        options = options.there
        needs = needs_of((unit.run for unit in units), options.model)
    work = functools.partial(evaluate_unit, options=options)
    with marked(Path(out) if dask is not None and out is not None else None) as mark:
        job = Job(
            "evaluate", work, lambda unit, why: MapReport(unit.key, error=why), (*needs, *mark)
        )
        yield from executed(units, job, workers=workers, cluster=dask)


def _units(
    sources: Iterable[Any],
    options: EvaluationOptions,
    where: Mapping[str, Any] | None,
    out: str | Path | None,
) -> tuple[dict[str, MapUnit], dict[str, str], int]:
    """Return the maps by their names, what can't be read, and the number of other runs."""
    units: dict[str, MapUnit] = {}
    unreadable: dict[str, str] = {}
    left_alone = 0
    for source in sources:
        for place in places(source, without=out):
            try:
                for run in runs(place, where):
                    if _is_map(run, options):
                        units[run.label] = MapUnit(run.label, run)
                    else:
                        left_alone += 1
            except XrfSrError as error:
                unreadable[place.label] = in_words(error)
    return units, unreadable, left_alone


def _is_map(run: StoredRun, options: EvaluationOptions) -> bool:
    if not run.start or options.reader is not None:
        return True
    kind = kind_of_run(run.start)
    if kind:
        return kind == "map"
    return any(known.matches(run.start, []) for known in RUN_READERS)


def _read(run: StoredRun, options: EvaluationOptions) -> MapsFile:
    if run.place.kind in ("lines", "maps"):
        return read_map(run.place.where, reader=options.reader, options=options.known)
    return map_of_run(
        run.documents(),
        path=run.label,
        reader=options.reader,
        arrays=run.arrays(),
        **known_of_run(options.known),
    )
