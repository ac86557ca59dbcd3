"""Measure how well pairs are registered, and which pairs are refused.

    python benchmarks/registration.py [--per-family 2] [--poisoned 1] [--ways 2x "4x rows"]
        [--peaks 100] [--drifts none] [--only errors|poisoned]

Pairs of phantoms (validation seeds, never test seeds) are flown by the forward model, each map with
a drift of its own (`registration.simulated_pair`): 48 x 48 coarse pixels, 4 elements, of which the
brightest pixel has so many photons. Printed for each factor, pixels of rows or squares, counts and
drift: median and 99th percentile of the error of a row's displacement along x or y in fine pixels,
over the rows that are learnt from and over all rows; the error that `register` expects; how many
rows and pairs are left out, and the time that a pair takes.

Then pairs are poisoned in 28 ways, and it is counted how many are accepted.
"""

from __future__ import annotations

import argparse
import time
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.physics.forward import probe_blur
from xrf_sr_plans.physics.resample import block_mean, repeat
from xrf_sr_plans.registration.checks import MOST_ROW_ERROR_PX
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.registration.simulated_pair import (
    Flown,
    SimulatedPair,
    fine_sample,
    simulated_pair,
)
from xrf_sr_plans.training.phantoms import FAMILIES, VALIDATION_SEED, phantom

FIRST_SEED = VALIDATION_SEED + 600_000
LEVELS = (1.0, 0.6, 0.35, 0.2)
"""Brightness of the elements relative to each other."""
PEAKS = (30.0, 100.0, 1000.0)
DRIFTS = {"none": (0.0, 0.0), "drift": (2.0, 0.0), "drift + row shifts": (2.0, 1.0)}
WAYS = {"2x": (2, False), "2x rows": (2, True), "4x": (4, False), "4x rows": (4, True)}


@lru_cache(maxsize=2)
def sample(family: str, seed: int, size: int) -> np.ndarray:
    """Return a phantom that pairs are flown of."""
    maps = phantom(family, FIRST_SEED + seed, size=size, n_elements=len(LEVELS))
    rng = np.random.default_rng([FIRST_SEED + seed, zlib.crc32(family.encode())])
    return fine_sample(maps) * rng.permutation(LEVELS)[:, None, None]


def pair(family: str, seed: int, flown: Flown) -> SimulatedPair:
    """Return a pair; the same arguments give the same one."""
    rng = np.random.default_rng(
        [FIRST_SEED + seed, zlib.crc32(family.encode()), flown.factor, flown.rows]
    )
    return simulated_pair(sample(family, seed, flown.sample_px), flown, rng)


def error_table(
    per_family: int, ways: Sequence[str], peaks: Sequence[float], drifts: Sequence[str]
) -> None:
    """Print errors of rows, over all families."""
    print("errors of a row's displacement along x or y, in fine pixels")
    print(
        "way      peak drift               learnt: median  99 %   all rows: median  99 %"
        "   expected  rows left out  pairs refused  s/pair"
    )
    for factor, rows in map(WAYS.__getitem__, ways):
        for peak in peaks:
            for name in drifts:
                flown = Flown(factor, rows, peak, *DRIFTS[name])
                _error_line(flown, name, per_family)


