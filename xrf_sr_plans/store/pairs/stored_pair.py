"""`StoredPair`: a fine map and the coarse maps of the same area, with all that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.registration.pair_registration import PairRegistration

Split = Literal["learn", "held out"]
PairSource = Literal["pair", "rescan", "file"]
"""Where pairs come from: `acquire_pair`, a survey and one of its rescans, or two files."""


@dataclass(frozen=True)
class MapOrigin:
    """Where a map of a pair comes from, as far as its documents or its file say."""

    run_uid: str = ""
    """Uid of its run, or the name of its file."""
    beamline: str = ""
    sample: str = ""
    """Name of the sample; empty where none is given."""
    time: float | None = None
    """When it was measured, in seconds since 1970."""
    parent_uid: str = ""
    """Uid of the map in which the area was found."""
    survey_uid: str = ""
    stage: Mapping[str, Any] = field(default_factory=dict)
    """Positions of all other axes while it was flown."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class StoredMap:
    """One map of a pair."""

    position: int
    """Place of the map in the order in which the maps of the pair were flown."""
    factor: int
    """How many times larger its step is than that of the fine map, which has factor 1."""
    maps: ElementalMaps
    content: str = ""
    """sha256 of what was measured, which is the same however the map came into the store."""
    origin: MapOrigin = field(default_factory=MapOrigin)


@dataclass(frozen=True)
class StoredPair:
    """All maps of one pair."""

    pair_uid: str
    fine: StoredMap
    coarse: tuple[StoredMap, ...]
    registration: Mapping[int, PairRegistration]
    """How each coarse map and the fine one lie on each other, by position."""
    sample: str = ""
    """Which sample it is of, as far as that is known."""
    split: Split = "learn"
    """Whether it is learnt from or held out: the same for all pairs of one sample, for good."""
    source: PairSource = "pair"
    problem: str = ""
    """Why nothing is learnt from it; empty where something can be."""
    added: float = 0.0
    """When it entered the store, in seconds since 1970."""
    package: str = ""
    """Version of this package that stored it."""

    @property
    def usable(self) -> bool:
        """Whether it can be learnt from: at least one of its coarse maps lies on the fine one."""
        return not why_unusable(self.problem, self.registration)


def why_unusable(problem: str, registration: Mapping[int, PairRegistration]) -> str:
    """Return why nothing can be learnt from a pair, or "" where something can.

    A pair is usable as long as one of its coarse maps is registered.
    """
    if problem:
        return problem
    problems = [registered.problem for registered in registration.values()]
    if not problems:
        return "no coarse map is registered"
    return "" if "" in problems else "; ".join(dict.fromkeys(problems))
