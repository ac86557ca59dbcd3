"""`PairStore`: coarse and fine maps of the same areas, in a folder.

The maps are in ``<folder>/maps``, each in an HDF5 file that is never changed (`map_file`), and
``<folder>/log.jsonl`` says what happened to them (`pair_log`). Several processes may write at once,
and one that is killed leaves the store whole.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from xrf_sr_plans.errors import ConfigError, FileFormatError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs.map_file import content_of, read_map, write_map
from xrf_sr_plans.store.pairs.older import refuse_older
from xrf_sr_plans.store.pairs.pair_index import KnownPair, PairIndex, contents_of
from xrf_sr_plans.store.pairs.pair_log import (
    MapAdded,
    PairKnown,
    PairLog,
    PairRemoved,
    Record,
    SampleRenamed,
    StoreMade,
)
from xrf_sr_plans.store.pairs.pair_records import (
    check_uid,
    has_more,
    map_record,
    origin_of,
    pair_record,
    sample_of,
    says_the_same,
)
from xrf_sr_plans.store.pairs.stored_pair import (
    MapOrigin,
    PairSource,
    Split,
    StoredMap,
    StoredPair,
    why_unusable,
)

logger = logging.getLogger(__name__)


class PairStore:
    """Write and read pairs.

    Parameters
    ----------
    folder
        Folder of the store, which is made when the first map is written.
    version
        The store is read as it was when it had this version; it can't be written to then. None:
        as it is now.
    """

    def __init__(self, folder: str | Path, *, version: str | None = None) -> None:
        self.folder = Path(folder)
        self._version = version
        self._log = PairLog(self.folder)
        self._index = PairIndex()
        self._read_to = 0
        self._lock = threading.RLock()

    @property
    def version(self) -> str:
        """Hash of all pairs as they are now, which is what a training run writes down.

        Raises
        ------
        FileFormatError
            The log is damaged.
        """
        return self._up_to_date().version

    def at(self, version: str) -> PairStore:
        """Return the store as it was at a version.

        Raises
        ------
        ConfigError
            It never had that version.
        FileFormatError
            The log is damaged.
        """
        earlier = PairStore(self.folder, version=version)
        earlier._up_to_date()
        return earlier

    def save_map(
        self,
        pair_uid: str,
        position: int,
        factor: int,
        maps: ElementalMaps,
        origin: MapOrigin | None = None,
    ) -> None:
        """Store one map of a pair, unless more of the same run is stored already.

        Parameters
        ----------
        pair_uid
            Uid of the pair.
        position
            Place of the map in the order in which the maps of the pair were flown.
        factor
            How many times larger its step is than that of the fine map, which has factor 1.
        maps
            The map as it was measured.
        origin
            Where it comes from; None: nothing is known.

        Raises
        ------
        ConfigError
            The uid is none, or the store is read as it was.
        FileFormatError
            The log is damaged.
        OSError
            The disk is full, or writing is not permitted.
        """
        self._check_writable(pair_uid)
        content = content_of(maps)
        known = self._up_to_date().maps.get(pair_uid, {}).get(position)
        if known is not None and known.content == content and known.factor == factor:
            return
        origin = origin or MapOrigin(run_uid=str(maps.attrs.get("source_uid") or ""))
        if known is not None and has_more(known, maps, origin):
            logger.warning(
                "pair %s: map-%d stays: it has more pixels of the run than what comes now",
                pair_uid,
                position,
            )
            return
        # The file comes first, so that no record is without its file.
        file = write_map(self.folder, maps)
        record = map_record(pair_uid, position, factor, maps, content, file, origin)
        with self._log.locked() as log:
            log.append(*self._first_records(), record)

    def maps(self, pair_uid: str) -> list[StoredMap]:
        """Return those maps of a pair that are stored, in the order in which they were flown.

        Raises
        ------
        FileFormatError
            A file is damaged. The message names it.
        """
        check_uid(pair_uid)
        known = self._up_to_date().maps.get(pair_uid, {})
        return [self._stored(known[position]) for position in sorted(known)]

    def finish(
        self,
        pair_uid: str,
        registration: Mapping[int, PairRegistration],
        *,
        sample: str = "",
        source: PairSource = "pair",
        problem: str = "",
        restore: bool = False,
    ) -> str:
        """Add a pair whose maps are stored, so that `pairs` yields it from now on.

        Parameters
        ----------
        pair_uid
            Uid of the pair.
        registration
            How each coarse map and the fine one lie on each other, by position.
        sample
            Name of the sample. Where none is given it is what the maps' origins say, and where
            these say nothing all that the beamline measured on that day is one sample.
        source
            Where the pair comes from.
        problem
            Why nothing can be learnt from it; empty where something can.
        restore
            Add it even if a pair with these maps was removed.

        Returns
        -------
        str
            Uid of the pair that has these maps. It is another one where they were in the store
            already, and nothing is added then, nor where that pair was removed.

        Raises
        ------
        ConfigError
            There is not exactly one fine map, or the store is read as it was.
        FileFormatError
            The log is damaged.
        OSError
            The disk is full, or writing is not permitted.
        """
        self._check_writable(pair_uid)
        with self._log.locked() as log:
            index = self._up_to_date()
            maps = index.maps.get(pair_uid, {})
            fine = sum(known.factor == 1 for known in maps.values())
            if fine != 1:
                raise ConfigError(f"pair {pair_uid}: {fine} fine maps; 1 is needed")
            contents = contents_of(maps.values())
            same = index.same_pair(contents, pair_uid)
            if same is None and not restore:
                same = index.removed_as(contents)
            if same is not None and (same != pair_uid or same in index.removed):
                was = "was removed" if same in index.removed else "is in the store"
                logger.info("pair %s has the maps of %s, which %s", pair_uid, same, was)
                if same not in (pair_uid, index.same.get(pair_uid)):
                    log.append(PairKnown(time=time.time(), pair_uid=pair_uid, same_as=same))
                return same
            name = sample.strip() or sample_of([origin_of(one.origin) for one in maps.values()])
            name = index.name_of(name)
            usable = not why_unusable(problem, registration)
            record = pair_record(
                pair_uid, maps, registration, name, index.split_of(name, usable), source, problem
            )
            if not says_the_same(index.pairs.get(pair_uid), record):
                log.append(record)
        return pair_uid

    def remove(self, pair_uid: str, why: str = "") -> None:
        """Leave a pair out until it is restored; its maps stay where they are.

        Raises
        ------
        ConfigError
            There is no such pair, or the store is read as it was.
        """
        self._check_writable(pair_uid)
        with self._log.locked() as log:
            if pair_uid not in self._up_to_date().pairs:
                raise ConfigError(f"{self.folder}: no pair {pair_uid!r}")
            log.append(PairRemoved(time=time.time(), pair_uid=pair_uid, why=why))

    def rename_sample(self, sample: str, to: str) -> Split:
        """Give a sample another name, or make it one with another sample, and return its split.

        Where one of two samples that become one has been learnt from, all of it is learnt from:
        models that have seen it can't be judged by it.

        Raises
        ------
        ConfigError
            There is no such sample, the name is empty, or the store is read as it was.
        """
        self._check_writable()
        with self._log.locked() as log:
            splits = self._up_to_date().splits
            if sample not in splits or not to.strip():
                raise ConfigError(
                    f"{self.folder}: no sample {sample!r} to be called {to!r}; there are"
                    f" {sorted(splits)}"
                )
            both = {splits[sample], splits.get(to.strip(), splits[sample])}
            split: Split = "learn" if "learn" in both else "held out"
            log.append(SampleRenamed(time=time.time(), sample=sample, to=to.strip(), split=split))
        return split

    def pairs(self, split: Split | None = None, *, usable: bool = False) -> Iterator[StoredPair]:
        """Yield the complete pairs in order of their uids, one after the other from the disk.

        Parameters
        ----------
        split
            Only those of this split; None: all.
        usable
            Only those without a problem, of which at least one coarse map is registered without
            one.

        Raises
        ------
        FileFormatError
            A file is damaged. The message names it.
        """
        for known in self.known_pairs():
            if split in (None, known.record.split) and not (usable and known.problem):
                yield self._loaded(known)

    def known_pairs(self) -> list[KnownPair]:
        """Return what the log says of the complete pairs, in order of their uids.

        Raises
        ------
        FileFormatError
            The log is damaged.
        """
        pairs = self._up_to_date().pairs
        return [pairs[uid] for uid in sorted(pairs)]

    def known_pair(self, pair_uid: str) -> KnownPair:
        """Return what the log says of one complete pair.

        Raises
        ------
        ConfigError
            There is no such pair.
        FileFormatError
            The log is damaged.
        """
        known = self._up_to_date().pairs.get(pair_uid)
        if known is None:
            raise ConfigError(f"{self.folder}: no pair {pair_uid!r}")
        return known

    def waiting(self) -> dict[str, int]:
        """Return the uids of pairs that are not complete, and how many maps they have."""
        index = self._up_to_date()
        done = {*index.pairs, *index.same, *index.removed}
        return {uid: len(maps) for uid, maps in index.maps.items() if uid not in done}

    def removed(self) -> list[str]:
        """Return the uids of pairs that were removed."""
        return list(self._up_to_date().removed)

    def uid_of_maps(self, pair_uid: str) -> str | None:
        """Return the uid of the pair that has the maps that are stored under a uid, or None."""
        index = self._up_to_date()
        return index.same_pair(contents_of(index.maps.get(pair_uid, {}).values()), pair_uid)

    def same_as(self, fine: ElementalMaps, coarse: Sequence[ElementalMaps]) -> str | None:
        """Return the uid of the pair that has these maps already, or None."""
        contents = content_of(fine), frozenset(map(content_of, coarse))
        return self._up_to_date().same_pair(contents)

    def pair(self, pair_uid: str) -> StoredPair:
        """Return one complete pair.

        Raises
        ------
        ConfigError
            There is no such pair.
        FileFormatError
            A file is damaged. The message names it.
        """
        return self._loaded(self.known_pair(pair_uid))

    def _loaded(self, known: KnownPair) -> StoredPair:
        record, fine = known.record, known.fine
        if fine is None:
            raise FileFormatError(f"{self._log.path}: {record.pair_uid} has not one fine map")
        return StoredPair(
            record.pair_uid,
            self._stored(fine),
            tuple(map(self._stored, known.coarse)),
            known.registration,
            sample=record.sample,
            split=record.split,
            source=record.source,
            problem=record.problem,
            added=record.time,
            package=record.package,
        )

    def _stored(self, known: MapAdded) -> StoredMap:
        maps, origin = read_map(self.folder, known.file), origin_of(known.origin)
        return StoredMap(known.position, known.factor, maps, known.content, origin)

    def _up_to_date(self) -> PairIndex:
        """Return the index with everything that the log says by now."""
        with self._lock:
            index, wanted = self._index, self._version
            if not self._read_to:
                refuse_older(self.folder)
            try:
                for record, end in self._log.read(self._read_to):
                    if wanted is not None and index.version == wanted and self._read_to:
                        return index
                    index.take(record)
                    self._read_to = end
            except ValueError as error:
                if isinstance(error, FileFormatError):
                    raise
                raise FileFormatError(f"{self._log.path}: {in_words(error)}") from error
            if wanted is not None and index.version != wanted:
                raise ConfigError(f"{self.folder}: never had the version {wanted!r:.80}")
            return index

    def _first_records(self) -> list[Record]:
        """Return what comes before everything else, where nothing is in the log yet."""
        if self._up_to_date().salt:
            return []
        return [StoreMade(time=time.time(), salt=secrets.token_hex(8))]

    def _check_writable(self, pair_uid: str | None = None) -> None:
        if pair_uid is not None:
            check_uid(pair_uid)
        if self._version is not None:
            raise ConfigError(
                f"{self.folder}: read as it was at version {self._version}, which can't be changed"
            )
