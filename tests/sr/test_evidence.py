"""Sigma restated by what an element's own counts say, and the pixels that are doubted most."""

from __future__ import annotations

import json

import numpy as np
import pytest

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.sr.conformal import Scores, beyond, fit
from xrf_sr_plans.sr.error_odds import MOST_DOUBTED, doubt, doubted
from xrf_sr_plans.sr.evidence import NAMES, evidence, stated_level
from xrf_sr_plans.sr.intervals import (
    Calibration,
    Restated,
    bounded,
    groups,
    intervals,
    restated,
    to_json,
)
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel

SHA = "0" * 64
SQUARES = Measurement(2)
ROWS = Measurement(2, "rows")


def waves(period_px: float, level: float, shape: tuple[int, int] = (48, 48)) -> np.ndarray:
    y, x = np.indices(shape)
    along = np.sin(2 * np.pi * y / period_px) + np.sin(2 * np.pi * x / period_px)
    return level * (1 + 0.4 * along)[None]


def known(counts: np.ndarray, how: Measurement) -> dict[str, float]:
    values = evidence(counts, how, Scale.of(per_coarse_pixel(counts, how)))
    return dict(zip(NAMES, values[0], strict=False))


def maps_of_kind(kind: str, roughness: float, seed: int) -> Scores:
    """Return scores whose true spread follows from the evidence, not from the stated sigma."""
    rng = np.random.default_rng(seed)
    found = np.zeros((2, len(NAMES)))
    found[:, NAMES.index("rows over 2 steps")] = roughness + 0.1 * rng.standard_normal(2)
    found[:, NAMES.index("range")] = rng.uniform(2, 6)
    spread = np.exp(found[:, NAMES.index("rows over 2 steps")])
    score = rng.standard_normal((2, 1000)) * spread[:, None]
    group = rng.integers(5, size=2000)
    return Scores(SQUARES, group, score.ravel(), 0.2, 0.0, kind, found, np.zeros(2000))


def many_kinds() -> list[Scores]:
    return [
        maps_of_kind(f"kind {index}", level, 10 * index + repeat)
        for index, level in enumerate(np.linspace(-1, 1, 7))
        for repeat in range(4)
    ]


def test_fine_structure_is_told_from_coarse_and_from_noise():
    fine, coarse = (known(waves(period, 1e5), SQUARES) for period in (4, 24))
    assert fine["rows over 2 steps"] > coarse["rows over 2 steps"] + 2
    flat = np.random.default_rng(0).poisson(400, (1, 64, 64)).astype(float)
    assert known(flat, SQUARES)["rows over 2 steps"] < np.log(1.0)


def test_rows_try_the_gap_between_rows_out_along_the_fast_axis():
    """A wave as fast as the rows are apart is seen along x, where the pixels are fine."""
    counts = waves(4, 1e5, (48, 96))
    found = known(counts, ROWS)
    assert found["columns over 1 step"] > 2
    assert evidence(counts, ROWS, Scale.of(per_coarse_pixel(counts, ROWS))).shape == (
        1,
        len(NAMES) - 1,
    )


def test_narrow_maps_have_evidence_too():
    counts = np.random.default_rng(0).poisson(50, (2, 3, 2)).astype(float)
    assert np.isfinite(evidence(counts, SQUARES, Scale.of(counts))).all()


def test_a_kind_left_out_is_covered_where_its_evidence_tells_it_apart():
    maps = many_kinds()
    others = [item for item in maps if item.kind not in ("kind 0", "kind 6")]
    with_it = fit(others, SHA, "made up")
    for kind in ("kind 0", "kind 6"):
        mine = [item for item in maps if item.kind == kind]
        covered = np.mean([np.mean(beyond(with_it, item) <= 1) for item in mine])
        assert covered == pytest.approx(0.9, abs=0.05)
    assert all(0.8 < share < 0.97 for share in with_it.left_out["2"].values())


