"""What keeps a pair from being learnt from: one function for each reason.

Each takes an `Evidence` and returns the reason in words, with numbers, or "" where there is none.
`FATAL` and `BEFORE` are asked before the maps are laid on each other, which after a fatal one isn't
tried; `AFTER` are asked afterwards. Their limits are such that of simulated good pairs hardly any
is refused (benchmarks/registration.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.photon_step import photon_step, relative_noise
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.registration.agreement import Agreement, likeness
from xrf_sr_plans.registration.fit import Fit
from xrf_sr_plans.registration.template import Layout

MIN_PIXELS = 4
"""Fewest coarse pixels along an axis from which a displacement can be found."""
LEAST_MEASURED = 0.5
"""Share of the pixels of either map that has to be measured."""
LEAST_PHOTONS = 30.0
"""Photons of an element in one map that the other one can't lack by chance."""
LEAST_NOISE = 0.35
"""Variance of the noise, relative to that of photons, below which values are no photons."""
CLIPPED_PIXELS, CLIPPED_TIMES = 8, 4.0
"""Pixels at the very same highest value, and how many times more than at the next lower ones, from
which a map is clipped."""
SATURATED_PIXELS, SATURATED_SHARE, SATURATED_PHOTONS = 4, 0.02, 30.0
"""Number and share of pixels without a photon, among those where at least so many photons are
expected, from which the detector was saturated."""
SAME_BLOCKS = 0.5
"""Share of the blocks of equal fine pixels from which a fine map repeats a coarser one."""
MOST_UNEXPLAINED, MOST_CHI2 = 0.5, 1.3
"""Share of an element's structure that may be left unexplained, if the difference is more than so
many times the noise: weak structure is lost with the noise of the fine map."""
SWAPPED_UNEXPLAINED = 0.15
"""The same share, where another element explains more than half of it."""
MOST_GAIN = 1.5
"""How many times more or fewer photons a second a map may count than the other one."""
MOST_STRETCH = 0.03
"""Difference of the lengths of both maps from which a step is taken for wrong."""
LEAST_OVERLAP = 0.6
"""Share of the coarse map that has to be seen in the fine one."""
MOST_BLUR_PX2 = 0.35, 3.0
"""By how much the coarse map, and the fine one, may be blurred more than the other one: the
difference of the variances of both blurs, halved, in fine pixels squared. The fine map is denoised
before, so it always is the more blurred one by some."""
MOST_ROW_ERROR_PX = 0.15
"""Standard deviation of a row's displacement above which nothing is learnt from the row."""
LEAST_ROWS = 0.5
"""Share of the rows that have to be known better than that."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the checks look at.

    Parameters
    ----------
    elements
        Names of the elements.
    coarse, fine
        Photons (element, y, x); NaN where nothing was measured.
    layout
        How both lie on each other where nothing is displaced.
    gain
        How many counts of a coarse pixel one of a fine pixel stands for, by their times; None:
        unknown.
    fit
        How they lie on each other; None before that.
    """

    elements: Sequence[str]
    coarse: np.ndarray
    fine: np.ndarray
    layout: Layout
    gain: float | None = None
    fit: Fit | None = None

    @property
    def fitted(self) -> Fit:
        """The fit, where there is one."""
        assert self.fit is not None, "asked after the fit only"
        return self.fit

    @property
    def agreement(self) -> Agreement:
        """How the maps agree once they lie on each other."""
        made = self.fitted.comparison
        return Agreement.of(self.coarse, made.expected, made.used)

    @property
    def maps(self) -> tuple[tuple[str, np.ndarray], ...]:
        """Both maps with their names."""
        return ("coarse", self.coarse), ("fine", self.fine)


Check = Callable[[Evidence], str]


def too_small(pair: Evidence) -> str:
    """Find too few pixels for a displacement to show."""
    if min(pair.layout.shape) >= MIN_PIXELS:
        return ""
    return f"too small: {pair.layout.shape} coarse pixels; at least {MIN_PIXELS} along each axis"


