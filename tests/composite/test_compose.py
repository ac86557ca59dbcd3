"""One map of a survey: counts where it was rescanned, the estimate elsewhere, honest sigma."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans.composite.compose import FineMap, compose
from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.composite.displacement import displacement
from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.usable import usable_counts_of
from xrf_sr_plans.physics.resample import upsample

ELEMENTS = ["Fe", "Zn"]
FACTOR = 2
FINE_UM = 0.5
SURVEY = ScanGrid.from_center(
    x_center_um=12.0, y_center_um=-5.0, width_um=60, height_um=40, step_um=FINE_UM
)
"""The composite map's pixels."""
_PER_UM = 8
_PAD_UM = 8.0


def _scene() -> np.ndarray:
    """Photons per coarse pixel (element, y, x) on 1/8 um, from 8 um below the survey's corner."""
    height, width = (
        round((axis.high_um - axis.low_um + 2 * _PAD_UM) * _PER_UM)
        for axis in (SURVEY.slow, SURVEY.fast)
    )
    rng = np.random.default_rng(7)
    planes = []
    for level in (60.0, 25.0):
        noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), 0.8 * _PER_UM)
        planes.append(level * np.exp(0.9 * noise / noise.std()))
    return np.stack(planes)


SCENE = _scene()


def truth(grid: ScanGrid, dx_um: float = 0.0, dy_um: float = 0.0) -> np.ndarray:
    """Expected photons per coarse pixel (element, y, x), where the stage is off by (dx, dy)."""
    edges = []
    for axis, whole, off in ((grid.slow, SURVEY.slow, dy_um), (grid.fast, SURVEY.fast, dx_um)):
        edges.append((axis.edges_um + off - whole.low_um + _PAD_UM) * _PER_UM)
    # Exact means over the pixels, from sums up to their corners.
    sums = np.pad(SCENE.cumsum(axis=1).cumsum(axis=2), [(0, 0), (1, 0), (1, 0)])
    rows, columns = np.meshgrid(*edges, indexing="ij")
    corners = np.stack([ndimage.map_coordinates(plane, [rows, columns], order=1) for plane in sums])
    whole = np.diff(np.diff(corners, axis=1), axis=2)
    return whole / (grid.slow.step_um * grid.fast.step_um * _PER_UM**2)


