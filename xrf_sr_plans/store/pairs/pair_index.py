"""`PairIndex`: which pairs a store has, as its log tells, without their maps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import TypeAdapter

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs.pair_log import (
    MapAdded,
    PairAdded,
    PairKnown,
    PairRemoved,
    Record,
    SampleRenamed,
    StoreMade,
)
from xrf_sr_plans.store.pairs.stored_pair import Split, why_unusable

HELD_OUT_ONE_IN = 5
"""About one sample in so many is held out."""
SAMPLES_WITHOUT_HELD_OUT = 2
"""So many samples at most may have usable pairs without one of them being held out."""
_VERSION_DIGITS = 16
Contents = tuple[str, frozenset[str]]
"""What was measured: content of the fine map, and those of the coarse ones."""
_REGISTRATION = TypeAdapter(dict[int, PairRegistration])


@dataclass(frozen=True)
class KnownPair:
    """What the log knows of one pair."""

    record: PairAdded
    maps: Mapping[int, MapAdded]
    """By position."""
    registration: Mapping[int, PairRegistration]

    @property
    def fine(self) -> MapAdded | None:
        """The fine map, or None where there isn't exactly one."""
        fine = [known for known in self.maps.values() if known.factor == 1]
        return fine[0] if len(fine) == 1 else None

    @property
    def coarse(self) -> list[MapAdded]:
        """The coarse maps, in the order in which they were flown."""
        return [self.maps[place] for place in sorted(self.maps) if self.maps[place].factor != 1]

    @property
    def problem(self) -> str:
        """Why nothing can be learnt from it, or "" where something can."""
        return why_unusable(self.record.problem, self.registration)

    @property
    def contents(self) -> Contents:
        """Contents of the fine map and of the coarse ones."""
        return contents_of(self.maps.values())


def contents_of(maps: Iterable[MapAdded]) -> Contents:
    """Return the contents of the fine map among some ("" where there isn't one) and the others'."""
    known = list(maps)
    fine = [one.content for one in known if one.factor == 1]
    coarse = frozenset(one.content for one in known if one.factor != 1)
    return fine[0] if len(fine) == 1 else "", coarse


