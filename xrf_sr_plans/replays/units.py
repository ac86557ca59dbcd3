"""What is replayed together: a single run, or all runs of one survey."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import XrfSrError, in_words
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.store.sources import StoredRun, places, runs, survey_of

logger = logging.getLogger(__name__)

_MEASURED = ("map", "outcomes")
"""Kinds of run that the analysis takes; the others are what it made, or what plans decided."""

_NOTHING_TO_ENHANCE = "measured finely, or halves of pairs: nothing to enhance"


@dataclass(frozen=True)
class Unit:
    """Runs that are given to one chain of the analysis, in the order in which they began.

    The tiles of a survey, its rescans and its outcomes belong together: its choice among all
    tiles, its verification and its composite map need all of them.
    """

    key: str
    """Name in the journal, which is the same whenever the same sources are given."""
    runs: tuple[StoredRun, ...]

    @property
    def version(self) -> str:
        """Checksum that changes where one of its files was written again since."""
        facts = [f"{run.label} {run.place.state}" for run in self.runs]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Selection:
    """What was found in the sources."""

    units: tuple[Unit, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why a source can't be read, by its name."""
    left_alone: Mapping[str, int] = field(default_factory=dict)
    """How many runs are not replayed, by the reason in words."""


def selected(
    sources: Iterable[Any],
    options: ReplayOptions,
    where: Mapping[str, Any] | None = None,
    without: str | Path | None = None,
) -> Selection:
    """Return the units of all sources, in the order of the sources.

    Parameters
    ----------
    sources
        Names as `store.sources.places` takes them.
    options
        What is asked of the runs.
    where
        What the start documents must hold (`store.sources.runs`).
    without
        Folder that is left out of the folders, such as that of the results.

    Raises
    ------
    ConfigError
        A source is nothing that could hold runs.
    """
    found: list[StoredRun] = []
    unreadable: dict[str, str] = {}
    left: dict[str, int] = {}
    for source in sources:
        for place in places(source, without=without):
            try:
                for run in runs(place, where):
                    if reason := why_left_alone(run, options):
                        left[reason] = left.get(reason, 0) + 1
                    else:
                        found.append(run)
            except XrfSrError as error:
                unreadable[place.label] = in_words(error)
                logger.warning("%s is left out: %s", place.label, in_words(error))
    asking = as_units(found, options)
    taken = sum(len(unit.runs) for unit in asking)
    if taken < len(found):
        left[_NOTHING_TO_ENHANCE] = len(found) - taken
    return Selection(asking, unreadable, left)


def as_units(
    found: Iterable[StoredRun], options: ReplayOptions, *, surveys: bool = True
) -> tuple[Unit, ...]:
    """Return runs as units, without those in which there is nothing to enhance.

    Parameters
    ----------
    found
        The runs.
    options
        What is asked of them.
    surveys
        Whether the runs of a survey are one unit; else each run is one.
    """
    groups: dict[tuple[str, str], list[StoredRun]] = {}
    for run in found:
        # Places that hold the same run twice, as a file and a catalog do, stay apart.
        groups.setdefault(_group(run) if surveys else (run.label, ""), []).append(run)
    units = (_unit(group, members) for group, members in groups.items())
    return tuple(unit for unit in units if any(_asks(run, options) for run in unit.runs))


def why_left_alone(run: StoredRun, options: ReplayOptions) -> str:
    """Return in words why a run is not given to the analysis, or "" where it is."""
    if not run.start:
        return ""
    kind = kind_of_run(run.start)
    if kind in _MEASURED:
        if kind == "map" and not options.analysed(run.start):
            return "ask for no analysis (give --factor or --find)"
        return ""
    if kind == "":
        return options.why_not_foreign(run.start)
    return "made by the analysis or by plans"


def _asks(run: StoredRun, options: ReplayOptions) -> bool:
    if not run.start or kind_of_run(run.start) == "":
        return True
    if kind_of_run(run.start) != "map":
        return False
    return options.enhanced(run.start) or options.recorded(run.start)


def _group(run: StoredRun) -> tuple[str, str]:
    """Return the same for runs of one survey from one catalog or one folder."""
    place, survey = run.place, survey_of(run.start)
    home = str(Path(place.where).parent) if place.kind == "lines" else place.label
    return (home, f"survey {survey}") if survey else (run.label, "")


def _unit(group: tuple[str, str], members: Sequence[StoredRun]) -> Unit:
    home, survey = group
    in_order = sorted(members, key=lambda run: (_time(run.start), run.key))
    return Unit(f"{home} {survey}".strip(), tuple(in_order))


def _time(start: Mapping[str, Any]) -> float:
    time = start.get("time")
    return float(time) if isinstance(time, int | float) else 0.0
