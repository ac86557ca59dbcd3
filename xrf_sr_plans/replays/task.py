"""`replay_unit`: analyze one unit and write what comes out; it runs in any process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xrf_sr_plans.callbacks.replay import Analyses, analyse
from xrf_sr_plans.errors import in_words
from xrf_sr_plans.maps.adapters import adapted
from xrf_sr_plans.maps.readers.roots import roots_of
from xrf_sr_plans.maps.readers.run_map import known_of_run
from xrf_sr_plans.replays.from_file import documents_of_file
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.outputs import written
from xrf_sr_plans.replays.units import Unit
from xrf_sr_plans.schema import Document


@dataclass(frozen=True)
class RunReport:
    """What became of one map."""

    source_uid: str
    result_uid: str
    status: str
    """``done``, ``fallback`` (bicubic) or ``failed``."""
    reason: str
    """What went wrong, or what must be known of the map."""
    digest: str
    """The sha256 of the result's documents, which is that of the live result."""
    regions: int
    files: tuple[str, ...] = ()
    """Names of the files that were written, in the output folder."""


@dataclass(frozen=True)
class UnitReport:
    """What became of one unit."""

    key: str
    runs: tuple[RunReport, ...] = ()
    error: str = ""
    """Why nothing, or not everything, came out; empty where all is well."""
    elapsed_s: float = 0.0

    @property
    def failures(self) -> tuple[str, ...]:
        """What failed, in words; () where nothing did."""
        failed = tuple(
            f"run {run.source_uid}: {run.reason}" for run in self.runs if run.status == "failed"
        )
        return (*failed, self.error) if self.error else failed

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the files that were written, in the output folder."""
        return tuple(name for run in self.runs for name in run.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> UnitReport:
        """Return the report that `to_dict` was called on.

        Raises
        ------
        TypeError, KeyError
            `facts` are those of something else.
        """
        runs = tuple(
            RunReport(**{**run, "files": tuple(run.get("files", ()))}) for run in facts["runs"]
        )
        return cls(**{**facts, "runs": runs})


def replay_unit(unit: Unit, options: ReplayOptions, out: str | None) -> UnitReport:
    """Analyze the runs of a unit, and write the results to a folder.

    It never raises: what goes wrong is in the report.

    Parameters
    ----------
    unit
        The runs.
    options
        What is asked of them.
    out
        The folder, which exists; None: nothing is written.
    """
    began = time.perf_counter()
    options = options.for_replay
    reports: tuple[RunReport, ...] = ()
    error = ""
    try:
        made = analyse(_documents(unit, options), options.settings, options.request_of)
        files = {} if out is None else written(made, Path(out), options, unit)
        reports = _reports(made, files)
        # Maps that are only assembled have no result, and may be part of a pair.
        assembled = options.pairs is not None and made.summaries
        if not reports and not assembled:
            error = "there is no map in it that could be analyzed"
    except Exception as problem:  # noqa: BLE001 - one bad run must not cost the thousand others
        error = in_words(problem)
    return UnitReport(unit.key, reports, error, time.perf_counter() - began)


def _documents(unit: Unit, options: ReplayOptions) -> Iterator[Document]:
    for run in unit.runs:
        if run.place.kind == "maps":
            yield from documents_of_file(
                run.place.where,
                options.file_reader,
                dwell_ms=options.dwell_ms,
                options=options.known_of_files,
            )
        else:
            # A file that begins with a run of ours may hold runs of others as well.
            yield from adapted(
                run.documents(),
                reader=options.run_reader,
                dwell_ms=options.dwell_ms,
                # A file can come from anywhere; a catalog is the beamline's own.
                roots=roots_of(run.place.where) if run.place.kind == "lines" else None,
                arrays=run.arrays(),
                **known_of_run(options.known),
            )


def _reports(made: Analyses, files: dict[str, list[str]]) -> tuple[RunReport, ...]:
    return tuple(
        RunReport(
            source_uid=one.source_uid,
            result_uid=one.result_uid,
            status=one.status,
            reason=one.reason,
            digest=one.digest,
            regions=len(one.regions),
            files=tuple(files.get(one.source_uid, ())),
        )
        for one in made.summaries
        if one.result_uid or one.status == "failed"
    )
