"""Rows: maps are read out finely along the fast axis wherever the hardware takes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from hypothesis import given, settings
from hypothesis import strategies as st

from support.plan_support import (
    Interrupting,
    Recorder,
    pause,
    same_map,
    small_beamline,
    small_survey,
)
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.faults import HungFlyer
from xrf_sr_plans.errors import ConfigError, LimitsError, RefusedError
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.row_pixels import RowPixels
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.plans.xrf_map import xrf_map

AREA = {"width_um": 6, "height_um": 4, "step_um": 1, "dwell_ms": 8}
HERE = {"x_center_um": 0.0, "y_center_um": 0.0}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def flown(**beamline: Any) -> Recorder:
    """Return what an xrf_map of 4 pixels per step records on such a beamline."""
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    run_engine(xrf_map(small_beamline(**beamline), **AREA, **HERE, factor=4))
    return recorder


@given(
    num=st.integers(1, 9),
    rows=st.integers(1, 9),
    step_um=st.floats(0.01, 50),
    start_um=st.floats(-1e3, 1e3),
    number=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=50)
def test_pixels_of_rows_split_the_square_ones_and_keep_time_velocity_and_edges(
    num, rows, step_um, start_um, number
):
    squares = ScanGrid(AxisGrid("x", start_um, step_um, num), AxisGrid("y", 0.0, step_um, rows))
    pixels = RowPixels(number)
    grid, dwell_ms = pixels.of(squares), pixels.dwell_ms(10.0)
    assert grid.slow == squares.slow
    assert grid.fast.num * dwell_ms == pytest.approx(num * 10.0)
    assert grid.fast.step_um / dwell_ms == pytest.approx(step_um / 10.0)
    assert grid.run_up_um == squares.run_up_um
    np.testing.assert_allclose(
        np.array(grid.extents_um), np.array(squares.extents_um), atol=1e-9 * step_um + 1e-12
    )
    inner = grid.fast.centers_um.reshape(num, number).mean(axis=1)
    np.testing.assert_allclose(inner, squares.fast.centers_um, atol=1e-2 * step_um / number)


def test_an_xrf_map_is_rows_in_the_time_of_the_square_map():
    beamline = small_beamline()
    rows = preview(xrf_map, beamline, **AREA, **HERE, factor=4)
    squares = preview(xrf_map, beamline, **AREA, **HERE, factor=4, sampling="squares")
    assert (rows.maps[0].grid.shape, squares.maps[0].grid.shape) == ((4, 24), (4, 6))
    assert (rows.maps[0].dwell_ms, squares.maps[0].dwell_ms) == (2.0, 8.0)
    assert rows.time_s == pytest.approx(squares.time_s)
    assert rows.dose == pytest.approx(squares.dose)
    (about_rows,), (about_squares,) = rows.notes, squares.notes
    assert "0.25 um and 2 ms: 4 to a step" in about_rows
    assert about_squares == "squares, as asked for"


@pytest.mark.parametrize("encoder_noise_um", [0.0, 0.01])
def test_every_frame_of_a_row_lies_in_its_pixel_in_either_direction(encoder_noise_um):
    recorder = flown(encoder_noise_um=encoder_noise_um, backlash_um=0.0)
    (start,) = recorder.starts
    builder = recorder.builder(start)
    maps = builder.maps()
    assert builder.complete
    assert (maps.coverage.values == 1).all(), "snake rows too, each frame in a pixel of its own"
    assert (maps.grid.fast.step_um, maps.grid.slow.step_um) == (0.25, 1.0)
    assert maps.attrs["sampling"] == "rows"
    assert (maps.attrs["step_um"], maps.attrs["dwell_ms"]) == (1.0, 2.0)


def test_the_photons_of_a_row_are_those_of_squares_and_show_where_they_came_from():
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    facts = {"i0_ripple": 0.0, "encoder_noise_um": 0.0, "backlash_um": 0.0, "probe_fwhm_um": 0.3}
    beamline = small_beamline(**facts)
    area = {"width_um": 40, "height_um": 10, "step_um": 1, "dwell_ms": 2000}
    for sampling in ("rows", "squares"):
        run_engine(xrf_map(beamline, **area, **HERE, factor=4, sampling=sampling))
    rows, squares = (recorder.builder(start).maps().counts.values for start in recorder.starts)
    sums = block_mean(rows, (1, 4)) * 4
    noise = np.sqrt(sums + squares + 1)
    assert np.abs((sums - squares) / noise).max() < 5.5
    assert np.mean(((sums - squares) / noise) ** 2) == pytest.approx(1.0, abs=0.2)


def test_a_paused_survey_in_rows_measures_what_an_undisturbed_one_does(run_engine, recorder):
    changes = {"factor": 4, "tile_um": None, "rescan": "propose"}
    run_engine(small_survey(small_beamline(seed=3), **changes))
    other = RunEngine({}, call_returns_result=True)
    paused = Recorder(other)
    with pytest.raises(RunEngineInterrupted):
        other(iter(Interrupting(small_survey(small_beamline(seed=3), **changes), 30, pause)))
    other.resume()
    one, two = (kept.builder(kept.starts[0]) for kept in (recorder, paused))
    assert one.grid.shape == (3, 32)
    same_map(two, one)


def test_a_row_that_is_lost_is_missing_as_a_whole_and_no_other_one():
    recorder = flown(faults=[HungFlyer(rows=(2,), attempts=None)])
    (start,) = recorder.starts
    coverage = recorder.builder(start).maps().coverage.values
    np.testing.assert_array_equal(np.flatnonzero((coverage == 0).all(axis=1)), [2])
    assert (coverage[[0, 1, 3]] == 1).all()


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"max_rate_hz": 400}, "500 frames/s; the detectors take at most 400"),
        ({"encoder_um": 0.5}, "a pixel of 0.25 um is shorter than 0.5 um"),
        ({"max_points": 60}, "24 x 4 = 96 pixels; sim takes at most 60"),
        ({"readout_ms": 0.5}, "read out for 0.5 of 2 ms, more than 10%"),
        ({"readout_ms": 2.0}, "dwell_ms 2 leaves no time to count"),
    ],
)
def test_a_survey_falls_back_to_squares_where_the_hardware_does_not_take_rows(
    run_engine, recorder, facts, says
):
    beamline = small_beamline(**facts)
    wishes = {**AREA, **HERE, "factor": 4, "rescan": "propose", "fine_step_um": 0.5}
    seen = preview(coarse_survey_with_sr, beamline, **wishes)
    assert seen.allowed
    assert seen.maps[0].grid.shape == (4, 6)
    assert seen.notes[0].startswith("squares, because rows are not possible: ")
    assert says in seen.notes[0]
    run_engine(coarse_survey_with_sr(beamline, **wishes))
    metadata = recorder.starts[0]["xrf_sr"]
    assert (metadata["sampling"], metadata["fast_pixels"], metadata["dwell_ms"]) == ("fly", 1, 8)


def test_a_single_map_is_read_out_as_finely_as_the_hardware_takes():
    seen = preview(xrf_map, small_beamline(encoder_um=0.5), **AREA, **HERE, factor=4)
    assert seen.maps[0].grid.shape == (4, 12)
    assert "in pixels of 0.5 um" in seen.notes[0]


@pytest.mark.parametrize(
    ("facts", "kind", "says"),
    [
        ({"max_rate_hz": 400}, LimitsError, "sampling 'rows': dwell_ms 2 means 500 frames/s"),
        ({"encoder_um": 0.5}, LimitsError, "sampling 'rows': axis 'samx': a pixel of 0.25 um"),
        ({"max_points": 60}, LimitsError, "sampling 'rows': 24 x 4 = 96 pixels"),
    ],
)
def test_rows_that_are_asked_for_are_refused_where_they_are_not_possible(
    run_engine, recorder, facts, kind, says
):
    beamline = small_beamline(**facts)
    wishes = {**AREA, **HERE, "factor": 4, "sampling": "rows"}
    seen = preview(coarse_survey_with_sr, beamline, **wishes)
    assert says in "; ".join(seen.problems)
    with pytest.raises(kind, match=says):
        run_engine(coarse_survey_with_sr(beamline, **wishes))
    assert recorder.docs == []


def test_rows_may_be_asked_for_although_reading_out_takes_much_of_their_time():
    beamline = small_beamline(readout_ms=0.5)
    seen = preview(xrf_map, beamline, **AREA, **HERE, factor=4, sampling="rows")
    assert seen.allowed
    assert seen.maps[0].grid.shape == (4, 24)


def test_squares_that_the_hardware_does_not_take_are_refused_as_before(run_engine, recorder):
    with pytest.raises(LimitsError, match="dwell_ms 8 means 125 frames/s"):
        run_engine(xrf_map(small_beamline(max_rate_hz=100), **AREA, **HERE))
    grid = ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=2, height_um=2, step_um=0.5, fast="samx", slow="samy"
    )
    for facts, says in (
        ({"encoder_um": 0.6}, "the resolution of its encoder"),
        ({"readout_ms": 8.0}, "leaves no time to count"),
    ):
        with pytest.raises(LimitsError, match=says):
            run_engine(fly_map(small_beamline(**facts), grid, dwell_ms=8.0))
    assert recorder.docs == []


@pytest.mark.parametrize("plan", [xrf_map, coarse_survey_with_sr])
def test_another_sampling_is_refused_in_words(plan):
    with pytest.raises(RefusedError, match="sampling is 'fly'; it should be 'rows' or 'squares'"):
        RunEngine({})(plan(small_beamline(), **AREA, **HERE, sampling="fly"))


def test_a_beamline_takes_no_impossible_encoder_or_readout():
    for wrong in ({"encoder_um": 0.0}, {"readout_ms": -1.0}, {"readout_ms": float("nan")}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            make_beamline(**wrong)