def unmeasured(pair: Evidence) -> str:
    """Find maps of which too much is missing."""
    for name, maps in pair.maps:
        share = float(np.isfinite(maps).all(axis=0).mean())
        if share < LEAST_MEASURED:
            return f"only {share:.0%} of the {name} map is measured; at least {LEAST_MEASURED:.0%}"
    return ""


def nothing_counted(pair: Evidence) -> str:
    """Find a map without photons, or with the same value everywhere."""
    for name, maps in pair.maps:
        if not np.nansum(maps) > 0:
            return f"the {name} map has no photons"
        if all(np.nanmin(plane) == np.nanmax(plane) for plane in maps):
            return f"the {name} map has the same value everywhere"
    return ""


def dead_element(pair: Evidence) -> str:
    """Find an element that is in one map, and not in the other one."""
    coarse, fine = (np.nanmean(maps, axis=(1, 2)) for _, maps in pair.maps)
    gain = coarse.sum() / fine.sum()
    sizes = [np.isfinite(maps).all(axis=0).sum() for _, maps in pair.maps]
    for name, in_coarse, in_fine in zip(pair.elements, coarse, fine, strict=True):
        expected = gain * in_fine * sizes[0], in_coarse / gain * sizes[1]
        counted = in_coarse * sizes[0], in_fine * sizes[1]
        for which, told, seen in zip(("coarse", "fine"), expected, counted, strict=True):
            if told > LEAST_PHOTONS and seen < 0.01 * told:
                return f"{name} has {seen:.3g} photons in the {which} map instead of {told:.3g}"
    return ""


def no_photons(pair: Evidence) -> str:
    """Find values that are multiples of something else, or that fluctuate less than photons."""
    for name, maps in pair.maps:
        step = photon_step(maps)
        if step is not None and abs(step - 1) > 0.01:
            return f"the {name} map's values are multiples of {step:.4g}: these are no photons"
        noise = relative_noise(maps)
        if noise < LEAST_NOISE:
            return (
                f"the {name} map fluctuates {1 / max(noise, 1e-3):.3g} times less than photons do:"
                " its unit is another one, or it was smoothed"
            )
    return ""


def clipped(pair: Evidence) -> str:
    """Find many pixels with the very same highest value."""
    for name, maps in pair.maps:
        for element, plane in zip(pair.elements, maps, strict=True):
            values, times = np.unique(plane[np.isfinite(plane)], return_counts=True)
            if len(values) < 8:
                continue
            if times[-1] >= CLIPPED_PIXELS and times[-1] > CLIPPED_TIMES * times[-4:-1].mean():
                return f"{element} of the {name} map is {values[-1]:.4g} in {times[-1]} pixels"
    return ""


def repeated(pair: Evidence) -> str:
    """Find a fine map that is a coarse one, each pixel of it repeated."""
    rows, columns = pair.layout.ratio
    height, width = pair.layout.shape
    blocks = pair.fine.reshape(len(pair.fine), height, rows, width, columns)
    spread = blocks.max(axis=(2, 4)) - blocks.min(axis=(2, 4))
    bright = blocks.mean(axis=(2, 4)) > 1
    if bright.sum() < 20:
        return ""
    share = float((spread[bright] == 0).mean())
    return f"{share:.0%} of the fine map's blocks have equal pixels" if share > SAME_BLOCKS else ""


def copied(pair: Evidence) -> str:
    """Find a coarse map that was computed from the fine one, and has no noise of its own."""
    rows, columns = pair.layout.ratio
    for what, made in (
        ("means", block_mean(pair.fine, pair.layout.ratio)),
        ("pixels", pair.fine[:, ::rows, ::columns]),
    ):
        known = np.isfinite(made) & np.isfinite(pair.coarse)
        one, other = made[known], pair.coarse[known]
        if (one > 0).sum() < 20:
            continue
        gain = float(one @ other) / float(one @ one)
        noise = float(np.mean((other - gain * one) ** 2)) / max(float(other.mean()), 1e-9)
        if noise < LEAST_NOISE:
            return (
                f"the coarse map is {gain:.3g} times the {what} of the fine one, with {noise:.2g}"
                " of the noise that photons have: one was computed from the other"
            )
    return ""


