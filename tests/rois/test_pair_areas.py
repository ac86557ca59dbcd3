"""Areas for pairs: where the model is least sure, and where a sample is least represented."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.rois.area_content import CONTENT_NAMES, coarse_counts, content_of
from xrf_sr_plans.rois.pair_areas import (
    MOST_WINDOWS,
    KnownContents,
    choose_pair_areas,
    farthest_first,
    overlapping,
    windows,
)
from xrf_sr_plans.rois.pick import Picked
from xrf_sr_plans.schema import AnalysisRequest, PairAreas

GRID = ScanGrid.from_center(x_center_um=5, y_center_um=-3, width_um=96, height_um=48, step_um=2)
"""48 x 24 coarse pixels."""
QUIET, GRAINY, RAMP = np.s_[:, 0:16], np.s_[:, 16:32], np.s_[:, 32:48]


def sample(seed: int = 1) -> np.ndarray:
    """Return photons (1, y, x): an empty third, one with bright grains, and one that is a ramp."""
    random = np.random.default_rng(seed)
    mean = np.full(GRID.shape, 4.0)
    mean[GRAINY] = np.where(random.random((24, 16)) < 0.3, 400.0, 4.0)
    mean[RAMP] = np.linspace(20, 200, 24)[:, None]
    return random.poisson(mean)[None].astype(float)


def enhanced(counts: np.ndarray, doubt: np.ndarray | None = None, **facts: object) -> EnhancedMaps:
    estimate = counts.repeat(2, axis=1).repeat(2, axis=2)
    width = np.sqrt(estimate + 1) * (1.0 if doubt is None else doubt.repeat(2, 0).repeat(2, 1))
    return EnhancedMaps.from_arrays(
        GRID.refined(2),
        ["Fe", "Zn", "Ca"][: len(counts)],
        estimate=estimate,
        sigma=width,
        lower=estimate - 1.645 * width,
        upper=estimate + 1.645 * width,
        baseline=estimate,
        trusted=np.ones(estimate.shape, dtype=bool),
        factor=2,
        model={"name": "test", "sha256": "ab" * 32, "calibration": "c"},
        **facts,
    )


def chosen(
    by: str, number: int = 2, size_um: float = 16.0, known: KnownContents | None = None,
    counts: np.ndarray | None = None, **facts: object,
) -> Picked:  # fmt: skip
    counts = sample() if counts is None else counts
    asked = PairAreas(size_um=size_um, number=number, by=by)  # type: ignore[arg-type]
    request = AnalysisRequest(pair_areas=asked)
    known = known or KnownContents()
    maps = enhanced(counts, **facts)  # type: ignore[arg-type]
    return choose_pair_areas(maps, counts, request, known, source_uid="coarse")


def columns(picked: Picked) -> list[float]:
    """Return where each area has its center, in coarse columns."""
    return [(one.x_center_um - GRID.fast.low_um) / 2 for one in picked.regions]


def test_windows_overlap_by_half_and_end_at_all_edges():
    boxes = windows((10, 11), (4, 4))
    assert sorted({tuple(box[:2]) for box in boxes.tolist()}) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert max(boxes[:, 3]) == 11
    assert windows((3, 5), (8, 8)).tolist() == [[0, 3, 0, 5]]
    assert len(windows((3000, 3000), (4, 4))) <= MOST_WINDOWS


def test_the_least_sure_areas_are_those_where_a_rescan_takes_most_uncertainty_away():
    doubt = np.ones(GRID.shape)
    doubt[8:16, 36:44] = 3.0
    doubt[0:8, 20:28] = 2.0
    picked = chosen("least sure", doubt=doubt)
    first, second = picked.regions
    assert (first.x_low_um, first.x_high_um) == (GRID.fast.low_um + 72, GRID.fast.low_um + 88)
    assert (first.y_low_um, first.y_high_um) == (GRID.slow.low_um + 16, GRID.slow.low_um + 32)
    assert columns(picked)[1] == 24
    assert first.score > second.score
    assert "least sure: 9 of counting noise's variance would go" in first.reason
    assert picked.notes == ()


def test_the_bicubic_maps_intervals_are_said_to_be_none():
    picked = chosen("least sure", number=1, fallback="no torch")
    assert "never calibrated" in picked.notes[0]
    assert picked.regions[0].fallback == "no torch"


def test_an_empty_field_is_no_area_for_a_pair():
    picked = chosen("least represented", number=20, size_um=12.0)
    assert picked.regions
    # A window may reach into the empty third, but doesn't lie in it.
    assert min(columns(picked)) > 12
    assert "no more without overlap" in picked.notes[-1]
    empty = np.random.default_rng(0).poisson(4.0, (1, *GRID.shape)).astype(float)
    nothing = chosen("least represented", counts=empty)
    assert nothing.regions == ()
    assert "beyond counting noise" in nothing.notes[0]


def test_two_areas_differ_where_the_sample_does():
    # Areas are 8 columns wide: one reaches into the grains, the other one doesn't.
    with_grains = [one - 4 < 32 for one in columns(chosen("least represented"))]
    assert sorted(with_grains) == [False, True]


def test_what_the_store_has_is_not_chosen_first():
    grains = content_of(sample(2)[:, *GRAINY]).numbers
    ramp = content_of(sample(2)[:, *RAMP]).numbers
    known = KnownContents(np.stack([grains]), "compared with 1 coarse map")
    after_grains = chosen("least represented", number=1, known=known)
    assert columns(after_grains)[0] > 32
    assert "from the nearest of 1 stored maps" in after_grains.regions[0].reason
    assert after_grains.notes == ("compared with 1 coarse map",)
    after_ramp = chosen("least represented", number=1, known=KnownContents(np.stack([ramp])))
    assert columns(after_ramp)[0] < 32


def test_areas_never_overlap_and_come_farthest_first():
    random = np.random.default_rng(3)
    boxes = windows((24, 24), (6, 6))
    contents = random.normal(size=(len(boxes), 4))
    indices, distances = farthest_first(contents, random.normal(size=(5, 4)), boxes, 9)
    for place, index in enumerate(indices):
        others = boxes[[one for one in indices if one != index]]
        assert not overlapping(others, boxes[index]).any(), place
    assert distances == sorted(distances, reverse=True)


def test_elements_may_be_others_and_in_another_order():
    counts = np.concatenate([sample(1), sample(4)])
    numbers = content_of(counts[:, *GRAINY]).numbers
    np.testing.assert_allclose(content_of(counts[::-1, *GRAINY]).numbers, numbers)
    assert numbers.shape == (len(CONTENT_NAMES),)


def test_noise_has_no_structure_and_a_ramp_has():
    random = np.random.default_rng(5)
    flat = random.poisson(50.0, (400, 1, 12, 12)).astype(float)
    found = np.mean([content_of(one).structured[0] for one in flat])
    assert found < 0.01
    ramp = random.poisson(np.linspace(20, 200, 12)[None, :, None] * np.ones((1, 12, 12)))
    assert content_of(ramp.astype(float)).structured[0]


def test_what_was_not_measured_is_no_area():
    counts = sample()
    counts[:, :, 16:40] = np.nan
    picked = chosen("least represented", counts=counts, number=4)
    assert all(center > 40 for center in columns(picked))


def test_rows_are_summed_to_squares():
    rows = np.random.default_rng(0).poisson(9.0, (2, 8, 24)).astype(float)
    grid = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=12, height_um=8, step_um=1)
    fine = grid.refined(2)
    grid = ScanGrid(fast=fine.fast, slow=grid.slow)
    maps = ElementalMaps.from_arrays(rows, grid, ["Fe", "Zn"], sampling="rows", step_um=1.0)
    counts = coarse_counts(maps)
    assert counts.shape == (2, 8, 12)
    np.testing.assert_allclose(counts, rows.reshape(2, 8, 12, 2).sum(axis=-1))


def test_counts_of_another_map_are_refused():
    request = AnalysisRequest(pair_areas=PairAreas(size_um=8, number=1))
    with pytest.raises(ConfigError, match="not those of an enhanced map of 1 elements and 24 x 48"):
        choose_pair_areas(
            enhanced(sample()), np.ones((1, 3, 3)), request, KnownContents(), source_uid="u"
        )


def test_documents_of_other_surveys_say_nothing_of_areas():
    assert "pair_areas" not in AnalysisRequest().model_dump(mode="json")
    asked = AnalysisRequest(pair_areas=PairAreas(size_um=8, number=3))
    assert AnalysisRequest(**asked.model_dump(mode="json")) == asked
