"""Net counts keep their mean and their noise; other negative values are no data."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.maps.net_counts import gross_counts

Y, X = np.mgrid[:64, :64] / 64
SIGNAL = np.stack([40.0 * (np.hypot(Y - 0.5, X - 0.4) < 0.3), 20.0 * (X > 0.6)])
NAMES = ["Fe", "Zn"]


def net(background: float, seed: int = 0) -> np.ndarray:
    gross = np.random.default_rng(seed).poisson(SIGNAL + background)
    return gross - background


@pytest.mark.parametrize("background", [1, 2.5, 10, 40])
def test_the_background_that_was_subtracted_is_told_from_the_scatter_below_zero(background) -> None:
    counts = net(background)
    found = gross_counts(counts, NAMES)
    np.testing.assert_allclose(found.background, background, rtol=0.25)
    np.testing.assert_allclose(found.counts, counts + found.background[:, None, None])
    assert found.counts.min() >= 0
    assert "Fe: net counts (" in found.notes[0]
    assert "taken off again" in found.notes[0]


def test_a_measured_background_scatters_too_and_is_put_under_whole() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(SIGNAL + 10) - rng.poisson(10.0, SIGNAL.shape).astype(float)
    found = gross_counts(counts, NAMES)
    assert (found.background >= 20 * 0.9).all()
    assert np.isfinite(found.counts).all()


def test_counts_that_are_nowhere_negative_stay_as_they_are() -> None:
    counts = np.random.default_rng(0).poisson(SIGNAL).astype(float)
    found = gross_counts(counts, NAMES)
    np.testing.assert_array_equal(found.counts, counts)
    assert not found.background.any()
    assert found.notes == ()


def test_values_that_stand_for_no_data_are_unmeasured_and_told() -> None:
    counts = np.random.default_rng(0).poisson(SIGNAL + 30).astype(float)
    counts[0, 40:], counts[1, 3, 3] = -1, -999
    found = gross_counts(counts, NAMES)
    assert np.isnan(found.counts[0, 40:]).all()
    assert np.isnan(found.counts[1, 3, 3])
    assert np.isnan(found.counts).sum() == 24 * 64 + 1
    assert not found.background.any()
    assert (
        "Fe: 1536 pixels have negative values that are no net counts (-1 to -1)" in found.notes[0]
    )


def test_one_wild_negative_value_in_net_counts_is_lost_alone() -> None:
    counts = net(10)
    counts[0, 30, 30] = -1e6
    found = gross_counts(counts, NAMES)
    assert np.isnan(found.counts).sum() == 1
    np.testing.assert_allclose(found.background, 10, rtol=0.25)
