"""A fine map in the frame of a coarse one: what it shows, how noisy it is, where it is known."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.registration.fine_on_coarse import fine_on_coarse
from xrf_sr_plans.registration.pair_registration import PairRegistration

COARSE = ScanGrid(AxisGrid("x", 1.0, 2.0, 40), AxisGrid("y", 1.0, 2.0, 30))
FINE = COARSE.refined(2)
MIDDLE_X, MIDDLE_Y = 40.0, 30.0


def picture(x, y):
    return 60 + 30 * np.sin(x / 4) * np.cos(y / 3) + 0.2 * x


def as_maps(counts):
    return ElementalMaps.from_arrays(counts, FINE, ["Fe"], dwell_ms=10.0)


def test_shift_scale_drift_and_row_shift_are_taken_out():
    drift_x = tuple(np.linspace(-1, 1, 30))
    drift_y = tuple(0.5 * np.sin(np.arange(30) / 5))
    moved = PairRegistration(
        2, 1.3, -0.7, 1.01, 1.005, drift_x, drift_y, fine_row_shift_um=0.4, coarse_row_shift_um=0.9
    )
    x, y = np.meshgrid(FINE.fast.centers_um, FINE.slow.centers_um)
    # The sample in the frame of the fine map; its rows 1, 3, ... show what lies before.
    shifted = x - 0.4 * (np.arange(60) % 2)[:, None]
    fine = as_maps(picture(shifted, y)[None])
    made = fine_on_coarse(fine, COARSE, moved)
    rows = moved.row_displacements_um(30)
    along = [np.interp(y[:, 0], COARSE.slow.centers_um, rows[:, axis]) for axis in (0, 1)]
    seen_x = (x - MIDDLE_X - along[0][:, None]) / 1.01 + MIDDLE_X
    seen_y = (y - MIDDLE_Y - along[1][:, None]) / 1.005 + MIDDLE_Y
    inner = made.measured[5:-5, 5:-5]
    assert inner.mean() > 0.95
    error = (made.counts[0] - picture(seen_x, seen_y))[5:-5, 5:-5][inner]
    assert np.abs(error).max() < 0.5


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.3, 0.2)])
def test_the_variance_is_that_of_the_values(shift):
    rng = np.random.default_rng(0)
    expected = np.full(FINE.shape, 50.0)
    moved = PairRegistration(2, *shift)
    values = [
        fine_on_coarse(as_maps(rng.poisson(expected)[None].astype(float)), COARSE, moved)
        for _ in range(60)
    ]
    spread = np.var([one.counts[0, 5:-5, 5:-5] for one in values], axis=0).mean()
    told = np.mean([one.variance[0, 5:-5, 5:-5] for one in values])
    assert told == pytest.approx(spread, rel=0.05)
    assert told > 0.6 * 50


def test_what_lies_outside_or_is_unmeasured_or_unknown_is_not_measured():
    counts = np.full((1, *FINE.shape), 9.0)
    counts[:, 30:32] = np.nan
    errors = (*[0.05] * 25, *[9.0] * 5)
    made = fine_on_coarse(
        as_maps(counts), COARSE, PairRegistration(2, 4.0, 0.0, row_error_px=errors)
    )
    assert not made.measured[:, :4].any()
    assert not made.measured[30:32].any()
    assert not made.measured[50:].any()
    assert made.measured[10:20, 10:-10].all()
    assert np.isnan(made.counts[0, 0, 0])
    assert np.isfinite(made.variance[0][made.measured]).all()


def test_nothing_displaced_gives_the_counts_as_they_are():
    counts = np.random.default_rng(0).poisson(20.0, (1, *FINE.shape)).astype(float)
    made = fine_on_coarse(as_maps(counts), COARSE, PairRegistration(2, 0.0, 0.0))
    np.testing.assert_allclose(made.counts, counts, atol=1e-9)
    assert made.measured.all()


def test_a_pair_that_is_not_registered_is_refused():
    nan = float("nan")
    with pytest.raises(GridError, match="too small"):
        fine_on_coarse(
            as_maps(np.ones((1, *FINE.shape))),
            COARSE,
            PairRegistration(2, nan, nan, problem="too small"),
        )
