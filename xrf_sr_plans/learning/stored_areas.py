"""Pairs of the pair store as areas to learn from, or why nothing can be learnt from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import FileFormatError, XrfSrError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.measurement import FACTORS, factor_not_allowed
from xrf_sr_plans.registration.fine_on_coarse import LEAST_VARIANCE, FineOnCoarse, fine_on_coarse
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.sr.prepare import LOWEST_BEAM, measurement_of, prepare_maps
from xrf_sr_plans.store.pairs import PairStore, StoredMap, StoredPair
from xrf_sr_plans.training.paired_areas import SMALLEST_STEPS, PairedArea, in_halves

LEAST_PHOTONS = 4.0
"""Photons at the 99.5 % quantile of a coarse map below which an element has nothing to teach."""
LEAST_MEASURED = 0.5
"""Share of an area that both maps have to have measured."""
HELD_OUT_SHARE = 0.25
"""Share of each area that is held out where no sample is."""


@dataclass(frozen=True)
class LeftOut:
    """A coarse map of a pair that nothing is learnt from."""

    name: str
    reason: str


@dataclass(frozen=True)
class Lessons:
    """What there is to learn from, and what says whether something was learnt.

    Parameters
    ----------
    learn, held_out
        Areas; no sample is in both, unless `by_area`.
    by_area
        Whether parts of the same areas are held out, because all usable pairs are of samples that
        are learnt from. What is gained on them says less about other samples.
    left_out
        Coarse maps that can't be used, and why.
    pairs
        The pairs that the areas are of.
    version
        Version of the store that they come from.
    """

    learn: tuple[PairedArea, ...]
    held_out: tuple[PairedArea, ...]
    by_area: bool
    left_out: tuple[LeftOut, ...]
    pairs: tuple[StoredPair, ...] = ()
    version: str = ""

    @property
    def samples(self) -> tuple[str, ...]:
        """Names of the samples that are learnt from."""
        return tuple(sorted({area.sample for area in self.learn}))


def lessons_of(store: PairStore) -> Lessons:
    """Return what a store has to teach; damaged pairs are left out.

    Raises
    ------
    FileFormatError
        The log of the store is damaged.
    """
    pairs, left_out, version = [], [], store.version
    for known in store.known_pairs():
        uid = known.record.pair_uid
        try:
            pairs.append(store.pair(uid))
        except FileFormatError as error:
            left_out.append(LeftOut(uid, str(error)))
    found = lessons_from(pairs)
    return replace(found, left_out=(*left_out, *found.left_out), version=version)


def lessons_from(pairs: Iterable[StoredPair]) -> Lessons:
    """Return the areas of pairs, by what they are for.

    Parameters
    ----------
    pairs
        Pairs of a store, usable or not.
    """
    areas: dict[str, list[PairedArea]] = {"learn": [], "held out": []}
    left_out: list[LeftOut] = []
    used: list[StoredPair] = []
    for pair in pairs:
        found = list(areas_of(pair))
        left_out += [one for one in found if isinstance(one, LeftOut)]
        good = [one for one in found if isinstance(one, PairedArea)]
        areas[pair.split] += good
        used += [pair] if good else []
    learn, held_out = areas["learn"], areas["held out"]
    by_area = bool(learn) and not held_out
    if by_area:
        learn, held_out, small = _split(learn)
        left_out += small
    return Lessons(tuple(learn), tuple(held_out), by_area, tuple(left_out), tuple(used))


def _split(
    areas: Sequence[PairedArea],
) -> tuple[list[PairedArea], list[PairedArea], list[LeftOut]]:
    learn, held_out, left_out = [], [], []
    for area in areas:
        try:
            first, second = in_halves(area, HELD_OUT_SHARE)
        except ValueError as error:
            left_out.append(LeftOut(area.name, str(error)))
            continue
        if min(part.measured.mean() for part in (first, second)) < LEAST_MEASURED:
            left_out.append(LeftOut(area.name, "too little of it was measured to be split"))
            continue
        learn.append(first)
        held_out.append(second)
    return learn, held_out, left_out


def areas_of(pair: StoredPair) -> Iterator[PairedArea | LeftOut]:
    """Yield an area of each coarse map of a pair, or why it can't be used."""
    for coarse in pair.coarse:
        name = f"{pair.pair_uid}/{coarse.position}"
        registration = pair.registration.get(coarse.position)
        try:
            found = _area(pair, coarse, registration, name)
        except XrfSrError as error:
            found = LeftOut(name, str(error))
        yield found


