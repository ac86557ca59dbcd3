from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrf_sr_plans.errors import QueryError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.rois.evidence import evidence
from xrf_sr_plans.rois.forecast import Forecast
from xrf_sr_plans.rois.pick import pick_regions
from xrf_sr_plans.schema import AnalysisRequest, RescanModel

COARSE = ScanGrid.from_center(
    x_center_um=100.0, y_center_um=-40.0, width_um=40.0, height_um=24.0, step_um=2.0
)
FACTOR = 2
SLOW = RescanModel(step_um=1.0, dwell_ms=1000.0)
"""Rescans so slow that the way to a region counts for nothing."""


def enhanced(
    maps: dict[str, np.ndarray],
    *,
    trusted: np.ndarray | None = None,
    sigma: np.ndarray | float | None = None,
    baseline: np.ndarray | None = None,
    **attributes: Any,
) -> EnhancedMaps:
    estimate = np.stack(list(maps.values()))
    width = np.sqrt(np.maximum(estimate, 0) + 1) / 2 if sigma is None else sigma
    width = np.broadcast_to(np.asarray(width, dtype=float), estimate.shape)
    return EnhancedMaps.from_arrays(
        COARSE.refined(FACTOR),
        list(maps),
        estimate=estimate,
        sigma=width,
        lower=estimate - 1.64 * width,
        upper=estimate + 1.64 * width,
        baseline=estimate if baseline is None else baseline,
        trusted=np.ones(estimate.shape, bool) if trusted is None else trusted,
        factor=FACTOR,
        model={"name": "test", "sha256": "ab" * 32, "calibration": "c"},
        source_uid="raw",
        **attributes,
    )


