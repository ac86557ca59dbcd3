"""`displacement`: how far a fine map is from where its stage coordinates say it is.

The fine map is slid over the prediction. For each displacement and element, what was measured is
regressed on what was predicted, so that a prediction that is blurred, too bright or too dim has
its best match in the same place. The profile likelihood of these regressions, with a noise of its
own for every element, is -n/2 times the sum over elements of ln(1 - r^2), where r is the
correlation and n the number of independent pixels. Its maximum is the displacement, its curvature
gives the error, and its value tells whether there is a match at all. Displacements by whole pixels
are compared in the Fourier domain with masks for what was not measured (D. Padfield, IEEE Trans.
Image Process. 21 (2012) 2706, DOI 10.1109/TIP.2011.2181402); the best one is refined on a spline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage, optimize, special

from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.usable import UsableCounts
from xrf_sr_plans.metrics.common_pixels import SAME_STEP, AreaAverage
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.resample import fill_unmeasured

REACH_COARSE_PX = 3.0
"""How far it is searched in all directions, in coarse pixels."""
LEAST_REACH_UM = 1.5
"""How far it is searched at least: what a change between two stages may be off, and a half more."""
MOST_REACH_PX = 64
"""How far it is searched at most, in pixels, so that it takes seconds."""
MOST_POINTS = 8192
"""Number of pixels that decide on parts of a pixel; more would only take longer."""
LEAST_PIXELS = 6
"""Shortest side of a fine map, in pixels, that can be placed."""
LEAST_OVERLAP = 0.6
"""Share of the fine map's pixels that must have a prediction at a displacement."""
_LEAST_NUMBER = LEAST_OVERLAP * LEAST_PIXELS**2
"""Least number of pixels that must have both."""
FALSE_MATCH = 1e-3
"""Chance at which noise alone may be taken for a match."""
LEAST_MARGIN = 4.6
"""By how much the log-likelihood of the best place must exceed that of any other one: 1 in 100."""
SYSTEMATIC_PX = 0.1
"""Error of every displacement besides what the curvature says, in pixels: predictions have their
details a little off, and not only by chance."""
_NEAR_COARSE_PX = 1.0
"""Distance in coarse pixels within which a place is not another one."""
_MOST_CORRELATED = 1 - 1e-9


@dataclass(frozen=True)
class Displacement:
    """How far a fine map is displaced from the prediction. Lengths are NaN where it is unknown."""

    dx_um: float
    """What is at x in the fine map is at x + dx_um in the prediction."""
    dy_um: float
    """What is at y in the fine map is at y + dy_um in the prediction."""
    error_x_um: float
    """One standard deviation of `dx_um`."""
    error_y_um: float
    """One standard deviation of `dy_um`."""
    correlation: float
    """Correlation of measured and predicted counts there, of the best element."""
    problem: str = ""
    """Why the displacement can't be relied on; empty where it can."""


def displacement(
    predicted: EnhancedMaps, fine: ElementalMaps, usable: UsableCounts, scale: np.ndarray
) -> Displacement:
    """Return how far a fine map is displaced from a prediction of the area around it.

    Parameters
    ----------
    predicted
        The prediction.
    fine
        The fine map, with at least one element of the prediction.
    usable
        Its counts that can be taken for photons.
    scale
        Factors (y, x) that turn its counts into photons per measured pixel.
    """
    if min(fine.grid.shape) < LEAST_PIXELS:
        return _unknown(f"fewer than {LEAST_PIXELS} pixels along an axis")
    planes = _Planes.of(predicted, fine, usable, scale)
    if min(planes.measured.shape[1:]) < LEAST_PIXELS:
        return _unknown(f"fewer than {LEAST_PIXELS} pixels along an axis")
    likelihood = planes.likelihood()
    if not np.isfinite(likelihood).any():
        return _unknown(planes.why_not_compared())
    best = np.unravel_index(np.nanargmax(likelihood), likelihood.shape)
    found = _refined(planes, np.array(best, dtype=float))
    problem = _problem(planes, likelihood, np.array(best)) or found.problem
    return replace(found, problem=problem)


