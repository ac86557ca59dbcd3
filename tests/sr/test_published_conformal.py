"""The conformal factors are those of a published implementation.

crepes: H. Boström, PMLR 179 (2022) 24, COPA 2022. What differs: where a group has too few scores
for the level (fewer than 19 for a tail of 5 %) the theory, and crepes, give an infinite interval;
ours takes the widest score, and `fit` never asks, since groups below 400 pixels borrow from their
neighbours. Where the rank comes out whole, crepes rounds (1 - 0.9) / 2 down and takes the next
wider score; no such size is tested here. Our factors are never negative, so that the estimate
itself always lies within.
"""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.sr.conformal import Scores, conformal_quantile, fit
from xrf_sr_plans.sr.intervals import N_GROUPS, Calibration

crepes = pytest.importorskip("crepes")

SHA = "0" * 64
FEW = (3, 40, 77)
"""Groups that enough pixels fall into."""


def test_quantiles_have_the_rank_of_the_published_ones():
    for n in (25, 44, 398, 1000, 4001):
        scores = np.random.default_rng(n).gumbel(size=n)
        theirs = crepes.ConformalPredictiveSystem()
        theirs.fit(scores)
        ends = theirs.predict_int(np.zeros(1), confidence=0.9)[0]
        ours = -conformal_quantile(-scores, 0.95), conformal_quantile(scores, 0.95)
        np.testing.assert_allclose(ends, ours, rtol=1e-12)


def test_symmetric_quantiles_too():
    for n in (12, 38, 1000):
        beyond = np.abs(np.random.default_rng(n).normal(size=n))
        theirs = crepes.ConformalRegressor()
        theirs.fit(beyond)
        _, high = theirs.predict_int(np.zeros(1), confidence=0.9)[0]
        assert high == pytest.approx(conformal_quantile(beyond, 0.9), rel=1e-12)


def test_too_few_scores_give_the_widest_instead_of_infinity():
    scores = np.arange(5.0)
    theirs = crepes.ConformalRegressor()
    theirs.fit(scores)
    with pytest.warns(UserWarning, match="too small"):
        assert np.isinf(theirs.predict_int(np.zeros(1), confidence=0.9)).all()
    assert conformal_quantile(scores, 0.9) == 4.0


@pytest.fixture(scope="module")
def residuals() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return skewed residuals, their sigmas and groups."""
    rng = np.random.default_rng(0)
    group = rng.choice(FEW, 6000)
    sigma = np.exp(rng.normal(0, 1, 6000))
    return (rng.gumbel(0, 1, 6000) - 0.3) * (1 + group / 40) * sigma, sigma, group


def test_intervals_by_group_are_the_published_mondrian_ones(residuals):
    error, sigma, group = residuals
    theirs = crepes.ConformalPredictiveSystem()
    theirs.fit(error, sigmas=sigma, bins=group)
    ends = theirs.predict_int(np.zeros(6000), sigmas=sigma, bins=group, confidence=0.9)
    calibration = fit([Scores(Measurement(2), group, error / sigma)], SHA, "made up")
    ours = _intervals(calibration, sigma, group)
    # Stretch and tables are stored with four decimals.
    np.testing.assert_allclose(ours, ends, rtol=3e-3, atol=1e-4)


def _intervals(known: Calibration, sigma: np.ndarray, group: np.ndarray) -> np.ndarray:
    below, above = (table.ravel() for table in known.tables(Measurement(2)))
    assert below.size == np.prod(N_GROUPS)
    width = sigma * known.stretch(Measurement(2))
    return np.stack([-below[group] * width, above[group] * width], axis=1)
