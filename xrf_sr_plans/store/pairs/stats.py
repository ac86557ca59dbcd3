"""`store_stats`: what a pair store holds, by sample, beamline, element and the like."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.store.pairs.pair_index import KnownPair

GROUPS: Mapping[str, Callable[[KnownPair], Iterable[str]]] = {
    "sample": lambda known: [known.record.sample],
    "beamline": lambda known: [beamline_of(known)],
    "split": lambda known: [known.record.split],
    "source": lambda known: [known.record.source],
    "element": lambda known: elements_of(known),
    "factor": lambda known: readings_of(known),
}
"""By what pairs are counted, and what each is counted under."""


@dataclass(frozen=True)
class PairCounts:
    """How many pairs there are, and what was measured for them."""

    pairs: int
    usable: int
    """Pairs that can be learnt from."""
    area_um2: float
    """Of the fine maps."""
    coarse_photons: float
    """Detected in all coarse maps, of all elements (of one, where they are counted by element)."""
    fine_photons: float
    """The same of the fine maps."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class StoreStats:
    """What a store holds."""

    version: str
    total: PairCounts
    groups: Mapping[str, Mapping[str, PairCounts]]
    """By the names of `GROUPS`, and by what is counted there."""
    waiting: int
    """Pairs whose maps have not all come."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return {
            "version": self.version,
            "waiting": self.waiting,
            "total": self.total.to_dict(),
            **{
                group: {name: counts.to_dict() for name, counts in members.items()}
                for group, members in self.groups.items()
            },
        }


def store_stats(pairs: Sequence[KnownPair], version: str, waiting: int = 0) -> StoreStats:
    """Return what a store holds.

    Parameters
    ----------
    pairs
        Its complete pairs.
    version
        Its version.
    waiting
        How many pairs are not complete.
    """
    groups: dict[str, dict[str, PairCounts]] = {}
    for group, members_of in GROUPS.items():
        by_name: dict[str, list[KnownPair]] = {}
        for known in pairs:
            for name in members_of(known):
                by_name.setdefault(name, []).append(known)
        groups[group] = {
            name: _counts(members, name if group == "element" else None)
            for name, members in sorted(by_name.items())
        }
    return StoreStats(version, _counts(pairs), groups, waiting)


def beamline_of(known: KnownPair) -> str:
    """Return the beamline of a pair, or "unknown"."""
    names = [one.origin.get("beamline") for one in known.maps.values()]
    return next((str(name) for name in names if name), "unknown")


def elements_of(known: KnownPair) -> list[str]:
    """Return the elements of the fine map of a pair."""
    return [] if known.fine is None else list(known.fine.totals)


def readings_of(known: KnownPair) -> list[str]:
    """Return how the coarse maps of a pair were measured, such as "2" and "4 rows"."""
    names = [
        f"{one.factor} rows" if one.sampling == "rows" else str(one.factor) for one in known.coarse
    ]
    return list(dict.fromkeys(names))


def area_um2(known: KnownPair) -> float:
    """Return the area of the fine map of a pair; 0 where it has none."""
    fine = known.fine
    return 0.0 if fine is None else math.prod(fine.shape) * math.prod(fine.step_um)


def photons(known: KnownPair, element: str | None = None) -> tuple[float, float]:
    """Return the photons in the coarse and in the fine maps of a pair."""
    sums = [0.0, 0.0]
    for one in known.maps.values():
        of_map = one.totals.values() if element is None else [one.totals.get(element, 0.0)]
        sums[one.factor == 1] += sum(of_map)
    return sums[0], sums[1]


def _counts(pairs: Sequence[KnownPair], element: str | None = None) -> PairCounts:
    both = [photons(known, element) for known in pairs]
    return PairCounts(
        pairs=len(pairs),
        usable=sum(not known.problem for known in pairs),
        area_um2=sum(map(area_um2, pairs)),
        coarse_photons=sum(coarse for coarse, _ in both),
        fine_photons=sum(fine for _, fine in both),
    )