def _area(
    pair: StoredPair, coarse: StoredMap, registration: PairRegistration | None, name: str
) -> PairedArea | LeftOut:
    problem = pair.problem or (
        "it wasn't registered" if registration is None else registration.problem
    )
    if problem or registration is None:
        return LeftOut(name, problem)
    if coarse.factor not in FACTORS:
        return LeftOut(name, factor_not_allowed(coarse.factor))
    measurement = measurement_of(coarse.maps, coarse.factor)
    common = [name for name in coarse.maps.elements if name in pair.fine.maps.elements]
    maps = [_only(one, common) for one in (coarse.maps, pair.fine.maps)]
    ready = prepare_maps(maps[0])
    if ready.background is not None and ready.background.any():
        return LeftOut(name, "net counts (values below 0), whose noise isn't known")
    per_photon = _per_fine_photon(maps[0], maps[1], measurement.fast_pixels)
    moved = fine_on_coarse(maps[1], maps[0].grid, registration)
    beam = maps[1].beam().relative
    worth = np.nan_to_num(per_photon / np.where(beam >= LOWEST_BEAM, beam, np.nan))
    fine_measured = ready.fine_mask(measurement.refinement)
    inside = moved.measured & fine_measured.all(axis=0) & (worth > 0)
    top = np.quantile(ready.counts.reshape(len(common), -1), 0.995, axis=1)
    enough = top * measurement.fast_pixels >= LEAST_PHOTONS
    if (
        min(ready.counts.shape[1], ready.counts.shape[2] // measurement.fast_pixels)
        < SMALLEST_STEPS
    ):
        return LeftOut(name, f"{maps[0].grid.shape} pixels are too few")
    if not enough.any():
        return LeftOut(name, f"no element has {LEAST_PHOTONS:g} photons where it is brightest")
    if inside.mean() < LEAST_MEASURED:
        return LeftOut(name, f"both maps were measured on {inside.mean():.0%} of the area only")
    area = PairedArea(
        name=name,
        sample=pair.sample or pair.pair_uid,
        elements=tuple(common),
        counts=ready.counts,
        target=np.where(inside, moved.counts * worth, 0.0),
        variance=np.where(inside, moved.variance * worth**2, 0.0),
        worth=np.where(inside, worth, 0.0) * _noise_kept(moved, inside),
        measured=inside,
        measurement=measurement,
        was_chosen=pair.source == "rescan",
    )
    return area.only(np.flatnonzero(enough).tolist())


def _noise_kept(moved: FineOnCoarse, inside: np.ndarray) -> np.ndarray:
    """Return by what resampling has multiplied the variance of counts (element, 1, 1).

    Values between pixels have less noise than photons: as if each were worth less.
    """
    variance, counts = (plane[:, inside].mean(axis=1) for plane in (moved.variance, moved.counts))
    return np.clip(variance / np.maximum(counts, LEAST_VARIANCE), 0.1, 1.0)[:, None, None]


def _only(maps: ElementalMaps, elements: Sequence[str]) -> ElementalMaps:
    return ElementalMaps(maps.dataset.sel(element=list(elements)), maps.grid)


def _per_fine_photon(coarse: ElementalMaps, fine: ElementalMaps, fast_pixels: int) -> float:
    """Return how many photons of a coarse pixel a photon of the fine map stands for.

    It is the ratio of dwell times, times that of the beam intensities.
    """
    dwell_ms = coarse.attrs.get("dwell_ms"), fine.attrs.get("dwell_ms")
    ratio = float(fast_pixels)
    if all(dwell_ms):
        ratio *= float(dwell_ms[0]) / float(dwell_ms[1])  # type: ignore[arg-type]
    medians = coarse.beam().median, fine.beam().median
    if all(medians):
        ratio *= float(medians[0]) / float(medians[1])  # type: ignore[arg-type]
    return ratio
