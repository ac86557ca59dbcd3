"""Ranking of errors by stated uncertainty, and coverage by counts."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.metrics.calibration import (
    coverage_by_counts,
    covered,
    error_ranking,
    sparsification,
)


def test_errors_ranked_by_themselves_are_perfect_and_at_random_worthless():
    rng = np.random.default_rng(0)
    error = rng.standard_normal(20_000)
    assert error_ranking(error, np.abs(error)) == pytest.approx(1)
    assert error_ranking(error, rng.random(20_000)) == pytest.approx(0, abs=0.05)
    assert np.isnan(error_ranking(np.zeros(10), np.ones(10)))


def test_a_true_but_varying_sigma_is_worth_most_of_an_oracle_where_it_varies_much():
    rng = np.random.default_rng(0)
    sigma = np.exp(1.5 * rng.standard_normal(50_000))
    assert 0.7 < error_ranking(sigma * rng.standard_normal(50_000), sigma) < 1


def test_coverage_is_told_apart_by_decade():
    counts = np.array([0.5, 0.5, 5, 50, 5e5, np.nan])
    inside = np.array([1, 0, 1, 1, 0, 1.0])
    assert coverage_by_counts(inside, counts) == {
        "<1": (0.5, 2),
        "1-10": (1.0, 1),
        "10-100": (1.0, 1),
        ">10000": (0.0, 1),
    }


def test_a_measurement_without_noise_is_inside_or_not():
    counts = np.array([1e8, 1.2e8])
    share = covered(counts, 1e8 * np.ones(2), 0.9e8 * np.ones(2), 1.1e8 * np.ones(2))
    np.testing.assert_allclose(share, [1, 0], atol=1e-6)


def test_what_is_not_known_is_not_covered_nor_missed():
    share = covered(np.array([np.nan, 3.0]), np.ones(2), np.zeros(2), 9 * np.ones(2))
    assert np.isnan(share[0])
    assert share[1] > 0


def test_sparsification_falls_to_the_oracle_where_the_ranking_is_perfect():
    rng = np.random.default_rng(0)
    error = rng.standard_normal(20_000)
    perfect = sparsification(error, np.abs(error))
    assert perfect.ause == pytest.approx(0)
    assert perfect.stated[0] == pytest.approx(1)
    assert (np.diff(perfect.oracle) <= 0).all()
    at_random = sparsification(error, rng.random(20_000))
    assert at_random.stated.mean() == pytest.approx(1, abs=0.05)
    assert np.isnan(sparsification(np.zeros(10), np.ones(10)).ause)
