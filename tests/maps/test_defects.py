"""What a detector or a stage made is told from what a sample can give."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.maps.defects import find_defects
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.training.phantoms import FAMILIES, VALIDATION_SEED, phantom
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

NAMES = ["Fe", "Zn", "Ca"]


def sample(size: int = 48) -> np.ndarray:
    """Three elements with edges and a background: (element, y, x), 0..1."""
    y, x = np.mgrid[:size, :size] / size
    disc = (np.hypot(y - 0.5, x - 0.45) < 0.3).astype(float)
    stripe = (np.abs(x - 0.3 - 0.3 * y) < 0.06).astype(float)
    return np.stack([disc + 0.1, stripe + 0.05, 0.5 * disc + 0.5 * stripe + 0.1]) / 1.1


def counted(peak: float = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(peak * sample()).astype(float)


@pytest.mark.parametrize("place", [(3, 3), (24, 24), (0, 20), (47, 47), (10, 31)])
def test_a_hot_pixel_is_unmeasured_for_its_element_only_and_named(place) -> None:
    counts = counted()
    counts[(0, *place)] = 1e4
    found = find_defects(counts, NAMES)
    assert found.hot_pixels == ((0, *place),)
    assert found.mask.sum() == 1
    (note,) = found.notes
    assert f"Fe: hot pixel at row {place[0]}, column {place[1]}: 10000 photons" in note


def test_many_hot_pixels_are_found_unless_the_probe_is_so_small_that_they_may_be_particles() -> (
    None
):
    counts, places = counted(), [(5, 40), (20, 20), (40, 7), (44, 44), (44, 45)]
    for number, place in enumerate(places, start=1):
        counts[(1, *place)] = 1e4
        if number == 3:
            assert len(find_defects(counts, NAMES).hot_pixels) == 3
    counts[1, 8, 8] = 2e4
    assert len(find_defects(counts, NAMES).hot_pixels) == 6
    assert find_defects(counts, NAMES, (0.1, 0.1)).hot_pixels == ()
    # One of them has a tail, as particles have.
    counts[1, 8, 9] = 4e3
    assert find_defects(counts, NAMES).hot_pixels == ()


def test_a_particle_in_several_elements_is_no_hot_pixel() -> None:
    counts = counted()
    counts[0, 10, 40], counts[1, 10, 40] = 1e4, 60
    assert find_defects(counts, NAMES).notes == ()


def test_a_particle_of_moderate_contrast_is_no_hot_pixel() -> None:
    for times in (3, 10, 20):
        counts = counted()
        counts[0, 10, 40] = times * counts[0].max()
        assert find_defects(counts, NAMES).notes == ()


@pytest.mark.parametrize("width", [0.6, 1.0, 1.5])
def test_a_point_seen_by_a_probe_is_no_hot_pixel_however_bright_it_is(width) -> None:
    rng, size = np.random.default_rng(1), 48
    axis = np.arange(size)
    for _ in range(20):
        y, x = rng.uniform(10, 38, 2)
        if width < 1:
            # A probe that is much narrower shows its tails off the middle of a pixel only.
            y, x = np.round(y) + 0.4, np.round(x)
        sigma = width / 2.3548
        spot = np.exp(-((axis[:, None] - y) ** 2 + (axis - x) ** 2) / (2 * sigma**2))
        counts = counted()
        counts[0] = rng.poisson(5 + 1e5 * spot)
        assert find_defects(counts, NAMES, (width, width)).notes == ()


def test_a_probe_as_wide_as_a_step_makes_a_lone_pixel_impossible() -> None:
    counts = counted(1000)
    # Ten times the brightest pixel of the map, in the empty corner.
    counts[0, 3, 3] = 1e4
    assert find_defects(counts, NAMES).notes == ()
    assert find_defects(counts, NAMES, (0.2, 0.2)).notes == ()
    assert find_defects(counts, NAMES, (1.2, 1.2)).hot_pixels == ((0, 3, 3),)


def test_a_lone_bright_pixel_that_may_be_a_particle_is_kept_and_named_as_doubtful() -> None:
    counts = counted(1000)
    counts[0, 3, 3] = 1e4
    found = find_defects(counts, NAMES)
    assert not found.mask.any()
    assert found.doubtful_pixels == ((0, 3, 3),)
    (line,) = found.doubts
    assert "Fe: the pixel at row 3, column 3 is 99 times as bright" in line
    assert "a particle or a hot pixel, which can't be told without the size of the probe" in line
    (line,) = find_defects(counts, NAMES, (0.2, 0.2)).doubts
    assert "which a probe of that size can't tell" in line
    # A probe that is known to be wider leaves no doubt: it is hot.
    assert find_defects(counts, NAMES, (1.2, 1.2)).doubts == ()


def test_what_shows_in_another_element_or_has_a_tail_leaves_no_doubt() -> None:
    counts = counted(1000)
    counts[0, 3, 3], counts[0, 3, 4] = 1e4, 600
    assert find_defects(counts, NAMES).doubts == ()
    counts = counted(1000)
    counts[0, 3, 3], counts[2, 3, 3] = 1e4, 400
    assert find_defects(counts, NAMES).doubts == ()


def test_a_lone_pixel_among_brighter_ones_leaves_no_doubt() -> None:
    counts = counted(1000)
    counts[0, 3, 3] = 900
    assert find_defects(counts, NAMES).doubts == ()


def test_many_doubtful_pixels_are_named_in_one_line_and_a_map_full_of_them_in_none() -> None:
    rng = np.random.default_rng(0)
    counts = counted(1000)
    for row in range(1, 48, 10):
        counts[0, row, 44] = 1e4
    found = find_defects(counts, NAMES)
    assert len(found.doubtful_pixels) == 5
    (line,) = found.doubts
    assert "Fe: 5 pixels are 3 or more times as bright as all around them" in line
    dots = 1e4 * (rng.random((1, 48, 48)) < 0.04) + 5.0
    assert find_defects(dots).doubtful_pixels == ()


def test_nothing_is_said_of_a_pixel_that_has_no_measured_neighbours() -> None:
    counts = counted(1000)
    counts[:, 10:13, 10:13] = np.nan
    counts[:, 11, 11] = (1e4, 3, 5)
    assert find_defects(counts, NAMES).doubtful_pixels == ()


@pytest.mark.parametrize("peak", [10, 50, 1000])
def test_a_dead_row_is_unmeasured_in_all_elements_and_its_neighbours_are_not(peak) -> None:
    counts = counted(peak)
    counts[:, 20] = 0
    found = find_defects(counts, NAMES)
    assert found.dead_rows == (20,)
    assert found.mask[:, 20].all()
    assert found.mask.sum() == 3 * 48
    assert "row 20: dead: 0 photons in all elements together" in found.notes[0]
    counts[2, 20, 7] = 1
    if peak > 10:
        assert find_defects(counts, NAMES).dead_rows == (20,)


def test_an_element_that_is_missing_in_a_row_is_no_dead_row() -> None:
    counts = counted()
    counts[:2, 20] = 0
    assert find_defects(counts, NAMES).notes == ()


def test_a_gap_of_two_rows_and_an_empty_half_are_a_samples() -> None:
    counts = counted()
    counts[:, 20:22] = 0
    counts[:, 40:] = 0
    assert find_defects(counts, NAMES).notes == ()


@pytest.mark.parametrize("peak", [10, 50, 1000])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_doubled_row_is_unmeasured_in_all_elements(peak, backwards) -> None:
    counts = counted(peak)
    counts[:, 17] = counts[:, 16, ::-1] if backwards else counts[:, 16]
    found = find_defects(counts, NAMES)
    assert found.doubled_rows == (17,)
    assert found.mask.sum() == 3 * 48
    assert "row 17: rows 16 and 17 are alike" in found.notes[0]


def test_rows_that_are_alike_by_chance_or_for_want_of_noise_are_left_alone() -> None:
    few = np.zeros((1, 48, 48))
    few[0, 10, 3] = few[0, 11, 3] = 1
    assert find_defects(few).notes == ()
    assert find_defects(1e3 * sample()).notes == ()
    assert find_defects(np.broadcast_to(counted()[:, :1], (3, 48, 48))).notes == ()


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("first", [False, True])
def test_empty_columns_at_an_end_of_the_rows_are_unmeasured(number, first) -> None:
    counts = counted()
    columns = list(range(number)) if first else list(range(48 - number, 48))
    counts[:, :, columns] = 0
    found = find_defects(counts, NAMES)
    assert list(found.bad_columns) == columns
    assert found.mask.sum() == 3 * 48 * number
    assert f"column {', '.join(map(str, columns))}: nothing in all elements" in (found.notes[0])


def test_columns_with_one_number_copies_and_multiples_are_unmeasured() -> None:
    for values, reason in (
        (65535.0, "the same value in all rows"),
        (counted()[:, :, 46], "a copy of the column beside it"),
        (30 * counted(500)[:, :, 46], "many times the column beside it"),
    ):
        counts = counted(500 if "times" in reason else 50)
        counts[:, :, 47] = values
        found = find_defects(counts, NAMES)
        assert found.bad_columns == (47,)
        assert reason in found.notes[0]


def test_the_edges_of_a_sample_are_no_bad_columns() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for edge in (
        x < 44,  # parallel to the columns, four of them empty
        x + 0.1 * y < 47,  # slanted
        np.hypot(y - 20, x - 25) < 20,  # round
        x < 45.5 + rng.uniform(-1, 1, (48, 1)),  # rough
    ):
        assert find_defects(rng.poisson(50 * sample() * edge).astype(float)).notes == ()
    # Parallel, two columns wide, with a background of a fiftieth or with half a pixel covered.
    dim = np.where(x < 46, 1.0, 0.02)
    assert find_defects(rng.poisson(200 * sample() * dim).astype(float)).notes == ()
    half = np.select([x < 45, x == 45], [1.0, 0.5], 0.0)
    assert find_defects(rng.poisson(200 * sample() * half).astype(float)).notes == ()
    # The same, whatever the background and however bright the sample.
    for level, background in ((5, 0.05), (50, 0.02), (500, 0.1), (500, 2)):
        for end in (45, 46, 47):
            expected = level * sample() * (x < end) + background
            assert find_defects(rng.poisson(expected).astype(float)).bad_columns == ()
    # One element ends, and one begins, in the last column.
    counts = counted(200)
    counts[0, :, 47], counts[1, :, 46:] = 0, 20 * counts[1, :, 46:]
    assert find_defects(counts, NAMES).notes == ()


def test_a_sample_with_straight_edges_elsewhere_may_have_one_near_the_end_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    # A pad and a grating, exactly between two columns, without background and blur.
    for made in ((x >= 10) & (x < 46) & (y > 5), (x % 8 < 6) & (x < 46)):
        assert find_defects(rng.poisson(100.0 * made[None].repeat(2, 0))).notes == ()
    # One that goes on to the end of the rows, and its last two columns are lost.
    whole = rng.poisson(100.0 * np.ones((2, 48, 48)))
    whole[:, :, 46:] = 0
    assert find_defects(whole).bad_columns == (46, 47)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_nothing_is_found_in_clean_maps_of_phantoms(family) -> None:
    rng = np.random.default_rng(0)
    painted = phantom(family, VALIDATION_SEED + 500, size=128, n_elements=3)
    for factor in (2, 4):
        for level in (1, 30, 1000, 1e4):
            for width in (0.0, 1.0):
                how = Measurement(factor, "fly", width)
                counts = simulate(painted, Simulation.plain(how, level, 3), rng).counts
                assert find_defects(counts, NAMES, (width, width)).notes == ()


def test_unmeasured_pixels_and_small_or_empty_maps_do_no_harm() -> None:
    counts = counted()
    counts[:, 5:9, 10:20], counts[1, :, 47], counts[2] = np.nan, np.nan, np.nan
    counts[0, 30, 30] = 1e4
    found = find_defects(counts, NAMES)
    assert found.hot_pixels == ((0, 30, 30),)
    for shape in ((0, 5, 5), (2, 3, 40), (1, 1, 1), (2, 20, 20)):
        assert find_defects(np.zeros(shape)).notes == ()
        assert find_defects(np.full(shape, np.nan)).notes == ()