@dataclass
class PairIndex:
    """What the records of a log make, up to one of them.

    Attributes
    ----------
    salt : str
        See `StoreMade`.
    maps : dict
        The latest map at each position of each pair, complete or not.
    pairs : dict
        The complete pairs by uid, without those that were removed.
    splits : dict
        Split of each sample that ever had a pair.
    same : dict
        Uids of pairs that weren't added, and of those that they are the same as.
    removed : dict
        Contents of the pairs that were removed, by their uids.
    names : dict
        Present names of samples that were renamed.
    """

    salt: str = ""
    maps: dict[str, dict[int, MapAdded]] = field(default_factory=dict)
    pairs: dict[str, KnownPair] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    removed: dict[str, Contents] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _ever: dict[str, dict[tuple[int, str], MapAdded]] = field(default_factory=dict)
    _sum: int = 0

    @property
    def version(self) -> str:
        """Hash of all pairs and of what is said about them, in whatever order they came."""
        return f"{self._sum:064x}"[-_VERSION_DIGITS:]

    def take(self, record: Record) -> bool:
        """Take one record; return whether it changed what the pairs are.

        Raises
        ------
        GridError
            A map of a pair never came.
        ValueError
            A registration is none.
        """
        before = self._sum
        if isinstance(record, StoreMade):
            self.salt = self.salt or record.salt
        elif isinstance(record, MapAdded):
            self.maps.setdefault(record.pair_uid, {})[record.position] = record
            place = record.position, record.content
            self._ever.setdefault(record.pair_uid, {})[place] = record
        elif isinstance(record, PairAdded):
            self._put(record)
        elif isinstance(record, PairKnown):
            self.same[record.pair_uid] = record.same_as
        elif isinstance(record, PairRemoved):
            dropped = self._drop(record.pair_uid)
            if dropped is not None:
                self.removed[record.pair_uid] = dropped.contents
        elif isinstance(record, SampleRenamed):
            self._rename(record)
        return self._sum != before

    def same_pair(self, contents: Contents, uid: str = "") -> str | None:
        """Return the uid of the pair that has these contents, among others perhaps, or None.

        Where several have them, it is the one with the given uid, if it is among them.
        """
        fine, coarse = contents
        for one in (uid, *self.pairs):
            known = self.pairs.get(one)
            if known is None or not fine or known.contents[0] != fine:
                continue
            if coarse <= known.contents[1]:
                return one
        return None

    def removed_as(self, contents: Contents) -> str | None:
        """Return the uid of a pair with these contents that was removed, or None."""
        return next((uid for uid, one in self.removed.items() if one == contents), None)

    def name_of(self, sample: str) -> str:
        """Return what a sample is called by now."""
        return self.names.get(sample, sample)

    def split_of(self, sample: str, usable: bool) -> Split:
        """Return the split of a sample, which for one that is new is chosen here.

        That of a new one follows from its name and the salt, about one in `HELD_OUT_ONE_IN` being
        held out. The first one never is, because something has to be learnt from, and the third
        one with usable pairs is where neither of the others was.

        Parameters
        ----------
        sample
            Name of the sample.
        usable
            Whether its pair can be learnt from, where it is new.
        """
        if sample in self.splits:
            return self.splits[sample]
        with_usable = {known.record.sample for known in self.pairs.values() if not known.problem}
        held_out = [name for name in with_usable if self.splits[name] == "held out"]
        if not with_usable:
            return "learn"
        if usable and not held_out and len(with_usable) >= SAMPLES_WITHOUT_HELD_OUT:
            return "held out"
        digest = hashlib.sha256(f"{self.salt}\n{sample}".encode()).digest()
        return "held out" if int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0 else "learn"

    def _put(self, record: PairAdded) -> None:
        of_uid = self._ever.get(record.pair_uid, {})
        missing = [place for place in record.maps.items() if place not in of_uid]
        if missing:
            raise GridError(f"pair {record.pair_uid}: {len(missing)} of its maps never came")
        registration = _REGISTRATION.validate_python(record.registration)
        known = self._drop(record.pair_uid)
        if known is not None:
            # It was added when it came first.
            record = record.model_copy(update={"time": known.record.time})
        # A split is for good. Two processes can't choose it at the same time.
        split = self.splits.setdefault(record.sample, record.split)
        record = record.model_copy(update={"split": split})
        maps = {place[0]: of_uid[place] for place in record.maps.items()}
        self.pairs[record.pair_uid] = KnownPair(record, maps, registration)
        self.same.pop(record.pair_uid, None)
        contents = self.pairs[record.pair_uid].contents
        self.removed = {
            uid: one
            for uid, one in self.removed.items()
            if uid != record.pair_uid and one != contents
        }
        self._sum += _number(record)

    def _drop(self, uid: str) -> KnownPair | None:
        known = self.pairs.pop(uid, None)
        if known is not None:
            self._sum -= _number(known.record)
        return known

    def _rename(self, record: SampleRenamed) -> None:
        self.splits[record.to] = record.split
        self.splits.pop(record.sample, None)
        self.names.pop(record.to, None)
        for name, now in [*self.names.items(), (record.sample, record.to)]:
            self.names[name] = record.to if now == record.sample else now
        for uid, known in self.pairs.items():
            if known.record.sample in (record.sample, record.to):
                changed = known.record.model_copy(
                    update={"sample": record.to, "split": record.split}
                )
                self._sum += _number(changed) - _number(known.record)
                self.pairs[uid] = KnownPair(changed, known.maps, known.registration)


def _number(record: PairAdded) -> int:
    """Return a hash of what counts of a pair, which is summed up over all of them."""
    text = record.model_dump_json(exclude={"time", "package", "kind"})
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
