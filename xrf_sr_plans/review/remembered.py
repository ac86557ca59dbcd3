"""`Remembered`: the surveys that are kept, listed, and read back to look at."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.errors import FileFormatError, RefusedError
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.store.run_store import RunStore
from xrf_sr_plans.store.sources import Place, StoredRun, places, runs, survey_of

logger = logging.getLogger(__name__)

_TOLD: tuple[Mapping[str, str], ...] = (
    *({"xrf_sr.purpose": purpose} for purpose in ("proposals", "fine", "outcomes", "approvals")),
    {"plan_name": schema.PLAN_VERIFICATION},
)
"""Runs whose start documents say all that the list of surveys tells, by what they hold."""
_SAMPLE_KEYS = ("sample", "sample_name")


@dataclass
class SurveySummary:
    """One survey in a list.

    Attributes
    ----------
    uid
        Uid of the survey.
    time
        When its coarse maps were over, in seconds since 1970.
    sample
        Name of the sample, as the user's metadata have it.
    query
        What regions had to match; "" where it was whatever stands out.
    regions
        Number of regions by disposition.
    fine_maps
        How many fine maps were flown.
    verdict
        What the latest comparison says about the model; "" where nothing was compared.
    ended_by
        What ended it early; "" where it is complete.
    """

    uid: str
    time: float = 0.0
    sample: str = ""
    query: str = ""
    beamline: str = ""
    regions: Mapping[str, int] = field(default_factory=dict)
    fine_maps: int = 0
    verdict: str = ""
    ended_by: str = ""

    def take(self, start: Mapping[str, Any]) -> None:
        """Take what a start document of one of its runs tells; the runs in the order of time."""
        kind = schema.kind_of_run(start)
        if kind == "verification":
            self.verdict = _verdict(start.get("overall") or {})
            return
        metadata = start["xrf_sr"]
        if kind == "map":
            self.fine_maps += 1
            return
        if kind == "proposals" or not self.time:
            self.time = float(start["time"])
        self.beamline = str(metadata.get("beamline") or self.beamline)
        self.query = str((metadata.get("user_input") or {}).get("find") or self.query)
        self.sample = next((_named(start[k]) for k in _SAMPLE_KEYS if start.get(k)), self.sample)
        self.ended_by = str(metadata.get("ended_by") or "") or self.ended_by
        self.regions = dict(metadata.get("regions") or self.regions)

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.time))
        regions = ", ".join(f"{count} {what}" for what, count in self.regions.items())
        parts = [
            f"{when}  {self.uid[:8]}",
            self.sample or "no sample",
            self.query or "whatever stands out",
            regions or "no regions",
            f"{self.fine_maps} fine maps",
            self.verdict,
            f"ended by {self.ended_by}" if self.ended_by else "",
        ]
        return "  ".join(part for part in parts if part)


class SurveyTable(list[SurveySummary]):
    """Surveys as a prompt shows them, the latest last, with the numbers that `survey` takes."""

    def __str__(self) -> str:
        lines = [f"{number - len(self):4d}  {one}" for number, one in enumerate(self)]
        return "\n".join(lines) or "no survey is kept"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text("SurveyTable(...)" if cycle else str(self))


class Remembered:
    """The surveys in a store, those of before a restart among them.

    Parameters
    ----------
    store
        Where the session keeps its runs; None: it keeps none.
    """

    def __init__(self, store: RunStore | None) -> None:
        self._store = store

    def surveys(self, most: int = 20) -> SurveyTable:
        """Return the latest surveys, the latest one last.

        Parameters
        ----------
        most
            How many at most.

        Raises
        ------
        RefusedError
            Nothing is kept, or the store doesn't answer.
        """
        found: dict[str, list[Mapping[str, Any]]] = {}
        for where in _TOLD:
            for run in self._runs(where):
                found.setdefault(survey_of(run.start), []).append(run.start)
        summaries = []
        for uid, starts in found.items():
            if uid and any(schema.kind_of_run(start) == "proposals" for start in starts):
                summary = SurveySummary(uid)
                for start in sorted(starts, key=lambda start: float(start["time"])):
                    summary.take(start)
                summaries.append(summary)
        return SurveyTable(sorted(summaries, key=lambda summary: summary.time)[-most:])

    def survey(self, which: int | str = -1) -> LatestSurvey:
        """Return a survey to look at: ``survey(-2).picture()``, ``.export()``, ``.composite()``.

        Parameters
        ----------
        which
            -1 for the latest one, -2 for the one before, or how its uid begins.

        Raises
        ------
        RefusedError
            There is no such survey, or nothing is kept.
        """
        table = self.surveys(most=10**6)
        if isinstance(which, str):
            chosen = [summary for summary in table if summary.uid.startswith(which)]
            if len(chosen) != 1:
                what = "no survey is" if not chosen else f"{len(chosen)} surveys are"
                raise RefusedError(f"{what} kept with a uid that begins with {which!r}")
        elif isinstance(which, bool) or not isinstance(which, int) or not -len(table) <= which < 0:
            there = f"-1 to -{len(table)}" if table else "none"
            raise RefusedError(f"survey({which!r}): there is {there}; see surveys()")
        else:
            chosen = [table[which]]
        while True:
            stored = self._runs({"survey_uid": chosen[0].uid})
            try:
                return read_back(stored)
            except FileFormatError:
                # The catalog has taken a file meanwhile, and has its run now.
                if not any(run.place.state == "gone" for run in stored):
                    raise

    def _runs(self, where: Mapping[str, Any]) -> list[StoredRun]:
        if self._store is None:
            raise RefusedError("no surveys are kept: the session was started with store='off'")
        # What was flown just now has to be there.
        self._store.flush(_FLUSH_S)
        # Files first: the catalog has what it takes from there before its file is deleted.
        waiting = list(_waiting(Path(self._store.backup), where))
        catalog = self._store.catalog
        taken = []
        if catalog is not None:
            taken = list(runs(Place("object", self._store.where, catalog), where))
        by_uid = {str(run.start.get("uid") or ""): run for run in (*waiting, *taken)}
        return list(by_uid.values())


def _waiting(backup: Path, where: Mapping[str, Any]) -> Iterator[StoredRun]:
    """Yield the runs in files, of which the catalog may take any meanwhile."""
    for place in places(backup) if backup.is_dir() else ():
        try:
            yield from runs(place, where)
        except FileFormatError as error:
            # It has just been taken, or is being written.
            logger.info("%s is left out: %s", place.label, error)


_FLUSH_S = 20.0
"""Longest time in seconds that is waited for runs which are being stored."""


def read_back(stored: Iterable[StoredRun]) -> LatestSurvey:
    """Return the survey that stored runs are of."""
    survey = LatestSurvey()
    for run in sorted(stored, key=lambda run: (float(run.start.get("time", 0.0)), run.key)):
        for name, doc in run.documents():
            survey(name, doc)
    return survey


def _verdict(overall: Mapping[str, Any]) -> str:
    """Return what a comparison says about the model, in words."""
    if not overall:
        return ""
    advice = str(overall.get("recommendation") or "fine")
    judged = overall.get("judgement") != "unknown"
    words = ("believe" if judged else "too few pixels to judge") if advice == "fine" else advice
    return f"{100 * float(overall['coverage_90']):.0f} % inside the 90 % interval: {words}"


def _named(sample: Any) -> str:
    """Return the name of a sample, which may be a text or a dictionary."""
    if isinstance(sample, Mapping):
        return str(sample.get("name") or "")
    return str(sample)
