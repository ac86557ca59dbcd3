"""`GrowingSurvey`: the record of a survey that is still being flown, kept up to date cheaply."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.review.record import SurveyRecord, read_survey
from xrf_sr_plans.schema import Document, Documents

logger = logging.getLogger(__name__)

_WHOLE = ("result", "preview", "composite", "choice", "verification")
"""Kinds of the runs that the analysis makes: they are read once, when they have stopped."""


@dataclass(frozen=True)
class Progress:
    """How far the coarse survey, or a fine map, has got."""

    rows: int = 0
    """Rows that are measured."""
    of_rows: int = 0
    """Rows that there are to measure."""
    elapsed_s: float = 0.0
    """Seconds from the start of the first map to its latest row."""
    left_s: float | None = None
    """Seconds that the remaining rows take if they go on like this; None: not known yet."""
    over: bool = False
    """Whether all maps of it have stopped."""


@dataclass
class _Run:
    start: Mapping[str, Any]
    kind: str
    documents: Documents = field(default_factory=list)
    builder: MapBuilder | None = None
    stopped: bool = False
    last_time: float = 0.0
    record: SurveyRecord | None = None


class GrowingSurvey:
    """Takes the documents of one survey one after the other, and has its record at any time.

    Each map is put together once, and the one that is being flown again when it has new rows.
    Arrays of numbers are kept in single precision.

    Attributes
    ----------
    version
        Counts the documents that were taken.
    """

    def __init__(self) -> None:
        self.version = 0
        self._index = RunIndex()
        self._runs: dict[str, _Run] = {}
        self._decisions: tuple[int, SurveyRecord] | None = None
        self._record: tuple[int, SurveyRecord] | None = None

    def take(self, documents: Iterable[Document]) -> bool:
        """Take documents, and return whether there were any. Damaged ones are left out."""
        before = self.version
        for name, doc in documents:
            self.version += 1
            try:
                self._take(name, doc)
            except (XrfSrError, KeyError, TypeError, ValueError) as error:
                logger.warning("a %s document is left out: %s", name, error)
        return self.version != before

    @property
    def start(self) -> Mapping[str, Any] | None:
        """The start document of the first map; None: there is none yet."""
        maps = [run.start for run in self._runs.values() if run.kind == "map"]
        return min(maps, key=lambda start: start.get("time", 0), default=None)

    @property
    def runs(self) -> Mapping[str, Mapping[str, Any]]:
        """The start documents of all runs by their uids."""
        return {uid: run.start for uid, run in self._runs.items()}

    @property
    def record(self) -> SurveyRecord:
        """The maps, predictions and regions so far."""
        if self._record is None or self._record[0] != self.version:
            self._record = self.version, self._merged()
        return self._record[1]

    def progress(self, purpose: schema.Purpose = "coarse") -> Progress:
        """Return how far the maps of a purpose have got.

        Parameters
        ----------
        purpose
            "coarse" for the survey; "fine" for the rescans that have begun.
        """
        runs = [run for run in self._runs.values() if _purpose(run) == purpose and run.builder]
        if not runs:
            return Progress()
        builders = [run.builder for run in runs if run.builder is not None]
        rows = sum(len(builder.rows_used) for builder in builders)
        of_rows = sum(builder.grid.slow.num for builder in builders)
        tile = builders[0].metadata.tile
        if purpose == "coarse" and tile is not None:
            # Tiles that were not begun have about as many rows as the others.
            of_rows = round(of_rows * max(tile.of / len(builders), 1.0))
        over = all(run.stopped for run in runs) and rows >= of_rows
        first = min(float(run.start.get("time", 0.0)) for run in runs)
        elapsed_s = max(max(run.last_time for run in runs) - first, 0.0)
        left_s = elapsed_s / rows * (of_rows - rows) if rows and elapsed_s else None
        return Progress(rows, of_rows, elapsed_s, left_s, over)

    def _take(self, name: str, doc: dict[str, Any]) -> None:
        uid = self._index.run_of(name, doc)
        if uid is None:
            return
        if name == "start":
            kind = schema.kind_of_run(doc)
            builder = MapBuilder(doc) if kind == "map" else None
            self._runs[uid] = _Run(doc, kind, builder=builder)
        run = self._runs[uid]
        run.record = None
        if run.builder is None or _purpose(run) == "fine":
            run.documents.append((name, doc))
        if run.builder is not None:
            _build(run.builder, name, doc)
        times = doc.get("time", 0.0)
        run.last_time = max(run.last_time, float(times[-1] if isinstance(times, list) else times))
        if name == "stop":
            run.stopped = True
            if run.kind in _WHOLE:
                run.record = _read(run)
                run.documents = []
                self._forget_older(uid, run)

    def _forget_older(self, uid: str, latest: _Run) -> None:
        """Drop previews and composite maps for which there is a newer one."""
        source = latest.start.get("original_run_uid")
        for other, run in list(self._runs.items()):
            same_map = run.start.get("original_run_uid") == source
            superseded = run.kind == latest.kind == "composite" or (
                run.kind == "preview" and latest.kind in ("preview", "result") and same_map
            )
            if other != uid and superseded:
                del self._runs[other]

    def _merged(self) -> SurveyRecord:
        records = [self._decided()]
        for run in self._runs.values():
            if run.kind in _WHOLE and run.record is not None:
                records.append(run.record)
            elif run.builder is not None and _purpose(run) != "fine":
                if run.record is None:
                    run.record = SurveyRecord(
                        coarse={run.builder.uid: run.builder.maps()},
                        run_uids={schema.PLAN_MAP: [run.builder.uid]},
                    )
                records.append(run.record)
        return _joined(records)

    def _decided(self) -> SurveyRecord:
        """Return the fine maps and what is known of the regions, which depend on one another."""
        documents = [
            document
            for run in self._runs.values()
            if run.kind not in _WHOLE
            for document in run.documents
        ]
        if self._decisions is None or self._decisions[0] != len(documents):
            try:
                record = read_survey(documents)
            except XrfSrError as error:
                logger.warning("the regions of a survey can't be read: %s", error)
                record = SurveyRecord()
            self._decisions = len(documents), record
        return self._decisions[1]


def _purpose(run: _Run) -> str:
    return str(run.start["xrf_sr"].get("purpose", "")) if run.kind == "map" else ""


def _build(builder: MapBuilder, name: str, doc: Mapping[str, Any]) -> None:
    if name == "descriptor":
        builder.descriptor(doc)
    elif name == "event":
        builder.event(doc)
    elif name == "event_page":
        builder.event_page(doc)


def _read(run: _Run) -> SurveyRecord | None:
    try:
        record = read_survey(run.documents)
    except XrfSrError as error:
        # As where its arrays lie in a file that can't be read here.
        logger.warning("%s", error)
        return None
    enhanced = {uid: _lighter(maps) for uid, maps in record.enhanced.items()}
    return replace(record, enhanced=enhanced)


def _lighter(maps: EnhancedMaps) -> EnhancedMaps:
    dataset = maps.dataset
    changed = {
        name: dataset[name].astype(np.float32) for name in dataset if dataset[name].dtype == float
    }
    return EnhancedMaps(dataset.assign(changed), maps.grid)


def _joined(records: list[SurveyRecord]) -> SurveyRecord:
    """Return one record of everything that several ones say."""
    joined: dict[str, Any] = {}
    for one in fields(SurveyRecord):
        values = [getattr(record, one.name) for record in records]
        if one.name == "run_uids":
            plans = [plan for value in values for plan in value]
            joined[one.name] = {
                plan: [uid for value in values for uid in value.get(plan, ())] for plan in plans
            }
        elif isinstance(values[0], Mapping):
            joined[one.name] = {key: item for value in values for key, item in value.items()}
        elif isinstance(values[0], tuple):
            joined[one.name] = tuple(item for value in values for item in value)
        else:
            joined[one.name] = next((value for value in values if value is not None), None)
    return SurveyRecord(**joined)