def background(level: float = 4.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(level, COARSE.refined(FACTOR).shape).astype(float)


def pick(maps: EnhancedMaps, **request: Any) -> list[Region]:
    return list(pick_regions(maps, AnalysisRequest(**request), source_uid="raw").regions)


def test_a_particle_is_found_with_half_a_coarse_pixel_of_margin() -> None:
    fe = background()
    fe[4:10, 20:28] += 200
    (region,) = pick(enhanced({"Fe": fe}), find="Fe")
    grid = COARSE.refined(FACTOR)
    assert (region.x_low_um, region.x_high_um) == (grid.fast.edges_um[19], grid.fast.edges_um[29])
    assert (region.y_low_um, region.y_high_um) == (grid.slow.edges_um[3], grid.slow.edges_um[11])
    assert region.width_um == 10.0
    assert region.elements == ("Fe",)
    assert region.source_uid == "raw"
    assert region.model_sha256 == "ab" * 32
    assert region.trusted_fraction == 1.0
    assert region.predicted_sigma == pytest.approx(np.sqrt(205) / 2, rel=0.05)
    assert "Fe up to" in region.reason
    assert "100% of it trusted" in region.reason


def test_the_margin_is_wider_where_the_time_suffices() -> None:
    fe = background()
    fe[4:10, 20:28] += 200
    maps = enhanced({"Fe": fe})
    widths_um = [
        pick(maps, find="Fe", rescans=SLOW.model_copy(update={"budget_s": budget_s}))[0].width_um
        for budget_s in (None, 300.0, 100.0)
    ]
    assert widths_um == [16.0, 16.0, 10.0]


def test_the_map_s_own_corner_pixel_gives_the_map_s_own_edges() -> None:
    fe = background()
    fe[:4, :4] += 200
    fe[-4:, -4:] += 100
    maps = enhanced({"Fe": fe})
    best, second = pick(maps, find="Fe")
    assert (best.x_low_um, best.y_low_um) == (COARSE.fast.low_um, COARSE.slow.low_um)
    assert second.x_high_um == pytest.approx(COARSE.fast.high_um, abs=1e-9)
    assert second.y_high_um == pytest.approx(COARSE.slow.high_um, abs=1e-9)
    assert best.score > second.score


def test_the_query_decides_which_of_two_particles_is_worth_it() -> None:
    fe, zn = background(seed=1), background(seed=2)
    fe[4:10, 4:10] += 100
    fe[4:10, 24:30] += 100
    zn[4:10, 24:30] += 100
    maps = enhanced({"Fe": fe, "Zn": zn})
    (without,) = pick(maps, find="Fe and not Zn")
    (both,) = pick(maps, find="Fe and Zn")
    assert without.x_high_um < both.x_low_um
    assert without.elements == ("Fe",)
    assert both.elements == ("Fe", "Zn")
    assert len(pick(maps)) == 2
    assert len(pick(maps, find="Fe > 80")) == 2
    assert pick(maps, find="Fe > 800") == []


@pytest.mark.parametrize("level", [0.0, 0.05, 1.0, 30.0, 3000.0])
def test_pure_poisson_noise_holds_no_region(level: float) -> None:
    rng = np.random.default_rng(3)
    shape = COARSE.shape
    coarse = np.kron(rng.poisson(level, (8, *shape)), np.ones((1, FACTOR, FACTOR)))
    maps = enhanced({f"E{n}": plane for n, plane in enumerate(coarse)})
    assert pick(maps) == []


def test_an_element_that_fills_most_of_the_map_is_still_told_from_its_absence() -> None:
    fe, zn = background(seed=1), background(2.0, seed=2)
    fe[:, :26] += 100
    zn[4:10, 4:10] += 50
    zn[4:10, 30:36] += 50
    maps = enhanced({"Fe": fe, "Zn": zn})
    (inside,) = pick(maps, find="Zn and Fe")
    (outside,) = pick(maps, find="Zn and not Fe")
    assert inside.x_high_um < outside.x_low_um
    assert len(pick(maps)) == 2


def test_maps_without_anything_measured_or_constant_are_normal() -> None:
    shape = COARSE.refined(FACTOR).shape
    assert pick(enhanced({"Fe": np.full(shape, np.nan)}), find="Fe") == []
    assert pick(enhanced({"Fe": np.zeros(shape)})) == []
    assert pick(enhanced({"Fe": np.full(shape, 7.0)})) == []
    assert pick(enhanced({"Fe": np.full(shape, np.nan)}), find="not Fe") == []


def test_an_unmeasured_row_does_not_hide_the_particle_beside_it() -> None:
    fe = background()
    fe[4:10, 20:28] += 200
    fe[12:14] = np.nan
    (region,) = pick(enhanced({"Fe": fe}), find="Fe")
    assert region.height_um == 8.0


def test_an_unknown_element_is_refused_by_name() -> None:
    with pytest.raises(QueryError, match="'Au'"):
        pick(enhanced({"Fe": background()}), find="Au")


def test_where_the_model_is_not_trusted_the_measured_counts_decide() -> None:
    measured = background()
    invented = measured.copy()
    invented[4:10, 20:28] += 200
    trusted = np.ones((1, *measured.shape), bool)
    trusted[:, 4:10, 20:28] = False
    believed = enhanced({"Fe": invented}, trusted=trusted, baseline=measured[None])
    assert pick(believed, find="Fe") == []
    confirmed = enhanced({"Fe": invented}, trusted=trusted, baseline=invented[None])
    (region,) = pick(confirmed, find="Fe")
    assert region.trusted_fraction == 0.0


def test_an_excess_within_its_own_uncertainty_is_no_find() -> None:
    fe = background()
    fe[5:7, 21:23] += 60
    assert len(pick(enhanced({"Fe": fe}, sigma=5.0), find="Fe")) == 1
    assert pick(enhanced({"Fe": fe}, sigma=40.0), find="Fe") == []


def test_a_grain_that_the_coarse_counts_prove_is_a_find_however_unsure_its_place() -> None:
    fe = background()
    fe[5:7, 21:23] += 400
    (region,) = pick(enhanced({"Fe": fe}, sigma=300.0), find="Fe")
    assert region.x_low_um < COARSE.refined(FACTOR).fast.centers_um[22] < region.x_high_um


def test_the_time_goes_to_what_is_likelier() -> None:
    fe = np.full(COARSE.refined(FACTOR).shape, 4.0)
    fe[4:10, 4:10] += 30
    fe[4:10, 24:30] += 30
    sigma = np.full((1, *fe.shape), 3.0)
    sigma[:, :, 20:] = 20.0
    rescans = RescanModel(step_um=1.0, dwell_ms=10.0, budget_s=1.0)
    (only,) = pick(enhanced({"Fe": fe}, sigma=sigma), find="Fe > 20", rescans=rescans)
    assert only.x_high_um < 100.0
    assert only.score > 0.8


def test_what_does_not_fit_is_flown_in_part() -> None:
    fe = background()
    fe[4:20, 4:26] += 200
    whole = pick(enhanced({"Fe": fe}), find="Fe > 100")
    assert len(whole) == 1
    model = {"step_um": 1.0, "dwell_ms": 100.0}
    parts = pick(enhanced({"Fe": fe}), find="Fe > 100", rescans=RescanModel(**model, budget_s=40.0))
    assert parts
    assert 20.0 < sum(one.width_um * one.height_um for one in parts) * 0.1 <= 40.0
    within = pick(
        enhanced({"Fe": fe}), find="Fe > 100", rescans=RescanModel(**model, reach_um=(12, 9))
    )
    assert within
    assert all(one.width_um <= 12 and one.height_um <= 9 for one in within)


def test_a_query_that_matches_most_of_the_map_is_told_and_proposes_nothing() -> None:
    maps = enhanced({"Fe": background()})
    picked = pick_regions(maps, AnalysisRequest(find="not Fe"), source_uid="raw")
    assert picked.regions == ()
    assert picked.notes == ("'not Fe' matches 100% of the map: nothing to choose from it",)


def test_a_query_below_one_photon_is_no_reason_to_give_up_the_map() -> None:
    """Nearly everywhere as good as undecided is not the same as matching everywhere."""
    fe = np.full(COARSE.refined(FACTOR).shape, 0.099)
    fe[10:14, 20:26] = 6.0
    maps = enhanced({"Fe": fe}, sigma=1.0)
    picked = pick_regions(maps, AnalysisRequest(find="Fe > 0.1", rescans=SLOW), source_uid="raw")
    assert picked.notes == ()
    assert picked.regions


def test_errors_of_four_sigmas_are_rare_but_happen() -> None:
    maps = enhanced({"Fe": np.full(COARSE.refined(FACTOR).shape, 60.0)}, sigma=10.0)
    one = evidence(maps, "Fe", two_classes=True)
    shares = {away: float(one.probability_above(60.0 + 10 * away)[0, 0]) for away in (0, 1.645, 4)}
    assert shares[0] == pytest.approx(0.5)
    assert shares[1.645] == pytest.approx(0.05, abs=5e-4)
    assert 1e-3 < shares[4] < 4e-3
    # The quantiles that are drawn are those of the same distribution.
    quantile = 1 - shares[4]
    np.testing.assert_allclose(one.drawn(quantile), 100.0, rtol=1e-3)


def test_more_regions_than_are_wanted_are_told() -> None:
    fe = background()
    fe[2:5, 3::8] += 300
    maps = enhanced({"Fe": fe})
    picked = pick_regions(
        maps, AnalysisRequest(find="Fe", max_regions=2, rescans=SLOW), source_uid="raw"
    )
    assert len(picked.regions) == 2
    assert "more regions are worth a rescan than max_regions" in picked.notes[0]


def test_size_and_confidence_are_asked_of_what_is_found() -> None:
    fe = background()
    fe[4:6, 4:6] += 200
    fe[12:20, 20:28] += 200
    maps = enhanced({"Fe": fe})
    assert len(pick(maps, find="Fe > 100")) == 2
    (large,) = pick(maps, find="Fe > 100 and size > 5 um")
    (small,) = pick(maps, find="Fe > 100 and size < 5 um")
    assert large.width_um > small.width_um
    assert len(pick(maps, find="Fe > 100 and confidence > 90%")) == 2
    assert pick(maps, find="Fe > 195 and confidence > 99.9%") == []


@pytest.mark.parametrize("kind", ["targets", "signal", "uncertainty", "novelty"])
def test_every_kind_of_worth_finds_a_grain(kind: str) -> None:
    fe, zn = background(seed=1), background(seed=2)
    fe[4:10, 20:28] += 200
    (region,) = pick(enhanced({"Fe": fe, "Zn": zn}), find="Fe", worth={kind: 1.0})
    assert region.score > 0.8


def test_by_novelty_the_grain_of_unusual_composition_comes_first_and_by_signal_it_does_not() -> (
    None
):
    fe, zn = background(seed=1), background(seed=2)
    for y, x in ((2, 3), (2, 15), (2, 27), (14, 3), (14, 15)):
        fe[y : y + 6, x : x + 6] += 200
        zn[y : y + 6, x : x + 6] += 100
    fe[14:20, 27:33] += 150
    maps = enhanced({"Fe": fe, "Zn": zn})
    odd_x_um = float(maps.grid.fast.edges_um[30])
    odd_y_um = float(maps.grid.slow.edges_um[17])

    def first_holds_the_odd_one(kind: str) -> bool:
        first = pick(maps, find="Fe > 50", rescans=SLOW, worth={kind: 1.0})[0]
        across = first.x_low_um < odd_x_um < first.x_high_um
        return across and first.y_low_um < odd_y_um < first.y_high_um and first.width_um < 15

    assert first_holds_the_odd_one("novelty")
    assert not first_holds_the_odd_one("signal")


def test_by_signal_the_large_grain_comes_first_and_by_number_the_small_ones() -> None:
    fe = background()
    fe[4:20, 4:20] += 400
    fe[4:7, 30:33] += 60
    fe[14:17, 30:33] += 60
    rescans = RescanModel(step_um=1.0, dwell_ms=100.0, budget_s=45.0)
    maps = enhanced({"Fe": fe})
    by_signal = pick(maps, find="Fe > 30", rescans=rescans, worth={"signal": 1.0})
    by_number = pick(maps, find="Fe > 30", rescans=rescans, worth={"targets": 1.0})
    assert by_signal[0].width_um > 15
    assert by_number[0].width_um < 10
    assert len(by_number) >= 2


def test_the_reason_of_a_bicubic_region_speaks_of_no_trust_and_leaves_the_why_to_its_map() -> None:
    fe = background()
    fe[4:10, 20:28] += 200
    (region,) = pick(enhanced({"Fe": fe}, fallback="no torch"), find="Fe")
    assert region.fallback == "no torch"
    assert "from the bicubic map, whose intervals were never calibrated" in region.reason
    assert "trusted" not in region.reason
    assert "no torch" not in region.reason


def test_boxes_that_padding_brings_together_become_one() -> None:
    fe = background()
    fe[4:10, 4:10] += 200
    fe[4:10, 16:22] += 200
    maps = enhanced({"Fe": fe})
    assert len(pick(maps, find="Fe", pad_um=2.0, rescans=SLOW)) == 2
    (one,) = pick(maps, find="Fe", pad_um=4.0, rescans=SLOW)
    assert one.width_um == 26.0


def test_a_chain_of_grains_does_not_become_the_whole_map() -> None:
    fe = background()
    for place in range(2, 20, 6):
        fe[place : place + 3, place : place + 3] += 300
    regions = pick(enhanced({"Fe": fe}), find="Fe", pad_um=2.0)
    assert len(regions) == 3
    assert max(region.width_um for region in regions) < 10


def test_regions_survive_json() -> None:
    fe = background()
    fe[4:10, 20:28] += 200
    (region,) = pick(enhanced({"Fe": fe}), find="Fe")
    assert Region.from_dict(region.to_dict()) == region


blobs = st.lists(
    st.tuples(st.integers(0, 23), st.integers(0, 39), st.integers(1, 8), st.integers(1, 8)),
    max_size=6,
)


@settings(max_examples=60)
@given(
    blobs=blobs,
    pad_um=st.floats(0, 9),
    min_size_um=st.floats(0, 60),
    most=st.integers(1, 4),
)
def test_regions_are_whole_pixels_inside_the_map(
    blobs: list[tuple[int, int, int, int]], pad_um: float, min_size_um: float, most: int
) -> None:
    fe = background()
    for y, x, height, width in blobs:
        fe[y : y + height, x : x + width] += 150
    grid = COARSE.refined(FACTOR)
    regions = pick(
        enhanced({"Fe": fe}), find="Fe", pad_um=pad_um, min_size_um=min_size_um, max_regions=most
    )
    assert len(regions) <= most
    for one in regions:
        for axis, low, high in (
            (grid.fast, one.x_low_um, one.x_high_um),
            (grid.slow, one.y_low_um, one.y_high_um),
        ):
            assert low in axis.edges_um
            assert high in axis.edges_um
            assert high - low >= min(min_size_um, axis.high_um - axis.low_um) - 1e-6
    if any(min(high, 24 - y) * min(wide, 40 - x) >= 4 for y, x, high, wide in blobs):
        assert regions


def test_the_forecast_says_what_the_time_is_expected_to_find() -> None:
    fe = background()
    for x in range(2, 38, 9):
        fe[4:8, x : x + 4] += 200
    model = {"step_um": 1.0, "dwell_ms": 100.0}
    maps = enhanced({"Fe": fe})

    def forecast(budget_s: float | None) -> Forecast:
        rescans = RescanModel(**model, budget_s=budget_s)
        request = AnalysisRequest(find="Fe > 100", rescans=rescans)
        found = pick_regions(maps, request, source_uid="raw").forecast
        assert found is not None
        return found

    everything, half = forecast(None), forecast(9.0)
    assert everything.expected_targets == pytest.approx(4 * 0.97, abs=0.1)
    assert everything.share_found == everything.share_with_more_time == pytest.approx(1.0)
    assert everything.rescans_s < everything.whole_s / 5
    assert half.share_found == pytest.approx(0.5)
    assert half.rescans_s <= 9.0
    assert forecast(11.5).share_with_more_time == pytest.approx(0.75)
    assert "50% of 3.9 expected targets lie in the regions, which take" in str(half)
    assert Forecast.from_dict(half.to_dict()) == half
