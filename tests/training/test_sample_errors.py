"""What is expected of one very sample follows from an earlier map of it."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS
from xrf_sr_plans.sr.expected_error import shipped_errors
from xrf_sr_plans.training.phantoms import phantom
from xrf_sr_plans.training.sample_errors import counts_per_s_of, errors_on, sample_of

SEED = 1_500_321


def fine_map(counts: np.ndarray, step_um: float = 0.5, dwell_ms: float = 10.0) -> ElementalMaps:
    n_elements, height, width = counts.shape
    return ElementalMaps.from_arrays(
        counts,
        elements=[f"E{index}" for index in range(n_elements)],
        grid=ScanGrid(AxisGrid("x", 0.0, step_um, width), AxisGrid("y", 0.0, step_um, height)),
        dwell_ms=dwell_ms,
    )


def expected(family: str) -> dict[str, float]:
    table = errors_on(phantom(family, SEED, size=64, n_elements=2), shipped_errors())
    return {name: table.expected_db(name, 30.0) for name in table.psnr_db}


def test_of_a_smooth_sample_coarse_rows_are_expected_to_be_as_good_as_fine_ones():
    smooth, textured = expected("gradients"), expected("texture")
    lost = {name: textured[name] - textured["1"] for name in textured}
    assert lost["4 squares"] < lost["2 rows"] < 0
    assert smooth["4 rows"] - smooth["1"] > lost["4 rows"] + 1


def test_more_photons_are_never_expected_to_be_worse_and_the_same_map_says_the_same():
    sample = phantom("cells", SEED, size=64, n_elements=2)
    table = errors_on(sample, shipped_errors())
    for rows in table.psnr_db.values():
        assert rows[0] == sorted(rows[0])
    assert errors_on(sample, shipped_errors()) == table


def test_the_noise_of_an_earlier_map_is_no_structure():
    truth = phantom("gradients", SEED, size=64, n_elements=1)
    noisy = np.random.default_rng(0).poisson(truth * 30).astype(float)
    clean, seen = (
        sample_of(fine_map(counts), 0.5)[0] for counts in (truth * NOISE_FREE_COUNTS, noisy)
    )
    assert np.quantile(seen, 0.999) == pytest.approx(1)
    assert np.std(seen - clean) < 0.5 * np.std(noisy / 30 - truth)


def test_gaps_are_filled_and_what_is_constant_is_left_out():
    counts = phantom("cells", SEED, size=32, n_elements=3) * 100
    counts[1] = 7.0
    counts[:, 3:5, 4] = np.nan
    sample = sample_of(fine_map(counts), 0.5)
    assert sample.shape == (2, 32, 32)
    assert np.isfinite(sample).all()


def test_counts_per_second_are_those_where_elements_are_brightest():
    counts = np.zeros((3, 32, 32))
    counts[:, :8] = np.array([10.0, 50.0, 400.0])[:, None, None]
    assert counts_per_s_of(fine_map(counts, dwell_ms=20.0)) == pytest.approx(2500)
    assert counts_per_s_of(fine_map(0 * counts)) is None


@pytest.mark.parametrize(
    ("counts", "step_um", "words"),
    [
        (np.ones((1, 32, 32)), 1.0, "pixels of 1 x 1 um; they should be 0.5 um"),
        (np.ones((1, 8, 32)), 0.5, "32 x 8 pixels, which is too few"),
        (np.ones((1, 32, 32)), 0.5, "no element that varies"),
    ],
)
def test_a_map_that_says_nothing_is_refused(counts, step_um, words):
    with pytest.raises(ConfigError, match=words):
        sample_of(fine_map(counts, step_um), 0.5)
