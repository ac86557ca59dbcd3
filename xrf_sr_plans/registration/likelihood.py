"""`compare`: what a coarse map says about where its rows lie in a fine one.

The model is that of counting: coarse counts are those expected from the fine map, with a gain of
each element, and with a variance that is their mean, or more where the maps disagree by more. Two
more numbers of each element say by how much the denoised fine map is smoother or sharper than the
coarse one, along x and y. Without them a single blurred grain would look like a shrunken one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.registration.denoised import Denoised
from xrf_sr_plans.registration.template import Expected, Template, Warp

HUBER = 3.0
"""Standard deviations from which a pixel's disagreement counts linearly, not as its square: P. J.
Huber, Ann. Math. Stat. 35 (1964) 73, DOI 10.1214/aoms/1177703732."""
_GAIN_SPREAD, _BLUR_PX2 = 1e3, 1.0
"""One standard deviation of what is expected beforehand, relative to the gain."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a coarse map says about a warp.

    Parameters
    ----------
    information
        Expected second derivatives of the log-likelihood by `Warp.parameters`, their sign changed,
        gains and blur fitted along.
    score
        Its first derivatives.
    gain
        Counts of a coarse pixel per count of a fine one (element,).
    blur_px2
        By how much the coarse map is more blurred than the denoised fine map along x and y
        (element, 2): the difference of the variances, halved.
    expected
        Counts of the coarse map as the fine one predicts them (element, y, x).
    used
        Which pixels were compared (element, y, x).
    chi2
        Mean square of the difference over the variance of counting (element,).
    honesty
        By how much the noise of the fine map, taken for structure, exaggerates the information of
        each row along x and y (row, 2): 1 not at all, 0 it is all there is.
    excess
        How many times larger the squared score of the rows is along x and y than it would be if
        the model were right (2,).
    """

    information: np.ndarray
    score: np.ndarray
    gain: np.ndarray
    blur_px2: np.ndarray
    expected: np.ndarray
    used: np.ndarray
    chi2: np.ndarray
    honesty: np.ndarray
    excess: np.ndarray


def compare(
    coarse: np.ndarray,
    template: Template,
    fine: Denoised,
    warp: Warp,
    start: tuple[np.ndarray, np.ndarray] | None = None,
) -> Comparison:
    """Compare a coarse map (element, y, x), NaN where unmeasured, with a fine one.

    `start` are gain and blur that were found before.
    """
    told = template.expected(warp)
    used = np.isfinite(coarse) & told.inside
    counts = np.where(used, coarse, 0.0)
    shapes = np.stack([told.values, told.by_xx, told.by_yy], axis=1)
    if start is None:
        seen = np.where(used, np.clip(told.values, 0, None), 0.0)
        gain = counts.sum((1, 2)) / np.maximum(seen.sum((1, 2)), 1e-9)
        start = gain, np.zeros((len(gain), 2))
    factors = np.concatenate([start[0][:, None], start[1] * start[0][:, None]], axis=1)
    floor = 0.05 * counts.mean((1, 2), keepdims=True) + 0.05
    for _ in range(2):
        expected = np.clip(np.einsum("ek,ekyx->eyx", factors, shapes), 0, None)
        weights, chi2 = _weights(counts, expected, floor, used)
        normal, factors = _fitted(counts, shapes, weights, factors[:, 0])
    expected = np.einsum("ek,ekyx->eyx", factors, shapes)
    left = np.where(used, counts - expected, 0.0)
    gain = factors[:, 0]
    slopes = _Slopes.of(told, template, warp, gain)
    information, score = slopes.moments(weights, left)
    honesty = slopes.honesty(weights, gain, told, fine, information)
    rows = len(warp.rows_px)
    own = np.diag(information)[: 2 * rows].reshape(2, rows).sum(axis=1)
    squares = np.square(score[: 2 * rows]).reshape(2, rows).sum(axis=1)
    cross = slopes.products(weights, shapes)
    lost = np.einsum("nek,ekm->nm", cross, np.linalg.solve(normal, cross.transpose(1, 2, 0)))
    return Comparison(
        information=information - lost,
        score=score,
        gain=gain,
        blur_px2=factors[:, 1:] / np.maximum(gain[:, None], 1e-9),
        expected=expected,
        used=used,
        chi2=chi2,
        honesty=honesty,
        excess=squares / np.maximum(own, 1e-9),
    )


def _weights(
    counts: np.ndarray, expected: np.ndarray, floor: np.ndarray, used: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weight of each pixel (element, y, x), and chi2 (element,)."""
    variance = expected + floor
    squares = np.where(used, (counts - expected) ** 2, 0.0)
    chi2 = (squares / variance).sum((1, 2)) / np.maximum(used.sum((1, 2)), 1)
    weights = used / (variance * np.maximum(chi2, 1.0)[:, None, None])
    return weights * np.minimum(1.0, HUBER / np.sqrt(np.maximum(squares * weights, 1e-9))), chi2


