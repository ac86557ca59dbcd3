"""`complete`: a pair whose maps are stored, registered, judged and added."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from xrf_sr_plans.errors import ConfigError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.store.pairs.pair_store import PairStore
from xrf_sr_plans.store.pairs.stored_pair import PairSource, StoredMap

logger = logging.getLogger(__name__)

MOST_UNMEASURED = 0.1
"""Largest share of a map's pixels that may be unmeasured."""
LEAST_PHOTONS = 1000.0
"""Fewest photons in a whole map, of its brightest element, from which something can be learnt."""


def complete(
    store: PairStore,
    pair_uid: str,
    *,
    source: PairSource = "pair",
    sample: str = "",
    again: bool = False,
) -> str:
    """Register and judge a pair whose maps are all stored, and add it with its verdict.

    What can't be learnt from is added too, with the reason. Nothing is done where a pair with
    these maps is in the store. See `PairStore.finish`.

    Parameters
    ----------
    store
        The store that has the maps.
    pair_uid
        Uid of the pair.
    source
        Where the pair comes from.
    sample
        Name of the sample; empty: as the maps' origins say.
    again
        Register and judge it even if it is in the store, or was removed from it.

    Returns
    -------
    str
        Uid of the pair that has these maps.

    Raises
    ------
    ConfigError
        There is not exactly one fine map.
    FileFormatError
        The store is damaged.
    OSError
        The disk is full, or writing is not permitted.
    """
    same = None if again else store.uid_of_maps(pair_uid)
    if same is not None:
        return same if same == pair_uid else store.finish(pair_uid, {})
    maps = store.maps(pair_uid)
    fine = [stored for stored in maps if stored.factor == 1]
    if len(fine) != 1:
        raise ConfigError(f"pair {pair_uid}: {len(fine)} fine maps; 1 is needed")
    coarse = [stored for stored in maps if stored.factor != 1]
    registration = {stored.position: registered(stored, fine[0]) for stored in coarse}
    problem = flaw(fine[0].maps, "fine map")
    uid = store.finish(
        pair_uid, registration, sample=sample, source=source, problem=problem, restore=again
    )
    if uid == pair_uid and uid not in store.removed():
        problems = dict.fromkeys([problem, *(one.problem for one in registration.values())])
        verdict = "; ".join(filter(None, problems)) or "it can be learnt from"
        logger.info("pair %s of %d maps added to %s: %s", uid, len(maps), store.folder, verdict)
    return uid


def registered(coarse: StoredMap, fine: StoredMap) -> PairRegistration:
    """Return how two maps lie on each other, with the reason where they can't be learnt from."""
    nan = float("nan")
    found = flaw(coarse.maps, f"coarse map {coarse.position}")
    if not set(coarse.maps.elements) & set(fine.maps.elements):
        found = f"no element is in both maps: {coarse.maps.elements} and {fine.maps.elements}"
    try:
        registration = register(coarse.maps, fine.maps)
    except Exception as error:
        logger.info("maps of a pair can't be registered", exc_info=True)
        reason = found or f"they can't be registered: {in_words(error)}"
        return PairRegistration(coarse.factor, nan, nan, problem=reason)
    reasons: Sequence[str] = [reason for reason in (found, registration.problem) if reason]
    return replace(registration, problem="; ".join(reasons))


def flaw(maps: ElementalMaps, what: str) -> str:
    """Return in words why nothing can be learnt from a map, or "" where something may be."""
    measured = maps.coverage.values > 0
    missing = float((~measured).mean())
    if missing > MOST_UNMEASURED:
        rows = int((~measured).all(axis=1).sum())
        lost = f"{rows} of {len(measured)} rows" if rows else f"{missing:.0%} of the pixels"
        return f"{lost} of the {what} were not measured"
    photons = np.nansum(maps.counts.values, axis=(1, 2))
    most = float(photons.max(initial=0.0))
    if not most >= LEAST_PHOTONS:
        return (
            f"too few counts: {most:.3g} photons of the brightest element in the whole {what}; at"
            f" least {LEAST_PHOTONS:g} are needed"
        )
    return ""
