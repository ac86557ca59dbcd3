"""`ApprovalFolder`: proposals, decisions and outcomes as files, for all processes of a machine.

On disk these are, in ``<folder>/<survey uid>/``, ``proposal.json``, an ``event-*.json`` for each
event, in the order of their names, and a ``claim-*.json`` for each region that is flown or queued.
Every file appears whole and is never changed. So sessions, pages and the command line need no
server between them, and any of them may be restarted at any time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xrf_sr_plans.approval.records import (
    Became,
    By,
    Claimed,
    Decided,
    Decision,
    Event,
    Proposal,
    event_from,
)
from xrf_sr_plans.approval.states import RegionState, Wait, region_states, wait_of
from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import RefusedError, in_words
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.ranges import check
from xrf_sr_plans.store.ledger import file_name
from xrf_sr_plans.store.run_store import default_place

logger = logging.getLogger(__name__)

_MAX_BYTES = 2**24
"""Largest file that is read."""


def default_approval_dir() -> str:
    """Return the folder of approvals unless somebody says otherwise."""
    return str(Path(default_place()).parent / "approvals")


class ApprovalFolder:
    """What surveys propose, what people decide about it, and what became of it.

    All methods may be called in any process. They take milliseconds, so that plans leave them to
    the device `approval.desk.ApprovalDesk`.

    Parameters
    ----------
    folder
        The folder; None: `default_approval_dir`. It is made with the first proposal.

    Raises
    ------
    ConfigError
        The folder can't be made or written to.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or default_approval_dir())
        check("approvals", folder_flaw("folder", self.folder))

    # What there is ------------------------------------------------------------------------------

    def surveys(self) -> list[str]:
        """Return the uids of the surveys with a proposal, the latest first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for home in os.scandir(self.folder):
                with contextlib.suppress(OSError):
                    stat = os.stat(Path(home.path) / "proposal.json")
                    found.append((stat.st_mtime_ns, home.name))
        return [name for _, name in sorted(found, reverse=True)]

    def knows(self, survey_uid: str) -> bool:
        """Return whether a survey has proposed anything; microseconds."""
        return (self._home(survey_uid) / "proposal.json").is_file()

    def proposal(self, survey_uid: str) -> Proposal:
        """Return what a survey proposed.

        Raises
        ------
        RefusedError
            There is no such survey, or its file is damaged.
        """
        path = self._home(survey_uid) / "proposal.json"
        try:
            return Proposal.model_validate(_read(path))
        except FileNotFoundError:
            raise RefusedError(f"survey {survey_uid!r} has proposed nothing") from None
        except (OSError, ValueError) as error:
            raise RefusedError(f"{path}: no proposal: {in_words(error)}") from error

    def events(self, survey_uid: str) -> list[Event]:
        """Return all events of a survey in the order of their times; damaged files are left out."""
        events: list[Event] = []
        home = self._home(survey_uid)
        for path in [*home.glob("event-*.json"), *home.glob("claim-*.json")]:
            try:
                events.append(event_from(_read(path)))
            except (OSError, ValueError, ValidationError) as error:
                logger.warning("%s is left out: %s", path, in_words(error))
        return sorted(events, key=lambda event: (event.time, event.uid))

    def regions(self, survey_uid: str) -> tuple[RegionState, ...]:
        """Return the state of each region of a survey, in the order of their numbers.

        Raises
        ------
        RefusedError
            There is no such survey.
        """
        return region_states(self.proposal(survey_uid), self.events(survey_uid))

    def waiting(self, survey_uid: str) -> Wait | None:
        """Return until when a plan waits for decisions on a survey; None where none waits."""
        return wait_of(self.events(survey_uid))

    def version(self, survey_uid: str) -> int:
        """Return a number that changes whenever something happens to a survey; microseconds."""
        try:
            return os.stat(self._home(survey_uid)).st_mtime_ns
        except OSError:
            return 0

    # What people say ----------------------------------------------------------------------------

    def approve(self, survey_uid: str, *numbers: int, by: By | None = None) -> list[RegionState]:
        """Let regions be flown: those with these numbers, or all that are undecided.

        Returns
        -------
        list of RegionState
            All regions of the survey, as they are then.

        Raises
        ------
        RefusedError
            There is no such region, or it is flown or queued already; nothing is decided then.
        """
        return self._say(survey_uid, "approve", numbers, by)

    def deny(self, survey_uid: str, *numbers: int, by: By | None = None) -> list[RegionState]:
        """Let regions not be flown; arguments and errors are those of `approve`."""
        return self._say(survey_uid, "deny", numbers, by)

    def edit(
        self,
        survey_uid: str,
        number: int,
        *,
        pad_um: float = 0.0,
        by: By | None = None,
        **edges: float,
    ) -> list[RegionState]:
        """Change the rectangle of a region, whatever was decided about it so far.

        Parameters
        ----------
        survey_uid
            The survey.
        number
            Number of the region.
        pad_um
            Margin in um that is added on every side; below 0 it is taken away.
        by
            Who decides.
        **edges
            New edges in um: ``x_low_um``, ``x_high_um``, ``y_low_um``, ``y_high_um``.

        Raises
        ------
        RefusedError
            There is no such region or edge, it is flown or queued already, or nothing is left of
            the rectangle.
        """
        state = self._state(survey_uid, number, "edit")
        region = edited(state.region, pad_um, edges)
        decision = Decision(action="edit", key=state.key, region=region)
        return self.decide(survey_uid, [decision], by=by)

    def draw(
        self, survey_uid: str, *, by: By | None = None, elements: Sequence[str] = (), **edges: float
    ) -> list[RegionState]:
        """Add a region of one's own, which is approved thereby.

        Parameters
        ----------
        survey_uid
            The survey.
        by
            Who decides.
        elements
            Elements that it is for; may be empty.
        **edges
            ``x_low_um``, ``x_high_um``, ``y_low_um`` and ``y_high_um``, in um.

        Raises
        ------
        RefusedError
            An edge is missing or unknown, low is not below high, or it lies outside of the survey.
        """
        region = drawn(self.proposal(survey_uid), edges, elements)
        return self.decide(survey_uid, [Decision(action="draw", region=region)], by=by)

    def decide(
        self,
        survey_uid: str,
        decisions: Iterable[Decision],
        *,
        by: By | None = None,
        complete: bool = False,
    ) -> list[RegionState]:
        """Take several decisions as one.

        Parameters
        ----------
        survey_uid
            The survey.
        decisions
            In this order; an edit before an approval, for example.
        by
            Who decides; None: the user of this process, at the console.
        complete
            Whether this is all: what is still undecided is denied, and a plan that waits goes on.

        Raises
        ------
        RefusedError
            A region is unknown, or is flown or queued already; nothing is decided then.
        """
        decisions = tuple(decisions)
        self.release_orphans(survey_uid)
        states = {state.key: state for state in self.regions(survey_uid)}
        flaws = []
        for decision in decisions:
            if decision.action == "draw":
                continue
            state = states.get(decision.key)
            if state is None:
                flaws.append(f"survey {survey_uid} has no region {decision.key!r}")
            elif objection := state.objection(decision.action):
                flaws.append(f"region {state.number} can't be changed: {objection}")
        if flaws:
            raise RefusedError("; ".join(flaws))
        event = Decided(by=by or By(), decisions=decisions, complete=complete)
        self.add(survey_uid, event)
        return list(self.regions(survey_uid))

    def _say(
        self, survey_uid: str, action: Any, numbers: Sequence[int], by: By | None
    ) -> list[RegionState]:
        states = self.regions(survey_uid)
        if numbers:
            chosen = [_numbered(states, number, survey_uid) for number in numbers]
        else:
            chosen = [state for state in states if state.undecided]
            if not chosen:
                raise RefusedError(f"survey {survey_uid}: no region is undecided")
        decisions = [Decision(action=action, key=state.key) for state in chosen]
        return self.decide(survey_uid, decisions, by=by)

    def _state(self, survey_uid: str, number: int, action: str) -> RegionState:
        state = _numbered(self.regions(survey_uid), number, survey_uid)
        if objection := state.objection(action):
            raise RefusedError(f"region {number} can't be changed: {objection}")
        return state

    # What surveys and those who fly or queue say ------------------------------------------------

    def propose(self, proposal: Proposal) -> None:
        """Write down what a survey proposes; the same proposal once more changes nothing."""
        home = self._home(proposal.survey_uid)
        home.mkdir(parents=True, exist_ok=True)
        _write(home / "proposal.json", proposal.model_dump_json())

    def add(self, survey_uid: str, event: Event) -> None:
        """Write down an event."""
        home = self._home(survey_uid)
        name = f"event-{time.time_ns():020d}-{file_name(event.uid)[:8]}.json"
        _write(home / name, event.model_dump_json())

    def claim(self, survey_uid: str, state: RegionState, *, by: str, owner: str) -> bool:
        """Take a region to fly or queue it; return False where somebody else has it.

        Of all processes, only one gets each attempt at a region. Whoever claimed it may claim it
        once more, as after a pause.
        """
        event = Claimed(key=state.key, attempt=state.attempt, by=by, owner=owner)
        path = self._home(survey_uid) / f"claim-{state.key}-{state.attempt}.json"
        if _write(path, event.model_dump_json(), only_new=True):
            return True
        try:
            return _read(path).get("owner") == owner
        except (OSError, ValueError):
            return False

    def first_to_tell(self, survey_uid: str, event_uid: str) -> bool:
        """Return whether nobody has told the world of an event yet; nobody else will then."""
        path = self._home(survey_uid) / f"told-{file_name(event_uid)}.json"
        return _write(path, "{}", only_new=True)

    def release_orphans(self, survey_uid: str) -> None:
        """Let what was taken by a session of this machine that has ended be approved again.

        What it flew to the end is known from its documents and stays as it is.
        """
        held = {
            state.key: state
            for state in self.regions(survey_uid)
            if state.claimed_by and state.disposition == "approved"
        }
        for event in self.events(survey_uid) if held else ():
            if not isinstance(event, Claimed) or event.key not in held:
                continue
            state = held[event.key]
            if event.attempt == state.attempt and event.is_orphan:
                reason = f"the session that had it, {event.host}:{event.pid}, has ended"
                self.became(survey_uid, state.region.key, "failed", reason)

    def became(
        self, survey_uid: str, region_key: str, disposition: Any, reason: str, run_uid: str = ""
    ) -> None:
        """Write down what became of a region, by its `Region.key`."""
        event = Became(
            region_key=region_key, disposition=disposition, reason=reason, run_uid=run_uid
        )
        self.add(survey_uid, event)

    def _home(self, survey_uid: str) -> Path:
        return self.folder / file_name(survey_uid)


_EDGES = ("x_low_um", "x_high_um", "y_low_um", "y_high_um")


def edited(region: Region, pad_um: float = 0.0, edges: dict[str, float] | None = None) -> Region:
    """Return a region with other edges, in um, and with a margin around them.

    Raises
    ------
    RefusedError
        An edge has another name, or nothing is left of the rectangle.
    """
    unknown = [name for name in edges or {} if name not in _EDGES]
    if unknown:
        raise RefusedError(f"a region has no {unknown[0]!r}; it has {', '.join(_EDGES)}")
    values = {name: getattr(region, name) for name in _EDGES} | dict(edges or {})
    for name in values:
        values[name] = float(values[name]) + (pad_um if "high" in name else -pad_um)
    return replace(region, **values)


def drawn(proposal: Proposal, edges: dict[str, float], elements: Sequence[str] = ()) -> Region:
    """Return a new region of a survey, which belongs to the map that holds most of it.

    Raises
    ------
    RefusedError
        An edge is missing or unknown, low is not below high, or no map of the survey is there.
    """
    missing = [name for name in _EDGES if name not in edges]
    if missing:
        raise RefusedError(f"a region needs {', '.join(_EDGES)}; {missing[0]} is missing")
    stage = dict(proposal.rescans.stage) if proposal.rescans is not None else {}
    region = edited(
        Region(0, 1, 0, 1, tuple(elements), 1.0, "drawn by hand", "", stage=stage), 0.0, edges
    )
    tile = proposal.tile_of(region)
    if proposal.tiles and tile is None:
        raise RefusedError(
            f"region x {region.x_low_um:g}..{region.x_high_um:g}, y {region.y_low_um:g}.."
            f"{region.y_high_um:g} um lies outside of survey {proposal.survey_uid}"
        )
    if tile is None:
        return region
    return replace(region, source_uid=tile.uid, model_sha256=tile.model_sha256)


def _numbered(states: Sequence[RegionState], number: int, survey_uid: str) -> RegionState:
    state = next((one for one in states if one.number == number), None)
    if state is None:
        there = f"it has 1 to {len(states)}" if states else "it has none"
        raise RefusedError(f"survey {survey_uid} has no region {number!r:.20}; {there}")
    return state


def _read(path: Path) -> Any:
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES} bytes")
    plain = json.loads(content)
    if not isinstance(plain, dict):
        raise ValueError("no JSON object")
    return plain


def _write(path: Path, text: str, *, only_new: bool = False) -> bool:
    """Write a file such that it appears whole; return False where it is there and must be new."""
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if not only_new:
            part.replace(path)
            return True
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        return True
    finally:
        part.unlink(missing_ok=True)
