"""Conformal calibration: coverage where the scores are what it was calibrated on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.sr.conformal import Scores, conformal_quantile, fit
from xrf_sr_plans.sr.consistency import deviation, project
from xrf_sr_plans.sr.intervals import (
    FILL_EDGES,
    N_GROUPS,
    Calibration,
    groups,
    intervals,
    to_json,
)
from xrf_sr_plans.sr.scale import Scale

SHA = "0" * 64
PLAIN = Measurement(2)
FREED = Measurement(2, "fly", 1.0)
KEPT = Measurement(2, "fly", 1.0, deblur=False)
N = int(np.prod(N_GROUPS))


def made_up(seed: int, factor: int = 2) -> Scores:
    """Return scores that are skewed, and wider where it is bright."""
    rng = np.random.default_rng(seed)
    group = rng.integers(N, size=60000)
    return Scores(Measurement(factor), group, rng.gumbel(0, 1, 60000) * (1 + group % 5))


def scale(span: float) -> Scale:
    return Scale(np.array([1.2]), np.array([span]), np.array([0.2]), np.array([0.05]))


def test_ninety_percent_of_new_scores_lie_within_in_every_group():
    calibration = fit([made_up(seed) for seed in range(8)], SHA, "made up")
    below, above = (table.ravel() for table in calibration.tables(Measurement(2)))
    fresh = made_up(100)
    inside = (fresh.score >= -below[fresh.group]) & (fresh.score <= above[fresh.group])
    for index in range(N):
        assert inside[fresh.group == index].mean() == pytest.approx(0.9, abs=0.05)
    assert inside.mean() == pytest.approx(0.9, abs=0.01)


def test_estimates_freed_of_a_wide_probe_get_wider_intervals():
    sharp = [replace(s, score=3 * s.score, measurement=FREED) for s in map(made_up, range(4))]
    calibration = fit([*map(made_up, range(10, 14)), *sharp], SHA, "made up")
    ratio = calibration.stretch(FREED) / calibration.stretch(PLAIN)
    assert ratio == pytest.approx(3, rel=0.1)
    below, above = (table.ravel() for table in calibration.tables(Measurement(2)))
    for fresh, how in ((made_up(100).score, PLAIN), (3 * made_up(100).score, FREED)):
        score, group = fresh / calibration.stretch(how), made_up(100).group
        inside = (score >= -below[group]) & (score <= above[group])
        assert inside.mean() == pytest.approx(0.9, abs=0.02)


def test_textures_and_sharp_phases_have_intervals_of_their_own():
    textures = [replace(s, score=2 * s.score, fill=0.1) for s in map(made_up, range(4))]
    phases = [replace(s, fill=0.3) for s in map(made_up, range(10, 14))]
    calibration = fit([*textures, *phases], SHA, "made up")
    stretch = calibration.stretch(PLAIN, np.array([0.1, 0.3]))
    assert stretch[0] / stretch[1] == pytest.approx(2, rel=0.1)
    before = calibration.model_copy(update={"fill": None})
    assert before.stretch(PLAIN, 0.1) == before.stretch(PLAIN, 0.3)
    plain = calibration.model_dump(mode="json")
    with pytest.raises(ValidationError, match="fill"):
        Calibration.model_validate({**plain, "fill": {"2": [1.0, 1.0]}})
    rng = np.random.default_rng(0)
    halves = np.where(np.arange(64) < 32, 20.0, 400.0) * np.ones((64, 1))
    spots = 50.0 + 300.0 * (rng.random((64, 64)) < 0.01)
    found = Scale.of(rng.poisson([halves, spots]).astype(float)).fill
    assert found[0] > FILL_EDGES[-1] > FILL_EDGES[0] > found[1]


def test_a_group_without_enough_pixels_borrows_from_its_neighbour():
    few = Scores(PLAIN, np.full(1000, 7), np.linspace(-1, 1, 1000))
    calibration = fit([few], SHA, "made up")
    below, above = calibration.tables(Measurement(2))
    assert np.isfinite(below).all()
    assert np.isfinite(above).all()


def test_the_quantile_has_the_finite_sample_correction():
    assert conformal_quantile(np.arange(9.0), 0.9) == 8.0


def test_it_survives_the_file_and_keeps_its_id():
    calibration = fit([made_up(0)], SHA, "made up")
    plain = json.loads(json.dumps(to_json(calibration)))
    stated = plain.pop("id")
    assert Calibration.model_validate(plain).id == stated == calibration.id


def test_a_factor_that_was_not_calibrated_is_refused():
    with pytest.raises(ModelError, match="factor 4"):
        fit([made_up(0)], SHA, "made up").tables(Measurement(4))


def test_intervals_are_in_counts_and_never_negative():
    calibration = fit([made_up(0)], SHA, "made up")
    z = stabilise(np.array([[[0.0, 4.0, 400.0]]]))
    ends = intervals(calibration, PLAIN, z, np.ones_like(z), scale(40.0))
    assert (ends.lower >= 0).all()
    assert (ends.lower < ends.upper).all()
    assert (np.diff(ends.sigma) > 0).all()


def test_every_pixel_has_a_group():
    z = np.linspace(-5, 800, 60).reshape(1, 6, 10)
    found = groups(z, scale(400.0))
    assert found.min() >= 0
    assert found.max() < N


def test_stabilised_counts_have_unit_noise():
    counts = np.random.default_rng(0).poisson(20, 20000)
    assert np.std(stabilise(counts)) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(unstabilise(stabilise(counts)), counts, atol=1e-9)


def test_the_range_of_an_element_ignores_a_few_hot_pixels():
    counts = np.random.default_rng(0).poisson(20, (1, 40, 40)).astype(float)
    before = Scale.of(counts).span
    counts[0, 3, 3] = 1e6
    assert Scale.of(counts).span == pytest.approx(before, rel=0.05)


def test_a_hot_particle_that_was_smoothed_away_comes_back():
    counts = np.full((1, 12, 12), 10.0)
    counts[0, 6, 6] = 500.0
    smoothed = np.full((1, 24, 24), 10.0)
    assert deviation(counts, smoothed, Measurement(2, "area")).max() > 100
    made = project(counts, smoothed, Measurement(2, "area"))
    assert made[0, 12:14, 12:14].mean() > 400
    assert made.mean() == pytest.approx(counts.mean(), rel=1e-6)


def test_roughness_tells_structure_of_one_pixel_from_noise_and_from_smooth_maps():
    rng = np.random.default_rng(0)
    y = np.mgrid[:64, :64][0]
    smooth = rng.poisson(200 + 150 * np.sin(y / 8))
    rough = rng.poisson(200 + 150 * rng.choice([-1, 1], (64, 64)))
    noise = rng.poisson(200, (64, 64))
    found = Scale.of(np.stack([smooth, rough, noise]).astype(float)).roughness
    assert found[0] < 0.05
    assert found[1] > 0.5
    assert found[2] < 0.5


def test_an_estimate_that_keeps_the_blur_gets_narrower_intervals():
    kept = [replace(s, score=s.score / 3, measurement=KEPT) for s in map(made_up, range(4))]
    calibration = fit([*map(made_up, range(10, 14)), *kept], SHA, "made up")
    ratio = calibration.stretch(PLAIN) / calibration.stretch(KEPT)
    assert ratio == pytest.approx(3, rel=0.1)


def test_calibrations_from_before_kept_blur_counted_read_as_they_were():
    old = Calibration(model_sha256=SHA, lower={}, upper={}, blur={"2": [1.0, 1.2, 1.5]})
    freed = [Measurement(2, "fly", probe) for probe in (0.1, 0.5, 1.0)]
    assert [old.stretch(how) for how in (KEPT, *freed)] == [1.0, 1.0, 1.2, 1.5]


def test_a_sigma_beyond_all_reason_is_bounded_by_the_range():
    calibration = fit([made_up(0)], SHA, "made up")
    z = np.full((1, 1, 2), 20.0)
    ends = intervals(calibration, PLAIN, z, np.array([[[20.0, 1e6]]]), scale(40.0))
    assert ends.upper[0, 0, 0] == ends.upper[0, 0, 1]