def _error_line(flown: Flown, name: str, per_family: int) -> None:
    learnt, every, expected, refused, left_out, spent = [], [], [], [], [], []
    for family in FAMILIES:
        for seed in range(per_family):
            made = pair(family, seed, flown)
            begun = time.perf_counter()
            found = register(made.coarse, made.fine)
            spent.append(time.perf_counter() - begun)
            refused.append(found.problem)
            if not found.row_error_px:
                continue
            errors = np.abs(made.errors_px(found))
            every.append(errors.ravel())
            if found.problem:
                continue
            told = np.array(found.row_error_px) <= MOST_ROW_ERROR_PX
            left_out.append(1 - told.mean())
            learnt.append(errors[told].ravel())
            expected.append(found.error_px)
    all_errors = np.concatenate(every)
    of_learnt = np.concatenate(learnt) if learnt else np.full(1, np.nan)
    too_few = sum("rows are placed" in text for text in refused)
    wrong = sum(bool(text) for text in refused) - too_few
    print(
        f"{flown.factor}x {'rows' if flown.rows else 'squares':8s}{flown.peak:5.0f} {name:20s}"
        f" {np.median(of_learnt):14.3f} {np.quantile(of_learnt, 0.99):6.3f}"
        f" {np.median(all_errors):17.3f} {np.quantile(all_errors, 0.99):6.3f}"
        f" {np.mean(expected) if expected else np.nan:9.3f}"
        f" {np.mean(left_out) if left_out else np.nan:13.0%}"
        f"  {too_few} untold, {wrong} wrongly of {len(refused)} {np.median(spent):6.1f}",
        flush=True,
    )
    for text in refused:
        if text and "rows are placed" not in text:
            print(f"    refused: {text}")


Poison = Callable[[SimulatedPair, SimulatedPair, np.random.Generator], tuple[np.ndarray, ...]]
"""Makes other counts, coarse and fine, of a pair and one of another sample."""


def _counts(made: SimulatedPair) -> tuple[np.ndarray, np.ndarray]:
    return made.coarse.counts.values, made.fine.counts.values


def _ratio(made: SimulatedPair) -> tuple[int, int]:
    coarse, fine = made.coarse.grid.shape, made.fine.grid.shape
    return fine[0] // coarse[0], fine[1] // coarse[1]


