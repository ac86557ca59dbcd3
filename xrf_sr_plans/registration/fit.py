"""`fit`: the displacements of a coarse map's rows, by maximum likelihood with a smooth drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.registration.denoised import Denoised
from xrf_sr_plans.registration.drift import Posterior, posterior
from xrf_sr_plans.registration.likelihood import Comparison, compare
from xrf_sr_plans.registration.search import rough_warp
from xrf_sr_plans.registration.template import Layout, Template, Warp

MOST_ROUNDS, TRUSTING_ROUNDS = 14, 5
"""Rounds at most, and those that take the model for right: while the rows still lie wrong, their
score says nothing about it."""
_MOST_STEP_PX, _SMALL_STEP_PX = 1.5, 0.003
FIDUCIAL_PX = 0.1
"""One standard deviation of where a fiducial lies, in fine pixels."""


@dataclass(frozen=True)
class Fiducial:
    """A feature that was found in both maps: its places along (x, y), in indices of fine pixels."""

    fine_px: tuple[float, float]
    coarse_px: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Fit:
    """The displacements that were found, their covariance, and how the maps agree then."""

    warp: Warp
    covariance: np.ndarray
    comparison: Comparison

    @property
    def row_errors_px(self) -> np.ndarray:
        """One standard deviation of each row's displacement along x and y (row, 2)."""
        return np.sqrt(np.diag(self.covariance)[:-2].reshape(2, -1).T)


def fit(
    coarse: np.ndarray,
    fine: Denoised,
    layout: Layout,
    start_px: np.ndarray,
    fiducials: Sequence[Fiducial] = (),
) -> Fit:
    """Return how the rows of a coarse map (element, y, x) are displaced from a fine one.

    Steps of Newton with the expected information, as weighed by `_tempered`, towards the mean of
    `posterior`.

    Parameters
    ----------
    coarse
        Photons, NaN where nothing was measured.
    fine
        The fine map.
    layout
        How both lie on each other where nothing is displaced.
    start_px
        Roughly how far along (x, y) the coarse map is displaced, in fine pixels.
    fiducials
        Features whose places are known.
    """
    template = Template.of(fine.counts, layout)
    warp = rough_warp(coarse, template, start_px)
    made = compare(coarse, template, fine, warp)
    found = Posterior(warp.parameters, np.zeros(made.information.shape))
    for turn in range(MOST_ROUNDS):
        excess = np.ones(2) if turn < TRUSTING_ROUNDS else np.maximum(made.excess, 1.0)
        information, score = _tempered(made, excess)
        parameters = warp.parameters
        for fiducial in fiducials:
            _add_fiducial(information, score, parameters, fiducial, layout)
        found = posterior(information, score, parameters)
        step = found.mean - parameters
        size = float(np.abs(step[:-1]).max())
        step *= min(1.0, _MOST_STEP_PX / max(size, 1e-9))
        warp = Warp.of(parameters + step)
        made = compare(coarse, template, fine, warp, (made.gain, made.blur_px2))
        if size < _SMALL_STEP_PX and turn > TRUSTING_ROUNDS:
            break
    return Fit(warp, found.covariance, made)


def _tempered(made: Comparison, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return information and score that are worth what they say.

    Where noise of the fine map was taken for structure, the true information H is a share of the
    apparent one, J, which is the variance of the score. What such a score is worth is H / J of
    itself, and H^2 / J of information: V. P. Godambe, Ann. Math. Stat. 31 (1960) 1208,
    DOI 10.1214/aoms/1177705693. Both are divided by how much the score of the rows scatters beyond
    that.
    """
    rows = len(made.honesty)
    share = np.sqrt(np.mean(made.honesty[:, 0] ** 2))
    honesty = np.concatenate([made.honesty.T.ravel(), [share, share]])
    spread = np.concatenate([np.repeat(excess, rows), excess[:1], excess[:1]])
    scale = honesty / np.sqrt(spread)
    return scale[:, None] * made.information * scale, honesty / spread * made.score


def _add_fiducial(
    information: np.ndarray,
    score: np.ndarray,
    parameters: np.ndarray,
    fiducial: Fiducial,
    layout: Layout,
) -> None:
    """Add what a fiducial says to information and score, in place."""
    rows = layout.shape[0]
    row = round((fiducial.coarse_px[1] - (layout.ratio[0] - 1) / 2) / layout.ratio[0])
    row = min(max(row, 0), rows - 1)
    for axis in range(2):
        by = np.zeros(len(parameters))
        by[axis * rows + row] = 1
        if axis == 0:
            by[-1] = fiducial.fine_px[0] - layout.middle_px(1)
            by[-2] = row % 2
        left = fiducial.coarse_px[axis] - fiducial.fine_px[axis] - by @ parameters
        information += np.outer(by, by) / FIDUCIAL_PX**2
        score += by * left / FIDUCIAL_PX**2
