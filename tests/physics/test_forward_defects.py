"""The forward model's scan defects and its emission lines."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError
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


xraydb = pytest.importorskip("xraydb")

from xrf_sr_plans.physics.lines import (  # noqa: E402
    Matrix,
    detector_efficiency,
    main_line,
    self_absorption,
    sensitivity,
)


@pytest.mark.parametrize(
    ("element", "name", "kev"), [("Fe", "Ka1", 6.40), ("Zn", "Ka1", 8.64), ("Pb", "La1", 10.55)]
)
def test_the_main_line_is_where_the_tables_say(element, name, kev):
    line = main_line(element, 14000.0)
    assert line.name == name
    assert line.energy_ev / 1000 == pytest.approx(kev, abs=0.01)


def test_below_the_edge_the_next_shell_takes_over_or_nothing_does():
    assert main_line("Pb", 12000.0).name.startswith("M")
    with pytest.raises(ConfigError, match="no line"):
        main_line("H", 12000.0)
    with pytest.raises(ConfigError, match="not a chemical element"):
        main_line("Xx", 12000.0)


def test_air_and_window_eat_light_elements_and_thin_silicon_misses_hard_ones():
    phosphorus, iron, hard = (detector_efficiency(e) for e in (2013.0, 6400.0, 25000.0))
    assert phosphorus < 0.4 < 0.9 < iron
    assert hard < 0.5


def test_a_thin_sample_absorbs_nothing_and_a_thick_one_soft_lines_first():
    thin, thick = Matrix("SiO2", 2.65, 0.01), Matrix("SiO2", 2.65, 50.0)
    assert self_absorption(2013.0, thin, 12000.0) == pytest.approx(1.0, abs=0.01)
    assert self_absorption(2013.0, thick, 12000.0) < 0.1 < self_absorption(8637.0, thick, 12000.0)


def test_sensitivity_is_relative_to_the_strongest_line():
    found = sensitivity(["P", "Fe", "Zn"], 12000.0, matrix=Matrix("SiO2", 2.65, 30.0))
    assert found.max() == 1.0
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("field", ["density_g_cm3", "thickness_um", "takeoff_deg"])
def test_a_matrix_without_substance_is_refused(field):
    known = {"density_g_cm3": 2.0, "thickness_um": 10.0, "takeoff_deg": 15.0} | {field: 0.0}
    with pytest.raises(ConfigError, match=field):
        Matrix("SiO2", **known)