def _of_coarse(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Poison:
    return lambda made, _, rng: (change(_counts(made)[0], rng), _counts(made)[1])


def _of_fine(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Poison:
    return lambda made, _, rng: (_counts(made)[0], change(_counts(made)[1], rng))


def _clipped(maps: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.minimum(maps, np.round(0.4 * maps.max(axis=(1, 2), keepdims=True)))


def _saturated(maps: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return np.where(maps > 0.6 * maps.max(axis=(1, 2), keepdims=True), 0.0, maps)


def _holes(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(maps.shape[1:]) < 0.6, np.nan, maps)


def _dead(maps: np.ndarray, _: np.random.Generator) -> np.ndarray:
    return maps * (maps.sum(axis=(1, 2), keepdims=True) < maps.sum(axis=(1, 2)).max())


def _noise(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mean = np.broadcast_to(maps.mean(axis=(1, 2), keepdims=True), maps.shape)
    return rng.poisson(mean).astype(float)


def _shuffled(maps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return maps[:, rng.permutation(maps.shape[1])]


def _zoomed(times: float) -> Callable[[np.ndarray, np.random.Generator], np.ndarray]:
    def change(maps: np.ndarray, _: np.random.Generator) -> np.ndarray:
        middle = [(size - 1) / 2 for size in maps.shape[1:]]
        places = [
            (axis - half) * times + half
            for axis, half in zip(np.mgrid[: maps.shape[1], : maps.shape[2]], middle, strict=True)
        ]
        return np.array(
            [ndimage.map_coordinates(plane, places, order=0, mode="nearest") for plane in maps]
        )

    return change


def _interpolated(made: SimulatedPair) -> np.ndarray:
    zoom = (1, *_ratio(made))
    coarse = _counts(made)[0]
    return np.clip(ndimage.zoom(coarse, zoom, order=3, grid_mode=True, mode="nearest"), 0, None)


def _other_probe(made: SimulatedPair, rng: np.random.Generator) -> np.ndarray:
    widths = tuple(10.0 / times for times in _ratio(made))
    return rng.poisson(probe_blur(_counts(made)[0], 1.0, (widths[0], widths[1]))).astype(float)


POISONS: dict[str, Poison] = {
    "other sample": lambda made, other, _: (_counts(made)[0], _counts(other)[1]),
    "fine map of zeros": _of_fine(lambda maps, _: 0 * maps),
    "coarse map of zeros": _of_coarse(lambda maps, _: 0 * maps),
    "two elements swapped": _of_fine(lambda maps, _: maps[[1, 0, *range(2, len(maps))]]),
    "fine map x 1000": _of_fine(lambda maps, _: 1000 * maps),
    "both in counts/s": lambda made, *_: tuple(100 * maps for maps in _counts(made)),
    "fine map in counts/s of 2.5 s": _of_fine(lambda maps, _: maps / 2.5),
    "coarse map / 5": _of_coarse(lambda maps, _: maps / 5),
    "fine map clipped": _of_fine(_clipped),
    "coarse map clipped": _of_coarse(_clipped),
    "fine map repeats the coarse one": lambda made, *_: (
        _counts(made)[0],
        repeat(_counts(made)[0], _ratio(made)),
    ),
    "fine map interpolated": lambda made, *_: (_counts(made)[0], _interpolated(made)),
    "coarse map binned": lambda made, *_: (
        block_mean(_counts(made)[1], _ratio(made)),
        _counts(made)[1],
    ),
    "mirrored along x": _of_fine(lambda maps, _: maps[:, :, ::-1]),
    "mirrored along y": _of_fine(lambda maps, _: maps[:, ::-1]),
    "transposed": _of_fine(lambda maps, _: maps.swapaxes(1, 2)),
    "turned by 90 degrees": _of_fine(lambda maps, _: np.rot90(maps, 1, (1, 2))),
    "noise only": lambda made, _, rng: tuple(_noise(maps, rng) for maps in _counts(made)),
    "fine map constant": _of_fine(lambda maps, _: 0 * maps + 7),
    "an element dead": _of_fine(_dead),
    "coarse map saturated": _of_coarse(_saturated),
    "fine map saturated": _of_fine(_saturated),
    "most pixels missing": _of_fine(_holes),
    "rows of the fine map shuffled": _of_fine(_shuffled),
    "rows of the coarse map shuffled": _of_coarse(_shuffled),
    "step 10 % wrong": _of_coarse(_zoomed(1.1)),
    "step half of what it is": _of_coarse(_zoomed(0.5)),
    "probe of 10 fine pixels": lambda made, _, rng: (_other_probe(made, rng), _counts(made)[1]),
}


def _with(maps: ElementalMaps, counts: np.ndarray) -> ElementalMaps:
    return ElementalMaps.from_arrays(counts, maps.grid, maps.elements, **maps.attrs)


def poison_table(per_family: int, ways: Sequence[str]) -> None:
    """Print how many poisoned pairs are accepted."""
    print("poisoned pairs (100 photons, drift + row shifts): accepted of all, and what is said")
    families = list(FAMILIES)
    total = accepted = 0
    for name, poison in POISONS.items():
        said: dict[str, int] = {}
        for factor, rows in map(WAYS.__getitem__, ways):
            flown = Flown(factor, rows, 100.0, *DRIFTS["drift + row shifts"])
            for number, family in enumerate(families):
                for seed in range(per_family):
                    made = pair(family, seed, flown)
                    other = pair(families[(number + 1) % len(families)], seed, flown)
                    counts = poison(made, other, np.random.default_rng(seed))
                    found = register(_with(made.coarse, counts[0]), _with(made.fine, counts[1]))
                    said[found.problem] = said.get(found.problem, 0) + 1
        total, accepted = total + sum(said.values()), accepted + said.get("", 0)
        example = next((text for text in said if text), "")
        print(f"{name:32s} {said.get('', 0):3d} of {sum(said.values())}  {example}", flush=True)
    print(f"all: {accepted} of {total} accepted")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--per-family", type=int, default=2, help="pairs of each family and case")
    parser.add_argument("--poisoned", type=int, default=1, help="of each family and way")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--peaks", type=float, nargs="+", default=PEAKS)
    parser.add_argument("--drifts", nargs="+", choices=list(DRIFTS), default=list(DRIFTS))
    parser.add_argument("--only", choices=("errors", "poisoned"))
    options = parser.parse_args()
    if options.only != "poisoned":
        error_table(options.per_family, options.ways, options.peaks, options.drifts)
    if options.only != "errors":
        poison_table(options.poisoned, options.ways)


if __name__ == "__main__":
    main()
