"""`MapAssembler`: collect the documents of one map run until its `ElementalMaps` is complete."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.schema import MISSING_DOCUMENTS, AnalysisRequest, RescanModel

LITTLE_MEASURED = 0.5
"""Share of measured pixels below which the result says so."""

_FEWEST_ROWS = 3
"""Rows from which on their times are believed."""
LATEST_S = 1e11
"""Seconds since 1970 that no time of a document reaches."""


class MapAssembler:
    """Pass the documents of one run to a `MapBuilder`.

    Parameters
    ----------
    start
        The run's start document.
    on_rows
        Called with this assembler after each document that brought a new row.
    on_stop
        Called with this assembler when the run has stopped.

    Attributes
    ----------
    builder : MapBuilder
        The map so far.
    request : AnalysisRequest
        What the run asks the analysis to do.
    end_time : float
        When the run stopped, in seconds since 1970; until then, when it started.
    notes : tuple of str
        What a reader of the result must know of how the run ended; empty where it ended well, and
        until it stops.
    published : bool
        Whether the result of the run was emitted. The chain sets it.

    Raises
    ------
    AssemblyError
        The start document describes no map, or asks for no analysis.
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        on_rows: Callable[[MapAssembler], None],
        on_stop: Callable[[MapAssembler], None],
    ) -> None:
        self.start = start
        self.builder = MapBuilder(start)
        request = self.builder.metadata.analysis
        if request is None:
            raise AssemblyError(f"run {self.builder.uid} asks for no analysis")
        self.request: AnalysisRequest = request
        self.end_time: float = seconds(start, 0.0)
        self.notes: tuple[str, ...] = ()
        self.published = False
        self._row_times: list[float] = []
        self._on_rows = on_rows
        self._on_stop = on_stop

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        """Take one document of the run."""
        if name == "descriptor":
            self.builder.descriptor(doc)
        elif name in ("event", "event_page"):
            rows = self.builder.rows_received
            if name == "event":
                self.builder.event(doc)
            else:
                self.builder.event_page(doc)
            if self.builder.rows_received > rows:
                self._row_times += _times_of(doc)
                self._on_rows(self)
        elif name == "stop":
            self.end_time = seconds(doc, self.end_time)
            self.notes = _how_it_ended(doc)
            self._on_stop(self)

    @property
    def rescans(self) -> RescanModel | None:
        """What rescans cost, going by how long the rows of this map took.

        A row that took less than its dwell was flown on a simulated clock and says nothing. None
        where the run doesn't say what rescans cost.
        """
        rescans, metadata = self.request.rescans, self.builder.metadata
        expected_s = metadata.derived_input.get("row_s")
        if rescans is None or not isinstance(expected_s, int | float):
            return rescans
        dwell_s = self.builder.grid.fast.num * metadata.dwell_ms * 1e-3
        steps = [late - early for early, late in pairwise(sorted(self._row_times))]
        real = [step for step in steps if step >= dwell_s]
        if len(real) < _FEWEST_ROWS:
            return rescans
        overhead_s = rescans.row_overhead_s + statistics.median(real) - expected_s
        return rescans.model_copy(update={"row_overhead_s": max(overhead_s, 0.0)})


def odd_about(builder: MapBuilder) -> list[str]:
    """Return what a reader of the result must know of how the map was measured, in words."""
    notes = list(builder.notes)
    if builder.problems:
        problems = sorted(set(builder.problems))
        notes.append(f"{len(problems)} events were left out: {problems[0]}")
    measured = float((builder.coverage > 0).mean())
    if 0 < measured < LITTLE_MEASURED:
        notes.append(f"only {measured:.0%} of the pixels were measured")
    return notes


def seconds(doc: Mapping[str, Any], otherwise: float) -> float:
    """Return the time of a document; a damaged one doesn't cost the map."""
    time = doc.get("time")
    if isinstance(time, int | float) and 0 <= time < LATEST_S:
        return float(time)
    return otherwise


def _times_of(doc: Mapping[str, Any]) -> list[float]:
    """Return the times of an event or of those of a page, without damaged ones."""
    times = doc.get("time")
    several = times if isinstance(times, list | tuple) else [times]
    return [seconds({"time": time}, -1.0) for time in several if seconds({"time": time}, -1.0) > 0]


def _how_it_ended(stop: Mapping[str, Any]) -> tuple[str, ...]:
    missing = stop.get(MISSING_DOCUMENTS)
    told = missing if isinstance(missing, list | tuple) else ()
    lost = tuple(f"documents are missing: {words}" for words in told)
    status = stop.get("exit_status", "success")
    if status == "success":
        return lost
    ended = ": ".join(filter(None, [f"the run of the map ended as {status!r}", stop.get("reason")]))
    return (ended, *lost)
