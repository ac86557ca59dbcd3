"""Ways in which a pair of maps can be wrong: pure functions on counts.

Each takes the counts (element, y, x) of a coarse and a fine map, and a generator, and returns both
as they are after the mishap. Counts stay whole numbers of photons where the mishap leaves photons.
`benchmarks/poison.py` has models learn from pairs that are all spoilt in one way.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

Maps = tuple[np.ndarray, np.ndarray]
Poison = Callable[[np.ndarray, np.ndarray, np.random.Generator], Maps]


def _of_fine(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Poison:
    """Return a mishap of the fine map alone."""

    def poison(coarse: np.ndarray, fine: np.ndarray, rng: np.random.Generator) -> Maps:
        return coarse, change(fine.astype(float), rng)

    return poison


def _repeated(coarse: np.ndarray, fine: np.ndarray, _rng: np.random.Generator) -> Maps:
    """Take the coarse map for the fine one, every pixel repeated."""
    times = fine.shape[1] // coarse.shape[1], fine.shape[2] // coarse.shape[2]
    level = fine.mean() / max(coarse.mean(), 1e-9)
    return coarse, np.rint(level * coarse.repeat(times[0], 1).repeat(times[1], 2))


def _interpolated(coarse: np.ndarray, fine: np.ndarray, _rng: np.random.Generator) -> Maps:
    """Take the coarse map for the fine one, interpolated."""
    zoom = 1, fine.shape[1] / coarse.shape[1], fine.shape[2] / coarse.shape[2]
    level = fine.mean() / max(coarse.mean(), 1e-9)
    smooth = ndimage.zoom(coarse.astype(float), zoom, order=1, mode="nearest", grid_mode=True)
    return coarse, np.rint(np.clip(level * smooth, 0, None))


def _other_sample(coarse: np.ndarray, fine: np.ndarray, rng: np.random.Generator) -> Maps:
    """Move the fine map so far that nothing of the coarse one is left, mirrored and reordered."""
    far = np.roll(fine, (fine.shape[1] // 2, fine.shape[2] // 3), axis=(1, 2))
    return coarse, np.ascontiguousarray(np.rot90(far, 2, axes=(1, 2))[rng.permutation(len(fine))])


def _coarse_saturated(coarse: np.ndarray, fine: np.ndarray, _rng: np.random.Generator) -> Maps:
    """Lose the brightest tenth of the coarse map, as a detector that gives up does."""
    limit = np.quantile(coarse, 0.9, axis=(1, 2), keepdims=True)
    return np.where(coarse > np.maximum(limit, 1), 0, coarse), fine


def _hot(fine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(fine.shape) < 0.03, 20 * fine + 50, fine)


def _dead(fine: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    fine = fine.copy()
    fine[0] = 0
    return fine


def _gaps(fine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(fine.shape[1:]) < 0.6, np.nan, fine)


def _stripes(fine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    gain = np.exp(rng.normal(0, 0.5, (1, fine.shape[1], 1)))
    return rng.poisson(fine * gain).astype(float)


def _sheared(fine: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    rows = [np.roll(fine[:, row], row // 6, axis=-1) for row in range(fine.shape[1])]
    return np.stack(rows, axis=1)


def _wrong_step(fine: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    height, width = fine.shape[1:]
    rows, columns = np.mgrid[0:height, 0:width]
    places = [
        np.clip(np.rint((index - size / 2) / 1.25 + size / 2).astype(int), 0, size - 1)
        for index, size in ((rows, height), (columns, width))
    ]
    return fine[:, places[0], places[1]]


def _blurred(fine: np.ndarray, rng: np.random.Generator, sigma: tuple[float, ...]) -> np.ndarray:
    return rng.poisson(ndimage.gaussian_filter(fine, (0, *sigma))).astype(float)


def _saturated(fine: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    limit = np.quantile(fine, 0.93, axis=(1, 2), keepdims=True)
    return np.where(fine > np.maximum(limit, 1), 0, fine)


def _gamma(fine: np.ndarray, _rng: np.random.Generator) -> np.ndarray:
    top = np.maximum(fine.max(axis=(1, 2), keepdims=True), 1)
    return np.rint(fine**2 / top)


POISONS: dict[str, Poison] = {
    "displaced by 5 pixels": _of_fine(lambda f, _: np.roll(f, (5, 3), axis=(1, 2))),
    "another sample": _other_sample,
    "zeros": _of_fine(lambda f, _: np.zeros_like(f)),
    "elements swapped": _of_fine(lambda f, _: np.roll(f, 1, axis=0)),
    "1000 times too many": _of_fine(lambda f, _: 1000 * f),
    "rates for photons": _of_fine(lambda f, _: f / 0.37),
    "wider probe": _of_fine(lambda f, rng: _blurred(f, rng, (2.0, 2.0))),
    "coarse map repeated": _repeated,
    "coarse map interpolated": _interpolated,
    "clipped": _of_fine(
        lambda f, _: np.minimum(f, np.quantile(f, 0.85, axis=(1, 2), keepdims=True))
    ),
    "mirrored": _of_fine(lambda f, _: f[..., ::-1].copy()),
    "transposed": _of_fine(lambda f, _: np.swapaxes(f, 1, 2).copy()),
    "upside down": _of_fine(lambda f, _: f[:, ::-1].copy()),
    "nothing but noise": _of_fine(
        lambda f, rng: rng.poisson(np.broadcast_to(f.mean(axis=(1, 2), keepdims=True), f.shape))
    ),
    "constant": _of_fine(
        lambda f, _: np.broadcast_to(np.rint(f.mean(axis=(1, 2), keepdims=True)), f.shape)
    ),
    "mostly unmeasured": _of_fine(_gaps),
    "saturated": _of_fine(_saturated),
    "coarse map saturated": _coarse_saturated,
    "rows shuffled": _of_fine(lambda f, rng: f[:, rng.permutation(f.shape[1])]),
    "wrong step": _of_fine(_wrong_step),
    "contrast inverted": _of_fine(lambda f, _: f.max(axis=(1, 2), keepdims=True) - f),
    "one element dead": _of_fine(_dead),
    "stripes": _of_fine(_stripes),
    "smeared along rows": _of_fine(lambda f, rng: _blurred(f, rng, (0.0, 3.0))),
    "hot pixels": _of_fine(_hot),
    "sheared by drift": _of_fine(_sheared),
    "contrast squared": _of_fine(_gamma),
    "background added": _of_fine(
        lambda f, rng: f + rng.poisson(3 * f.mean(axis=(1, 2), keepdims=True) + 20, f.shape)
    ),
}
"""Mishaps by name."""