def _unknown(problem: str) -> Displacement:
    nan = float("nan")
    return Displacement(nan, nan, nan, nan, nan, problem)


@dataclass(frozen=True, eq=False)
class _Planes:
    """Measured and predicted planes on one lattice, stabilized, without their means.

    `predicted` reaches `reach` pixels beyond `measured` on every side.
    """

    measured: np.ndarray
    """(element, y, x); NaN where it was not measured."""
    predicted: np.ndarray
    """(element, y + 2 reach, x + 2 reach); NaN where nothing is predicted."""
    reach: tuple[int, int]
    step_um: tuple[float, float]
    coarse_px: tuple[float, float]
    """The coarse step in pixels of this lattice (y, x)."""

    @classmethod
    def of(
        cls,
        predicted: EnhancedMaps,
        fine: ElementalMaps,
        usable: UsableCounts,
        scale: np.ndarray,
    ) -> _Planes:
        axes, reaches = [], []
        for own, whole in (
            (fine.grid.slow, predicted.grid.slow),
            (fine.grid.fast, predicted.grid.fast),
        ):
            axes.append(_lattice(own, whole.step_um))
            coarse_um = predicted.factor * whole.step_um
            reach_um = max(REACH_COARSE_PX * coarse_um, LEAST_REACH_UM)
            reaches.append(min(math.ceil(reach_um / axes[-1].step_um), MOST_REACH_PX))
        wider = [_widened(axis, reach) for axis, reach in zip(axes, reaches, strict=True)]
        average_measured = AreaAverage(fine.grid, _grid(axes))
        average_predicted = AreaAverage(predicted.grid, _grid(wider))
        unit = float(np.nanmedian(scale)) if np.isfinite(scale).any() else 1.0
        measured, expected = [], []
        for name in predicted.elements:
            if name in fine.elements:
                index = fine.elements.index(name)
                counts = usable.counts[index] * scale / unit
                measured.append(stabilise(average_measured(counts)))
                plane = predicted.estimate.sel(element=name).values.astype(float) / unit
                expected.append(stabilise(average_predicted(plane) + usable.background[index]))
        steps = axes[0].step_um, axes[1].step_um
        coarse_um = [predicted.factor * predicted.grid.slow.step_um]
        coarse_um.append(predicted.factor * predicted.grid.fast.step_um)
        return cls(
            _centered(np.stack(measured)),
            _centered(np.stack(expected)),
            (reaches[0], reaches[1]),
            steps,
            (max(coarse_um[0] / steps[0], 1.0), max(coarse_um[1] / steps[1], 1.0)),
        )

    def independent(self, index: int) -> float:
        """Return the number of independent pixels of an element.

        Predictions are right or wrong together within a coarse pixel. Where few bright pixels
        decide, only those count; in noise all of them do.
        """
        plane = np.nan_to_num(self.measured[index])
        squares, fourth = float((plane**2).sum()), float((plane**4).sum())
        pixels = float(np.isfinite(self.measured[index]).sum())
        deciding = min(3 * squares**2 / max(fourth, 1e-12), pixels)
        return max(deciding / (self.coarse_px[0] * self.coarse_px[1]), 1.0)

    def why_not_compared(self) -> str:
        """Return in words why too few pixels overlap, wherever the map may lie."""
        measured = int(np.isfinite(self.measured).sum(axis=(1, 2)).max(initial=0))
        if measured < _LEAST_NUMBER:
            return f"only {measured} pixels of it were measured"
        return "nothing was predicted there"

    def likelihood(self) -> np.ndarray:
        """Return the log-likelihood of each displacement by whole pixels.

        The array is (2 reach + 1, 2 reach + 1), 0 where nothing correlates and NaN where too few
        pixels overlap.
        """
        total = np.zeros([2 * reach + 1 for reach in self.reach])
        known = np.zeros(total.shape, dtype=bool)
        for index, (measured, predicted) in enumerate(
            zip(self.measured, self.predicted, strict=True)
        ):
            correlation = _masked_correlation(measured, predicted)
            known |= np.isfinite(correlation)
            used = np.clip(np.nan_to_num(correlation), 0, _MOST_CORRELATED)
            total -= self.independent(index) / 2 * np.log1p(-(used**2))
        return np.where(known, total, np.nan)