def part(rows: slice, columns: slice, *, step: int = 1) -> ScanGrid:
    """Return a grid of the survey's pixels, each `step` of them wide."""
    axes = {}
    for key, wanted in (("slow", rows), ("fast", columns)):
        axis: AxisGrid = getattr(SURVEY, key)
        first, after, _ = wanted.indices(axis.num)
        low_um, step_um = float(axis.edges_um[first]), axis.step_um * step
        axes[key] = AxisGrid(axis.name, low_um + step_um / 2, step_um, (after - first) // step)
    return replace(SURVEY, **axes)


def tile(
    rows: slice = slice(None), columns: slice = slice(None), i0: float = 1e5, seed: int = 0
) -> EnhancedMaps:
    """Return a prediction that is wrong by exactly the sigma it states, blurred like a bicubic."""
    grid = part(rows, columns)
    rng = np.random.default_rng(seed)
    expected = truth(grid)
    coarse = np.random.default_rng(seed + 1).poisson(expected[:, ::2, ::2]).astype(float)
    sigma = 0.3 * np.sqrt(expected)
    estimate = np.clip(expected + sigma * rng.standard_normal(expected.shape), 0.1, None)
    arrays = {
        "estimate": estimate,
        "sigma": sigma,
        "lower": estimate - 1.645 * sigma,
        "upper": estimate + 1.645 * sigma,
        "baseline": upsample(coarse, 2),
    }
    gain = i0 / 1e5
    return EnhancedMaps.from_arrays(
        grid,
        ELEMENTS,
        **{name: values * gain for name, values in arrays.items()},
        trusted=rng.uniform(size=expected.shape) > 0.1,
        factor=FACTOR,
        model={"name": "oracle", "sha256": "ab", "calibration": "c"},
        source_uid=f"tile {seed}",
        fallback="",
        notes=[],
        dwell_ms=10.0,
        i0_median=i0,
    )


def fine(
    grid: ScanGrid,
    uid: str = "fine",
    *,
    seed: int = 10,
    dwell_ms: float = 10.0,
    i0: float = 1e5,
    dx_um: float = 0.0,
    dy_um: float = 0.0,
    **changed: Any,
) -> FineMap:
    expected = truth(grid, dx_um, dy_um) * dwell_ms / 10.0 * i0 / 1e5
    counts = np.random.default_rng(seed).poisson(expected).astype(float)
    maps = ElementalMaps.from_arrays(
        counts,
        grid,
        ELEMENTS,
        i0=np.full(grid.shape, i0),
        dwell_ms=dwell_ms,
        probe_fwhm_um=0.5,
        **changed,
    )
    return FineMap(uid, maps)


BOX = slice(20, 44), slice(30, 62)
"""Rows and columns of a rescan."""


def deviations(composite: CompositeMap, where: np.ndarray) -> np.ndarray:
    """Return (value - truth) / sigma in the pixels (y, x) or (element, y, x) of a mask."""
    pulls = (composite.value.values - truth(composite.grid)) / composite.sigma.values
    return pulls[np.broadcast_to(where, pulls.shape)]


def test_rescanned_pixels_are_the_counts_and_the_others_the_estimate() -> None:
    one, other = tile(), fine(part(*BOX))
    composite = compose([one], [other], survey_uid="s")
    inside = np.zeros((2, *SURVEY.shape), dtype=bool)
    inside[(slice(None), *BOX)] = True
    np.testing.assert_array_equal(composite.measured.values, inside)
    np.testing.assert_array_equal(composite.source.values, inside.astype(int))
    counts = other.maps.counts.values
    np.testing.assert_array_equal(composite.value.values[(slice(None), *BOX)], counts)
    np.testing.assert_allclose(
        composite.sigma.values[(slice(None), *BOX)], np.sqrt(counts + 1), rtol=1e-12
    )
    for name, predicted in (("value", one.estimate), ("sigma", one.sigma)):
        values = composite.dataset[name].values
        np.testing.assert_array_equal(values[~inside], predicted.values[~inside])
    np.testing.assert_array_equal(composite.trusted.values, one.trusted.values | inside)
    assert composite.dataset.attrs["survey_uid"] == "s"
    assert composite.rescan_uids == ["fine"]
    (placement,) = composite.placements
    assert (placement.corrected_x_um, placement.corrected_y_um) == (0.0, 0.0)
    assert placement.pixels == 24 * 32
    assert abs(placement.dx_um) < 3 * placement.error_um
    assert placement.correlation > 0.7


@pytest.mark.parametrize("dwell_ms", [10.0, 2.5, 40.0])
def test_sigma_is_the_error_where_it_was_measured_and_where_it_was_not(dwell_ms: float) -> None:
    composite = compose([tile()], [fine(part(*BOX), dwell_ms=dwell_ms, i0=8e4)])
    measured = composite.measured.values
    assert np.mean(deviations(composite, measured) ** 2) == pytest.approx(1, abs=0.12)
    assert np.mean(deviations(composite, ~measured) ** 2) == pytest.approx(1, abs=0.12)
    share = np.mean(composite.sigma.values[measured]) / np.mean(np.sqrt(truth(SURVEY)[measured]))
    assert share == pytest.approx(np.sqrt(10 / dwell_ms / 0.8), rel=0.1)


def test_overlapping_rescans_are_added_up_by_their_exposure() -> None:
    short, long = fine(part(*BOX), "short"), fine(part(*BOX), "long", seed=11, dwell_ms=30.0)
    composite = compose([tile()], [short, long])
    here = (slice(None), *BOX)
    photons = short.maps.counts.values + long.maps.counts.values
    np.testing.assert_allclose(composite.value.values[here], photons / 4, rtol=1e-9)
    np.testing.assert_allclose(composite.sigma.values[here], np.sqrt(photons + 1) / 4, rtol=1e-9)
    assert (composite.source.values[here] == 2).all()
    assert np.mean(deviations(composite, composite.measured.values) ** 2) == pytest.approx(
        1, abs=0.12
    )


def test_rows_that_were_lost_stay_estimates() -> None:
    one, other = tile(), fine(part(*BOX))
    counts = other.maps.counts.values.copy()
    counts[:, 5:7] = np.nan
    counts[1, 10, 10] = np.nan
    lost = ElementalMaps.from_arrays(
        counts,
        other.maps.grid,
        ELEMENTS,
        coverage=np.isfinite(counts).any(axis=0),
        dwell_ms=10.0,
        probe_fwhm_um=0.5,
    )
    composite = compose([one], [FineMap("fine", lost)])
    measured = composite.measured.values[(slice(None), *BOX)]
    np.testing.assert_array_equal(measured, np.isfinite(counts))
    outside = ~composite.measured.values
    np.testing.assert_array_equal(composite.value.values[outside], one.estimate.values[outside])


@pytest.mark.parametrize(("dx_um", "dy_um"), [(0.35, -0.35), (-1.1, 0.8), (0.0, 0.35)])
def test_a_stage_that_is_off_is_measured_and_corrected(dx_um: float, dy_um: float) -> None:
    composite = compose([tile()], [fine(part(*BOX), dx_um=dx_um, dy_um=dy_um)])
    (placement,) = composite.placements
    # A fifth of a fine pixel.
    assert placement.dx_um == pytest.approx(dx_um, abs=0.1)
    assert placement.dy_um == pytest.approx(dy_um, abs=0.1)
    assert placement.corrected_y_um == placement.dy_um
    assert "moved by" in composite.notes[0]
    measured = composite.measured.values
    assert 600 < measured[0].sum() <= 24 * 32
    assert np.mean(deviations(composite, measured) ** 2) < 1.3
    # As its coordinates say, it would be off by many times its noise.
    counts = fine(part(*BOX), dx_um=dx_um, dy_um=dy_um).maps.counts.values
    assert np.mean((counts - truth(part(*BOX))) ** 2 / (counts + 1)) > 3


def test_photons_are_conserved_where_a_map_is_moved() -> None:
    other = fine(part(*BOX), dx_um=0.35, dy_um=-0.35)
    composite = compose([tile()], [other])
    inner = composite.value.values[:, 24:40, 36:56]
    expected = truth(SURVEY)[:, 24:40, 36:56]
    noise = np.sqrt(expected.sum(axis=(1, 2)))
    assert (np.abs(inner.sum(axis=(1, 2)) - expected.sum(axis=(1, 2))) < 4 * noise).all()


def test_without_structure_nothing_is_moved_and_it_is_said() -> None:
    grid = part(slice(0, 20), slice(0, 20))
    flat = np.random.default_rng(3).poisson(30.0, (2, *grid.shape)).astype(float)
    maps = ElementalMaps.from_arrays(flat, grid, ELEMENTS, dwell_ms=10.0)
    composite = compose([tile()], [FineMap("flat", maps)])
    (placement,) = composite.placements
    assert (placement.corrected_x_um, placement.corrected_y_um) == (0.0, 0.0)
    assert "flat: where it lies is not known better: " in composite.notes[0]
    np.testing.assert_array_equal(composite.value.values[:, :20, :20], flat)


def test_a_map_too_small_to_be_placed_is_used_as_it_is() -> None:
    other = fine(part(slice(0, 5), slice(0, 30)))
    composite = compose([tile()], [other])
    np.testing.assert_array_equal(composite.value.values[:, :5, :30], other.maps.counts.values)
    assert "fewer than 6 pixels" in composite.notes[0]


def test_a_map_of_which_little_was_measured_says_that_it_cannot_be_placed_for_that() -> None:
    other = fine(part(slice(0, 12), slice(0, 6)))
    counts = other.maps.counts.values.copy()
    counts[:, 3:] = np.nan
    begun = ElementalMaps.from_arrays(
        counts,
        other.maps.grid,
        ELEMENTS,
        coverage=np.isfinite(counts).any(axis=0),
        dwell_ms=10.0,
        probe_fwhm_um=0.5,
    )
    composite = compose([tile()], [FineMap("fine", begun)])
    assert composite.placements[0].pixels == 18
    assert composite.notes[0].endswith("only 18 pixels of it were measured")


def test_a_finer_map_is_added_up_and_a_coarser_one_shared_out() -> None:
    rows, columns = part(*BOX).slow, part(*BOX).fast
    finer = replace(part(*BOX), slow=rows.refined(2), fast=columns.refined(2))
    composite = compose([tile()], [fine(finer)])
    assert composite.measured.values.sum() == 2 * 24 * 32
    assert np.mean(deviations(composite, composite.measured.values) ** 2) == pytest.approx(
        1, abs=0.12
    )
    four = replace(tile(), dataset=tile().dataset.assign_attrs(factor=4))
    coarser = fine(part(*BOX, step=2))
    composite = compose([four], [coarser])
    here = composite.value.values[(slice(None), *BOX)]
    counts = coarser.maps.counts.values
    np.testing.assert_allclose(here, counts.repeat(2, axis=1).repeat(2, axis=2))
    # Neighbors share one count, whose error each of them has.
    np.testing.assert_allclose(
        composite.sigma.values[(slice(None), *BOX)],
        np.sqrt(counts + 1).repeat(2, axis=1).repeat(2, axis=2),
    )


def test_a_map_that_is_no_finer_than_the_survey_adds_nothing() -> None:
    composite = compose([tile()], [fine(part(*BOX, step=2))])
    assert not composite.measured.values.any()
    assert "not finer than the survey's" in composite.notes[0]


def test_tiles_are_joined_at_one_beam_intensity_and_a_rescan_may_cross_them() -> None:
    tiles = [
        tile(columns=slice(0, 46), seed=1),
        tile(columns=slice(46, None), i0=1.25e5, seed=2),
    ]
    other = fine(part(*BOX), i0=9e4)
    composite = compose(tiles, [other])
    assert composite.grid.shape == SURVEY.shape
    np.testing.assert_allclose(
        composite.value.values[(slice(None), *BOX)], other.maps.counts.values / 0.9, rtol=1e-6
    )
    unmeasured = ~composite.measured.values
    assert np.mean(deviations(composite, unmeasured) ** 2) == pytest.approx(1, abs=0.12)


def test_fine_maps_of_other_places_and_elements_are_left_out_by_name() -> None:
    away = part(*BOX)
    away = replace(away, fast=replace(away.fast, start_um=away.fast.start_um + 500))
    counts = np.ones((1, *part(*BOX).shape))
    other = ElementalMaps.from_arrays(counts, part(*BOX), ["Au"], dwell_ms=10.0)
    far = ElementalMaps.from_arrays(np.ones((2, *away.shape)), away, ELEMENTS, dwell_ms=10.0)
    composite = compose([tile()], [FineMap("away", far), FineMap("gold", other)])
    assert not composite.measured.values.any()
    assert any("away: it covers no pixel" in note for note in composite.notes)
    assert any("gold: not used: it has none of the elements" in note for note in composite.notes)


def test_no_fine_map_is_no_problem_and_no_tile_is_one() -> None:
    composite = compose([tile()], [])
    assert not composite.measured.values.any()
    np.testing.assert_array_equal(composite.value.values, tile().estimate.values)
    with pytest.raises(GridError, match="no tiles"):
        compose([], [])


def test_what_no_memory_holds_is_refused_before_any_is_taken(monkeypatch) -> None:
    from xrf_sr_plans.composite import compose as module

    monkeypatch.setattr(module, "memory_bytes", lambda: 2**20)
    with pytest.raises(GridError, match=r"a composite map of 1 tiles needs 0.0 GiB; this machine"):
        compose([tile()], [])


def test_the_error_of_a_displacement_is_not_understated() -> None:
    rng = np.random.default_rng(5)
    predicted, pulls = tile(), []
    for seed in range(16):
        row, column = rng.integers(0, 80 - 20), rng.integers(0, 120 - 20)
        off_um = rng.uniform(-1.2, 1.2, 2)
        box = part(slice(row, row + 20), slice(column, column + 20))
        other = fine(box, seed=seed, dx_um=off_um[0], dy_um=off_um[1]).maps
        usable, scale = usable_counts_of(other), np.ones(other.grid.shape)
        found = displacement(predicted, other, usable, scale)
        if not found.problem:
            pulls.append((found.dx_um - off_um[0]) / found.error_x_um)
            pulls.append((found.dy_um - off_um[1]) / found.error_y_um)
    assert len(pulls) >= 24
    assert np.sqrt(np.mean(np.square(pulls))) < 1.2
    assert np.abs(pulls).max() < 3


def test_a_pattern_that_repeats_within_reach_is_not_moved() -> None:
    y, x = np.indices(SURVEY.shape)
    # Once every five fine pixels, where it is searched within six.
    lattice = 60 + 40 * np.cos(x * 2 * np.pi / 5) * np.cos(y * 2 * np.pi / 5)
    planes = np.stack([lattice, lattice / 2])
    names = ("estimate", "lower", "upper", "baseline")
    predicted = tile()
    dataset = predicted.dataset.assign(dict.fromkeys(names, (("element", "y", "x"), planes)))
    counts = np.random.default_rng(2).poisson(planes[(slice(None), *BOX)]).astype(float)
    maps = ElementalMaps.from_arrays(counts, part(*BOX), ELEMENTS, dwell_ms=10.0)
    composite = compose([EnhancedMaps(dataset, predicted.grid)], [FineMap("lattice", maps)])
    assert "several places match about as well" in composite.notes[0]
    assert (composite.placements[0].corrected_x_um, composite.placements[0].corrected_y_um) == (
        0,
        0,
    )


def test_a_map_from_beyond_the_reach_is_not_moved() -> None:
    composite = compose([tile()], [fine(part(*BOX), dx_um=6.0, dy_um=0.0)])
    (placement,) = composite.placements
    assert (placement.corrected_x_um, placement.corrected_y_um) == (0.0, 0.0)
    assert "not known better" in placement.note
