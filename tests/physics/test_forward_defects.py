"""The forward model's scan defects."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.physics.forward import i0_ripple, probe_blur, shift_rows


def test_every_second_row_is_shifted_and_the_others_are_not():
    ramp = np.broadcast_to(np.arange(20.0), (4, 20)).copy()
    shifted = shift_rows(ramp, 0.5)
    np.testing.assert_array_equal(shifted[0], ramp[0])
    np.testing.assert_allclose(shifted[1, 2:-2], ramp[1, 2:-2] - 0.5)


def test_a_measured_psf_keeps_the_total():
    spot = np.zeros((1, 15, 15))
    spot[0, 7, 7] = 10.0
    psf = np.random.default_rng(0).random((5, 5))
    assert probe_blur(spot, 1.0, None, psf).sum() == pytest.approx(10.0)


@pytest.mark.parametrize("num", [1, 4, 200])
def test_the_beam_ripples_as_much_in_short_rows_as_in_long_ones(num):
    rng = np.random.default_rng(0)
    rows = np.array([i0_ripple(num, 0.02, rng) for _ in range(2000)])
    assert rows.shape == (2000, num)
    assert np.sqrt(np.mean((rows - 1) ** 2)) == pytest.approx(0.02, rel=0.1)
