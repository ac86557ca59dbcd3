"""`region_states`: the state of each region of a proposal, from the events that followed it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from xrf_sr_plans.approval.records import (
    Became,
    Claimed,
    Decided,
    Decision,
    Event,
    Proposal,
    WaitBegan,
    WaitEnded,
)
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.schema import Disposition, Undecided

_AGAIN = ("failed", "refused")
"""What may be approved once more after it was tried."""
_DONE = ("rescanned", "queued")
"""What nobody can decide on any more."""


@dataclass(frozen=True)
class RegionState:
    """One region: what it is now, who said so, and what became of it."""

    number: int
    """Its number in lists and pictures, from 1; it never changes."""
    key: str
    """Key by which decisions name it; it stays the same where its rectangle is edited."""
    region: Region
    """The region with the rectangle that it has now."""
    disposition: Disposition
    reason: str
    """Why it has that disposition, in words."""
    time_s: float
    """Seconds that the rescan is expected to take."""
    who: str = ""
    """Who decided last; "" where nobody has."""
    when: float = 0.0
    """When that was, in seconds since 1970."""
    why: str = ""
    via: str = ""
    run_uid: str = ""
    """Uid of the fine map."""
    claimed_by: str = ""
    """What flies or queues it, in words; "" where nothing does."""
    owner: str = ""
    attempt: int = 0
    """How often it was tried in vain."""
    failed_maps: int = 0
    """How often it was flown in vain."""
    replaces: str = ""
    """`Region.key` of the region as it was proposed, where it was edited."""
    drawn: bool = False
    """Whether a person drew it."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """`Region.key` of each rectangle that it has had."""

    @property
    def undecided(self) -> bool:
        """Whether nobody has said what is to be done with it, and it could be flown."""
        return self.disposition == "proposed"

    @property
    def ready(self) -> bool:
        """Whether it is approved, and nothing flies or queues it yet."""
        return self.disposition == "approved" and not self.claimed_by

    def objection(self, action: str) -> str:
        """Return in words why it can't be approved, denied or edited now, or "" where it can."""
        if action == "approve" and self.disposition == "approved":
            return ""
        if self.disposition in _DONE:
            return f"it is {self.disposition} already: {self.run_uid or self.reason}"
        return f"{self.claimed_by} has it already" if self.claimed_by else ""

    @property
    def to_fly(self) -> Region:
        """The region with who approved it, when and why."""
        said = {"who": self.who, "via": self.via, "when": self.when, "why": self.why}
        replaces = {"replaces": self.replaces} if self.replaces else {}
        return replace(self.region, approval={**said, **replaces} if self.who else {})

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; the inverse of `from_dict`."""
        plain = {name: getattr(self, name) for name in (one.name for one in fields(self))}
        return {**plain, "region": self.region.to_dict(), "keys": list(self.keys)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> RegionState:
        """Return the state that `to_dict` made these values of."""
        region = Region.from_dict(plain["region"])
        return cls(**{**plain, "region": region, "keys": tuple(plain["keys"])})


@dataclass(frozen=True)
class Wait:
    """A plan that waits for decisions."""

    until: float
    """Until when, in seconds since 1970."""
    undecided: Undecided
    """What becomes of what is undecided by then."""


def region_states(proposal: Proposal, events: Iterable[Event]) -> tuple[RegionState, ...]:
    """Return the state of each region, in the order of their numbers.

    What an event asks for that is not possible any more is left out: two people may decide at the
    same moment, and then the earlier event counts.

    Parameters
    ----------
    proposal
        What was proposed.
    events
        In the order of their times.
    """
    states = {}
    for number, one in enumerate(proposal.regions, start=1):
        key = one.region.key
        states[key] = RegionState(
            number,
            key,
            one.region,
            one.disposition,
            one.reason,
            one.time_s,
            run_uid=one.run_uid,
            keys=(key,),
        )
    for event in events:
        match event:
            case Decided():
                _decide(proposal, states, event)
            case Claimed():
                state = states.get(event.key)
                if state is not None and state.attempt == event.attempt:
                    states[event.key] = replace(state, claimed_by=event.by, owner=event.owner)
            case Became():
                _became(states, event)
            case _:
                pass
    return tuple(states.values())


def _decide(proposal: Proposal, states: dict[str, RegionState], event: Decided) -> None:
    for decision in event.decisions:
        _apply(proposal, states, event, decision)
    if event.complete:
        for state in [one for one in states.values() if one.undecided]:
            _apply(proposal, states, event, Decision(action="deny", key=state.key))


def _apply(
    proposal: Proposal, states: dict[str, RegionState], event: Decided, decision: Decision
) -> None:
    said = {"who": event.by.who, "when": event.time, "why": event.by.why, "via": event.by.via}
    region = decision.region
    if decision.action == "draw":
        if region is not None and region.key not in states:
            states[region.key] = RegionState(
                len(states) + 1,
                region.key,
                region,
                "approved",
                in_words("drawn", event),
                proposal.time_s(region),
                drawn=True,
                keys=(region.key,),
                **said,
            )
        return
    state = states.get(decision.key)
    if state is None or state.objection(decision.action):
        return
    if decision.action == "edit":
        if region is not None:
            states[state.key] = replace(
                state,
                region=region,
                time_s=proposal.time_s(region),
                reason=in_words("edited", event),
                replaces="" if state.drawn else state.keys[0],
                keys=(*state.keys, region.key),
                **said,
            )
    elif decision.action == "approve":
        if state.disposition != "approved":
            words = in_words("approved", event)
            states[state.key] = replace(state, disposition="approved", reason=words, **said)
    else:
        words = in_words("denied", event)
        states[state.key] = replace(state, disposition="denied", reason=words, **said)


def in_words(what: str, event: Decided) -> str:
    """Return who said something and why, such as "approved by ann (page): the vein"."""
    by = event.by
    who = "" if by.via == "default" else f" by {by.who} ({by.via})"
    return f"{what}{who}: {by.why}" if by.why else f"{what}{who}"


def _became(states: dict[str, RegionState], event: Became) -> None:
    state = next((one for one in states.values() if event.region_key in one.keys), None)
    if state is None or (state.disposition == "rescanned" and event.disposition != "rescanned"):
        return
    if event.run_uid and (event.run_uid, event.disposition) == (state.run_uid, state.disposition):
        # Both the plan and whoever watches its documents tell of a map; the plan knows more.
        reason = event.reason or state.reason
        states[state.key] = replace(state, reason=reason)
        return
    in_vain = event.disposition in _AGAIN
    states[state.key] = replace(
        state,
        disposition=event.disposition,
        reason=event.reason,
        run_uid=event.run_uid or state.run_uid,
        claimed_by="" if in_vain else state.claimed_by,
        owner="" if in_vain else state.owner,
        attempt=state.attempt + in_vain,
        failed_maps=state.failed_maps + (in_vain and bool(event.run_uid)),
    )


def wait_of(events: Sequence[Event]) -> Wait | None:
    """Return what a plan waits for, or None where none waits or its time is over by a minute."""
    for event in reversed(events):
        if isinstance(event, WaitEnded):
            return None
        if isinstance(event, WaitBegan):
            # A session that was killed never says that it waits no more.
            gone = time.time() > event.until + _GRACE_S
            return None if gone else Wait(event.until, event.undecided)
    return None


_GRACE_S = 60.0


def decided_after_the_wait(events: Sequence[Event]) -> Iterator[Decided]:
    """Yield the decisions that no plan waited for, whose documents no plan records."""
    waiting = False
    for event in events:
        if isinstance(event, WaitBegan):
            waiting = True
        elif isinstance(event, WaitEnded):
            waiting = False
        elif isinstance(event, Decided) and not waiting:
            yield event