def elsewhere(pair: Evidence) -> str:
    """Find maps that share too little."""
    rows, across = pair.fitted.comparison.used.any(axis=0).mean(), pair.fitted.warp
    if rows >= LEAST_OVERLAP:
        return ""
    x, y = across.rows_px.mean(axis=0)
    return f"only {rows:.0%} of the coarse map is in the fine one: it lies {x:.0f}, {y:.0f} px off"


def wrong_step(pair: Evidence) -> str:
    """Find lengths that are others in one map than in the other one."""
    warp, rows = pair.fitted.warp, pair.layout.fine_shape[0]
    along_y = np.polyfit(pair.layout.centers_px(0), warp.rows_px[:, 1], 1)[0] if rows > 1 else 0.0
    for axis, stretch in (("x", warp.stretch), ("y", along_y)):
        if abs(stretch) > MOST_STRETCH:
            return f"lengths along {axis} differ by {stretch:+.1%}: is a step wrong?"
    return ""


def swapped(pair: Evidence) -> str:
    """Find an element of one map that is another element of the other one."""
    made, agreement = pair.fitted.comparison, pair.agreement
    suspect = agreement.structured & (agreement.unexplained > SWAPPED_UNEXPLAINED)
    for index in map(int, np.flatnonzero(suspect & (made.chi2 > MOST_CHI2))):
        counts, used = pair.coarse[index], made.used[index]
        for other in range(len(pair.elements)):
            told = made.expected[other]
            if other == index or not told[used].std() > 0:
                continue
            slope = np.cov(counts[used], told[used])[0, 1] / told[used].var()
            moved = slope * (told - told[used].mean()) + counts[used].mean()
            try_it = Agreement.of(counts[None], moved[None], used[None])
            enough = min(0.5 * agreement.unexplained[index], MOST_UNEXPLAINED)
            if slope > 0 and try_it.unexplained[0] < enough:
                return (
                    f"{pair.elements[index]} of the coarse map looks like {pair.elements[other]}"
                    " of the fine one: elements are swapped"
                )
    return ""


_TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mirrored along x": lambda maps: maps[:, :, ::-1],
    "mirrored along y": lambda maps: maps[:, ::-1],
    "turned by 180 degrees": lambda maps: maps[:, ::-1, ::-1],
    "transposed": lambda maps: maps.swapaxes(1, 2),
    "turned by 90 degrees": lambda maps: np.rot90(maps, 1, (1, 2)),
    "turned by -90 degrees": lambda maps: np.rot90(maps, -1, (1, 2)),
    "transposed and turned by 180 degrees": lambda maps: np.rot90(maps, 2, (1, 2)).swapaxes(1, 2),
}


def disagreeing(pair: Evidence) -> str:
    """Find what one map shows and the other one doesn't predict."""
    agreement = pair.agreement
    suspect = agreement.structured & (pair.fitted.comparison.chi2 > MOST_CHI2)
    if not suspect.any():
        return ""
    left = np.where(suspect, agreement.unexplained, -np.inf)
    worst = int(left.argmax())
    if not left[worst] > MOST_UNEXPLAINED:
        return ""
    return (
        f"{left[worst]:.0%} of what the coarse map shows of {pair.elements[worst]} isn't what the"
        f" fine one predicts{_turned(pair)}"
    )