def test_maps_unlike_all_known_ones_get_wider_intervals():
    law = fit(many_kinds(), SHA, "made up").law["2"]
    near, far = np.zeros((1, len(NAMES))), np.zeros((1, len(NAMES)))
    near[:, NAMES.index("range")] = far[:, NAMES.index("range")] = 4.0
    far[:, NAMES.index("fill")] = 5.0
    assert law.distance(near) < law.farthest < law.distance(far)
    assert law.stretch(far) > 3 * law.stretch(near)


def test_the_law_survives_the_file_and_is_part_of_the_id():
    calibration = fit(many_kinds(), SHA, "made up")
    plain = json.loads(json.dumps(to_json(calibration)))
    assert plain.pop("id") == calibration.id
    assert plain["schema_version"] == 2
    again = Calibration.model_validate(plain)
    assert again.id == calibration.id
    assert again.law == calibration.law
    changed = calibration.model_copy(update={"law": None})
    assert changed.id != calibration.id


def test_scores_without_evidence_are_calibrated_by_groups_as_before():
    rng = np.random.default_rng(0)
    old = fit([Scores(SQUARES, rng.integers(5, size=9000), rng.standard_normal(9000))], SHA, "")
    assert old.schema_version == 1
    assert old.law is None
    assert old.regime.largest_doubt is None


def test_intervals_are_those_that_the_scores_were_calibrated_for():
    """What `fit` learnt from scores covers maps through `intervals`, too."""
    rng = np.random.default_rng(1)
    calibration = fit(many_kinds(), SHA, "made up")
    law = calibration.law_of(SQUARES)
    counts = waves(12, 400)
    scale = Scale.of(counts)
    made = np.repeat(np.repeat(counts, 2, 1), 2, 2)
    sigma = rng.uniform(0.5, 2, made.shape)
    facts = evidence(counts, SQUARES, scale)
    restate, distance = restated(law, facts, sigma, scale)
    ends = intervals(calibration, SQUARES, stabilise(made), sigma, scale, restate)
    score = rng.standard_normal(made.shape)
    level = stated_level(bounded(sigma, scale))
    item = Scores(
        SQUARES,
        groups(stabilise(made), scale).ravel(),
        score.ravel(),
        known=np.concatenate([facts, level[:, None]], -1),
        relative=(np.log(bounded(sigma, scale)) - level[:, None, None]).ravel(),
    )
    truth = (stabilise(made) + score * bounded(sigma, scale)) ** 2 / 4 - 3 / 8
    inside = (ends.lower <= truth) & (truth <= ends.upper)
    told = beyond(calibration, item) <= 1
    assert (inside.ravel() == told).mean() > 0.99
    assert distance.shape == (1,)


def test_intervals_of_dark_pixels_reach_down_to_nothing():
    calibration = fit(many_kinds(), SHA, "made up")
    counts = np.full((1, 16, 16), 400.0)
    counts[:, :, :8] = 4.0
    scale, sigma = Scale.of(counts), np.full(counts.shape, 0.1)
    restate = Restated(stated_level(sigma), np.ones(1), 1.0)
    ends = intervals(calibration, SQUARES, stabilise(counts), sigma, scale, restate)
    assert (ends.lower[:, :, :8] == 0).all()
    assert (ends.lower[:, :, 8:] > 300).all()


def test_the_doubted_pixels_are_few_and_those_with_the_largest_errors():
    rng = np.random.default_rng(2)
    sigma = np.exp(rng.normal(0, 1, (64, 64)))
    truth = 100 * rng.random((64, 64))
    estimate = truth + sigma * rng.standard_normal((64, 64))
    marked = doubted(doubt(estimate, estimate, sigma, 100.0), 0.0)
    assert marked.mean() <= MOST_DOUBTED
    error = np.square(estimate - truth)
    assert np.sqrt(error[marked].mean() / error[~marked].mean()) > 2
    assert not doubted(doubt(estimate, estimate, sigma, 100.0), 10.0).any()


def test_where_the_baseline_may_be_better_there_is_more_doubt():
    estimate = np.linspace(0, 100, 400).reshape(20, 20)
    baseline, sigma = estimate.copy(), np.ones((20, 20))
    baseline[5, 5] += 20
    doubts = doubt(estimate, baseline, sigma, 100.0)
    assert doubts[5, 5] == pytest.approx(2 * doubts[5, 6])