def _fitted(
    counts: np.ndarray, shapes: np.ndarray, weights: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the normal matrices (element, 3, 3) of gain and blur, and what fits best."""
    spread = np.array([_GAIN_SPREAD, _BLUR_PX2, _BLUR_PX2]) * np.maximum(gain[:, None], 1e-9)
    normal = np.einsum("eyx,ekyx,elyx->ekl", weights, shapes, shapes, optimize=True)
    normal = normal + np.eye(3) / np.square(spread)[:, None]
    right = np.einsum("eyx,ekyx->ek", weights * counts, shapes)
    return normal, np.linalg.solve(normal, right[..., None])[..., 0]


@dataclass(frozen=True, eq=False)
class _Slopes:
    """Derivatives of the expected counts by a row's displacement along x, along y, and the stretch.

    Each is (element, y, x).
    """

    by_x: np.ndarray
    by_y: np.ndarray
    by_stretch: np.ndarray

    @classmethod
    def of(cls, told: Expected, template: Template, warp: Warp, gain: np.ndarray) -> _Slopes:
        by_x = -gain[:, None, None] * told.by_x / (1 + warp.stretch)
        by_y = -gain[:, None, None] * told.by_y
        return cls(by_x, by_y, by_x * (told.across_px - template.layout.middle_px(1)))

    def moments(self, weights: np.ndarray, left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return information and score of `Warp.parameters`."""
        rows = weights.shape[1]
        x, y = np.arange(rows), rows + np.arange(rows)
        odd = np.arange(rows) % 2
        xx, xy, yy, xs, ys, ss = (
            np.einsum("eyx,eyx,eyx->y", weights, one, other)
            for one, other in (
                (self.by_x, self.by_x),
                (self.by_x, self.by_y),
                (self.by_y, self.by_y),
                (self.by_x, self.by_stretch),
                (self.by_y, self.by_stretch),
                (self.by_stretch, self.by_stretch),
            )
        )
        made = np.zeros((2 * rows + 2, 2 * rows + 2))
        made[x, x], made[y, y], made[-1, -1], made[-2, -2] = xx, yy, ss.sum(), xx[1::2].sum()
        made[x, y] = made[y, x] = xy
        made[x, -1] = made[-1, x] = xs
        made[y, -1] = made[-1, y] = ys
        made[x, -2] = made[-2, x] = odd * xx
        made[y, -2] = made[-2, y] = odd * xy
        made[-1, -2] = made[-2, -1] = xs[1::2].sum()
        along = [np.einsum("eyx,eyx->y", weights * left, one) for one in (self.by_x, self.by_y)]
        stretch = (weights * left * self.by_stretch).sum()
        return made, np.concatenate([*along, [along[0][1::2].sum(), stretch]])

    def products(self, weights: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Return how parameters go along with gain and blur, (parameter, element, 3)."""
        along = [
            np.einsum("eyx,ekyx->yek", weights * one, shapes) for one in (self.by_x, self.by_y)
        ]
        stretch = np.einsum("eyx,ekyx->ek", weights * self.by_stretch, shapes)
        return np.concatenate([*along, [along[0][1::2].sum(axis=0), stretch]])

    def honesty(
        self,
        weights: np.ndarray,
        gain: np.ndarray,
        told: Expected,
        fine: Denoised,
        information: np.ndarray,
    ) -> np.ndarray:
        """Return the share (row, 2) of each row's information that isn't noise of the fine map."""
        height, width = fine.counts.shape[1:]
        y = np.clip(np.rint(told.rows_px).astype(int), 0, height - 1)[:, None]
        x = np.clip(np.rint(told.across_px).astype(int), 0, width - 1)
        squared = weights * np.square(gain)[:, None, None]
        noise = np.einsum("eyx,edyx->dy", squared, fine.slope_variance[:, :, y, x]).ravel()
        own = np.diag(information)[:-2]
        return np.clip(1 - noise / np.maximum(own, 1e-9), 0, 1).reshape(2, -1).T