def _turned(pair: Evidence) -> str:
    """Return which way of turning the fine map makes both much more alike, or nothing."""
    rows, columns = pair.layout.shape
    coarse, fine = np.nan_to_num(pair.coarse), np.nan_to_num(pair.fine)
    if columns > rows:  # pixels of rows are shorter than the rows are apart
        every = pair.layout.ratio[0] // pair.layout.ratio[1]
        coarse = block_mean(coarse[..., : columns // every * every], (1, every))
    fine = block_mean(fine, pair.layout.ratio[0])
    if coarse.shape[1] != coarse.shape[2]:
        side = min(coarse.shape[1:])
        coarse, fine = coarse[:, :side, :side], fine[:, :side, :side]
    as_it_is = likeness(coarse, fine)
    best = max(_TURNS, key=lambda name: likeness(coarse, _TURNS[name](fine)))
    alike = likeness(coarse, _TURNS[best](fine))
    return f"; is one of them {best}?" if alike > max(0.5, as_it_is + 0.2) else ""


def saturated(pair: Evidence) -> str:
    """Find pixels of the coarse map without any photon where the fine one predicts many."""
    made = pair.fitted.comparison
    for element, counts, expected, used in zip(
        pair.elements, pair.coarse, made.expected, made.used, strict=True
    ):
        bright = used & (expected > max(SATURATED_PHOTONS, 0.5 * np.max(expected, initial=0.0)))
        silent = int((bright & (counts == 0)).sum())
        # Where the rest disagrees as well, it isn't the detector.
        rest = Agreement.of(counts[None], expected[None], (used & ~(bright & (counts == 0)))[None])
        enough = silent >= max(SATURATED_PIXELS, SATURATED_SHARE * bright.sum())
        if enough and rest.correlation[0] > 0.5:
            return (
                f"{element} of the coarse map has no photon in {silent} of the {int(bright.sum())}"
                " pixels that should be the brightest"
            )
    return ""


def wrong_gain(pair: Evidence) -> str:
    """Find a map that counts many more photons a second than the other one."""
    structured = pair.agreement.structured
    if pair.gain is None or not structured.any():
        return ""
    ratio = float(np.median(pair.fitted.comparison.gain[structured])) / pair.gain
    if 1 / MOST_GAIN < ratio < MOST_GAIN:
        return ""
    return f"the coarse map counts {ratio:.3g} times as many photons a second as the fine one"


def other_blur(pair: Evidence) -> str:
    """Find a map that is much more blurred than the other one."""
    made, structured = pair.fitted.comparison, pair.agreement.structured
    if not structured.any():
        return ""
    blur = np.median(made.blur_px2[structured], axis=0)
    for name, excess, most in zip(("coarse", "fine"), (blur, -blur), MOST_BLUR_PX2, strict=True):
        if excess.max() > most:
            width = np.sqrt(2 * excess.max())
            return (
                f"the {name} map is blurred by {width:.2g} fine px more: another probe, or focus?"
            )
    return ""


def row_errors_px(fit: Fit) -> np.ndarray:
    """Return one standard deviation of each row's displacement, the larger of x and y (row,)."""
    return fit.row_errors_px.max(axis=1)


def not_told(pair: Evidence) -> str:
    """Find too few photons, or too little structure, to tell where the rows lie."""
    errors = row_errors_px(pair.fitted)
    told = int((errors <= MOST_ROW_ERROR_PX).sum())
    if told >= LEAST_ROWS * len(errors):
        return ""
    return (
        f"only {told} of {len(errors)} rows are placed to {MOST_ROW_ERROR_PX:g} fine px; at least"
        f" {LEAST_ROWS:.0%} are needed (expected error {np.sqrt(np.mean(errors**2)):.2g} px)"
    )


FATAL: tuple[Check, ...] = (too_small, unmeasured, nothing_counted)
BEFORE: tuple[Check, ...] = (dead_element, repeated, clipped, copied, no_photons)
AFTER: tuple[Check, ...] = (
    elsewhere,
    saturated,
    swapped,
    disagreeing,
    wrong_step,
    wrong_gain,
    other_blur,
    not_told,
)


def first_problem(pair: Evidence, checks: Sequence[Check]) -> str:
    """Return what the first check says that finds something, or ""."""
    return next((text for check in checks if (text := check(pair))), "")