def _grid(axes: list[AxisGrid]) -> ScanGrid:
    return ScanGrid(replace(axes[1], name="x"), replace(axes[0], name="y"))


def _lattice(own: AxisGrid, step_um: float) -> AxisGrid:
    """Return the pixels to compare on: the fine map's, or as many of the predicted step in it."""
    if own.step_um >= SAME_STEP * step_um:
        return own
    num = max(math.floor((own.high_um - own.low_um) / step_um + 1e-6), 1)
    return AxisGrid(own.name, own.low_um + step_um / 2, step_um, num)


def _widened(axis: AxisGrid, reach: int) -> AxisGrid:
    return replace(axis, start_um=axis.start_um - reach * axis.step_um, num=axis.num + 2 * reach)


def _centered(planes: np.ndarray) -> np.ndarray:
    """Take off each plane's mean, so that sums of squares keep their digits."""
    known = np.isfinite(planes)
    sums = np.where(known, planes, 0.0).sum(axis=(1, 2))
    numbers = np.maximum(known.sum(axis=(1, 2)), 1)
    return planes - (sums / numbers)[:, None, None]


def _masked_correlation(measured: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the correlation at each displacement by whole pixels; NaN: too little overlap."""
    # Its import takes as long as that of all others here; a session waits for it at its start.
    from scipy.signal import fftconvolve

    known, wanted = np.isfinite(measured).astype(float), np.isfinite(predicted).astype(float)
    m, p = np.nan_to_num(measured), np.nan_to_num(predicted)

    def slid(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
        # Sums over the pixels of `moving` at every place inside `fixed`.
        return fftconvolve(fixed, moving[::-1, ::-1], mode="valid")

    number = np.rint(slid(wanted, known))
    enough = number >= max(LEAST_OVERLAP * known.sum(), _LEAST_NUMBER)
    safe = np.maximum(number, 1.0)
    sum_m, sum_p = slid(wanted, m), slid(p, known)
    covariance = slid(p, m) - sum_m * sum_p / safe
    spread_m = slid(wanted, m**2) - sum_m**2 / safe
    spread_p = slid(p**2, known) - sum_p**2 / safe
    product = np.clip(spread_m, 0, None) * np.clip(spread_p, 0, None)
    # Rounding errors of the transforms must not make a correlation of a flat plane.
    flat = product <= (1e-9 * max(float((m**2).sum() * (p**2).sum()), 1e-12))
    correlation = np.where(flat, 0.0, covariance / np.sqrt(np.where(flat, 1.0, product)))
    return np.where(enough, correlation, np.nan)


def _problem(planes: _Planes, likelihood: np.ndarray, best: np.ndarray) -> str:
    """Return in words why the best displacement is not to be relied on; "" where it is."""
    peak = likelihood[tuple(best)]
    chance = FALSE_MATCH / likelihood.size
    # Twice the log-likelihood of noise is like chi^2 with a degree of freedom per element.
    needed = special.gammainccinv(len(planes.measured) / 2, chance)
    if peak < needed:
        return "no structure in which it could be recognized"
    ends = np.array(likelihood.shape) - 1
    if (best == 0).any() or (best == ends).any():
        return "the best match lies at the end of what was searched"
    rows, columns = np.indices(likelihood.shape)
    distance = np.hypot(
        (rows - best[0]) / max(_NEAR_COARSE_PX * planes.coarse_px[0], 1.5),
        (columns - best[1]) / max(_NEAR_COARSE_PX * planes.coarse_px[1], 1.5),
    )
    far = distance > 1
    if (likelihood[far] > peak - LEAST_MARGIN).any():
        return "several places match about as well"
    return ""


class _Likelihood:
    """The log-likelihood of displacements by parts of a pixel, on a spline of the prediction."""

    def __init__(self, planes: _Planes) -> None:
        self._independent = np.array([planes.independent(n) for n in range(len(planes.measured))])
        self._known = np.isfinite(planes.predicted).astype(float)
        filled = fill_unmeasured(planes.predicted)
        self._spline = np.stack([ndimage.spline_filter(plane, order=3) for plane in filled])
        self._rows, self._columns = _points(planes.measured.shape[1:])
        self._measured = planes.measured[:, self._rows, self._columns]
        self.correlations = np.zeros(len(planes.measured))

    def __call__(self, place: np.ndarray) -> float:
        """Return it at a place (y, x) in pixels from the corner of what was searched."""
        # Each (point,), as are the measured values of an element.
        where = [self._rows + place[0], self._columns + place[1]]
        for index, measured in enumerate(self._measured):
            known = ndimage.map_coordinates(self._known[index], where, order=1) > 0.999
            known &= np.isfinite(measured)
            predicted = ndimage.map_coordinates(
                self._spline[index], where, order=3, prefilter=False, mode="nearest"
            )
            self.correlations[index] = _correlation(measured[known], predicted[known])
        used = np.clip(self.correlations, 0, _MOST_CORRELATED)
        return float(-self._independent / 2 @ np.log1p(-(used**2)))


def _points(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the pixels that are looked at, at most `MOST_POINTS`."""
    number = shape[0] * shape[1]
    if number <= MOST_POINTS:
        chosen = np.arange(number)
    else:
        # By chance, but always the same: a lattice would see only some phases of coarse pixels.
        chosen = np.sort(np.random.default_rng(0).choice(number, MOST_POINTS, replace=False))
    rows, columns = np.unravel_index(chosen, shape)
    return rows, columns


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    if one.size < LEAST_PIXELS:
        return 0.0
    one, other = one - one.mean(), other - other.mean()
    spread = float((one @ one) * (other @ other))
    return float(one @ other / math.sqrt(spread)) if spread > 1e-12 else 0.0


def _refined(planes: _Planes, place: np.ndarray) -> Displacement:
    """Return the maximum near a place by whole pixels, with its error from the curvature."""
    likelihood = _Likelihood(planes)
    corners = [place + offset for offset in ((0.0, 0.0), (0.4, 0.0), (0.0, 0.4))]
    found = optimize.minimize(
        lambda where: -likelihood(where),
        place,
        method="Nelder-Mead",
        bounds=[(at - 1.5, at + 1.5) for at in place],
        options={"initial_simplex": np.array(corners), "xatol": 0.01, "fatol": 0.01},
    ).x
    hessian = _hessian(likelihood, found, 0.25)
    likelihood(found)
    dy, dx = (found - planes.reach) * planes.step_um
    correlation = float(likelihood.correlations.max())
    if not (np.linalg.eigvalsh(hessian) < 0).all():
        nan = float("nan")
        return Displacement(float(dx), float(dy), nan, nan, correlation, "no clear maximum")
    errors = np.sqrt(np.diag(np.linalg.inv(-hessian)) + SYSTEMATIC_PX**2) * planes.step_um
    return Displacement(float(dx), float(dy), float(errors[1]), float(errors[0]), correlation)


def _hessian(likelihood: _Likelihood, place: np.ndarray, spacing: float) -> np.ndarray:
    """Return the Hessian (2, 2) of a paraboloid through 3 x 3 places."""
    offsets = spacing * np.array([(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)], dtype=float)
    values = np.array([likelihood(place + offset) for offset in offsets])
    y, x = offsets.T
    terms = np.stack([np.ones_like(y), y, x, y * y / 2, y * x, x * x / 2], axis=1)
    _, _, _, h_yy, h_yx, h_xx = np.linalg.lstsq(terms, values, rcond=None)[0]
    return np.array([[h_yy, h_yx], [h_yx, h_xx]])
