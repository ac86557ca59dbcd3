"""Maps that a beamline's own plan flies: the same documents, out of the file that it leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal

from support.plan_support import (
    QUICK,
    Interrupting,
    Recorder,
    later,
    pause,
    same_map,
    small_beamline,
)
from support.scan_record import (
    ELEMENTS,
    LIVE_S,
    ScanRecord,
    photons,
    read_npz,
    write_maps_h5,
)
from xrf_sr_plans.devices.own_plan_flyer import OwnPlanFlyer
from xrf_sr_plans.devices.scan_file import ScanFile
from xrf_sr_plans.errors import ConfigError, FlightError, RefusedError
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.xrf_map import xrf_map

MAP = {
    "x_center_um": 1.0,
    "y_center_um": 2.0,
    "width_um": 6,
    "height_um": 5,
    "step_um": 1,
    "dwell_ms": 10,
    "sampling": "squares",
}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


class Place:
    """A beamline whose scan record writes files into a folder."""

    def __init__(self, folder: Any, **options: Any) -> None:
        sim = small_beamline()
        self.microscope = sim.microscope
        self.record = ScanRecord(folder, lambda: sim.microscope.shutter_open)
        self.flyer = OwnPlanFlyer(
            options.pop("scan", self.record.plan),
            ScanFile(folder, "*.h5", settle_s=0.05),
            **{
                "name": "xrf",
                "elements": ELEMENTS,
                "reader": read_npz,
                "stop": self.record.abort,
                "busy": lambda: self.record.busy,
                "timeout_s": 1.0,
                **options,
            },
        )
        self.beamline = replace(sim, flyer=self.flyer)

    @property
    def is_safe(self) -> bool:
        return not (self.microscope.shutter_open or self.record.busy)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def truth(maps: Any) -> np.ndarray:
    return photons(maps.counts["x"].values[None, :], maps.counts["y"].values[:, None])


@pytest.mark.parametrize("kind", ["a reader of one's own", "MAPS HDF5"])
def test_every_pixel_of_the_file_is_in_its_place(run_engine, recorder, tmp_path, kind):
    place = Place(tmp_path)
    if kind == "MAPS HDF5":
        place = Place(tmp_path, reader=None)
        place.record.write = write_maps_h5
    run_engine(xrf_map(place.beamline, **MAP))
    (start,) = recorder.starts
    builder = recorder.builder(start)
    assert builder.complete
    maps = builder.maps()
    assert list(maps.counts["element"].values) == list(ELEMENTS)
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)
    np.testing.assert_allclose(recorder.events("primary")[0]["data"]["xrf_live_time"], LIVE_S)
    assert start["xrf_sr"]["sampling"] == "fly"
    assert recorder.stop_of(start["uid"])["exit_status"] == "success"
    assert place.record.scans == 1
    assert place.is_safe


def test_the_run_says_which_file_its_rows_come_from(run_engine, recorder, place, tmp_path):
    run_engine(xrf_map(place.beamline, **MAP))
    (event,) = recorder.events("scan_file")
    assert event["data"]["xrf_file_path"] == str(tmp_path / "scan_0001.h5")
    assert event["data"]["xrf_file_reader"] == "read_npz"


def test_rows_further_apart_than_their_pixels_are_long(run_engine, recorder, place):
    run_engine(xrf_map(place.beamline, **{**MAP, "sampling": "rows", "factor": 2}))
    (start,) = recorder.starts
    assert (start["xrf_sr"]["sampling"], start["xrf_sr"]["fast_pixels"]) == ("rows", 2)
    assert place.record.grid.fast.step_um == pytest.approx(0.5)
    assert place.record.grid.slow.step_um == pytest.approx(1.0)
    maps = recorder.builder(start).maps()
    assert maps.counts.shape == (2, 5, 12)
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)


def test_a_plan_with_one_step_for_both_axes_flies_squares(run_engine, recorder, tmp_path):
    place = Place(tmp_path, squares_only=True)
    wishes = {**MAP, "sampling": None, "factor": 2}
    run_engine(xrf_map(place.beamline, **wishes))
    assert recorder.starts[0]["xrf_sr"]["fast_pixels"] == 1
    with pytest.raises(ConfigError, match="'xrf' takes the same step along both axes"):
        run_engine(xrf_map(place.beamline, **{**wishes, "sampling": "rows"}))
    assert place.record.scans == 1


def test_bad_last_columns_are_nothing_and_more_columns_than_asked_for_cost_nothing(
    run_engine, recorder, tmp_path
):
    place = Place(tmp_path, bad_columns=(0, 2))
    place.record.after = lambda counts: np.where(np.arange(counts.shape[2]) >= 6, 0, counts)
    place.record.extra_columns = 2
    run_engine(xrf_map(place.beamline, **MAP))
    maps = recorder.builder(recorder.starts[0]).maps()
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)
    place.record.extra_columns = 0
    place.record.after = lambda counts: counts
    run_engine(xrf_map(place.beamline, **MAP))
    maps = recorder.builder(recorder.starts[1]).maps()
    np.testing.assert_allclose(maps.counts.values[..., :4], truth(maps)[..., :4], rtol=1e-9)
    assert np.isnan(maps.counts.values[..., 4:]).all()
    notes = recorder.events("scan_file")[1]["data"]["xrf_file_notes"]
    assert "columns of the map left out as bad ones: 2" in notes


def test_rows_that_the_file_lacks_are_lost_and_the_map_goes_on(run_engine, recorder, place):
    def lose(counts: np.ndarray) -> np.ndarray:
        counts[:, 2] = 0
        return counts

    place.record.after = lose
    run_engine(xrf_map(place.beamline, **MAP))
    (start,) = recorder.starts
    maps = recorder.builder(start).maps()
    assert np.isnan(maps.counts.values[:, 2]).all()
    others = [0, 1, 3, 4]
    np.testing.assert_allclose(maps.counts.values[:, others], truth(maps)[:, others], rtol=1e-9)
    (lost,) = recorder.events("lost_rows")
    assert (lost["data"]["xrf_lost_row"], lost["data"]["xrf_lost_attempts"]) == (2, 1)
    assert "scan_0001.h5" in lost["data"]["xrf_lost_reason"]


def test_a_scan_that_ends_early_keeps_its_rows_and_fails_the_map(run_engine, recorder, place):
    place.record.on_row = lambda row: place.record.abort() if row == 2 else None
    with pytest.raises(FlightError, match="rows 2 to 4 are missing"):
        run_engine(xrf_map(place.beamline, **MAP))
    rows = [event["data"]["xrf_row"] for event in recorder.events("primary")]
    assert rows == [0, 1]
    assert recorder.stop_of(recorder.starts[0]["uid"])["exit_status"] == "fail"
    assert place.is_safe


def test_without_a_file_the_map_fails_in_words_and_old_files_are_never_taken(
    run_engine, recorder, place
):
    run_engine(xrf_map(place.beamline, **MAP))
    place.record.on_row = lambda row: place.record.abort()
    with pytest.raises(FlightError, match=r"no file '\*.h5' was written since the scan began"):
        run_engine(xrf_map(place.beamline, **MAP))
    assert len(recorder.events("primary")) == 5
    assert place.is_safe


def test_a_file_that_is_still_being_written_is_waited_for(run_engine, recorder, place):
    whole_file = place.record.write

    def in_two_halves(path: Any, *arrays: Any) -> None:
        whole_file(path, *arrays)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        later(0.4, lambda: path.write_bytes(content))

    place.record.write = in_two_halves
    run_engine(xrf_map(place.beamline, **MAP))
    maps = recorder.builder(recorder.starts[0]).maps()
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)


def test_a_reader_that_fails_is_quoted(run_engine, tmp_path):
    def broken(path: Any) -> Any:
        raise KeyError("spectra")

    place = Place(tmp_path, reader=broken)
    with pytest.raises(FlightError, match=r"the reader failed: KeyError: 'spectra'"):
        run_engine(xrf_map(place.beamline, **MAP))
    assert place.is_safe


def test_a_file_of_another_place_is_refused(run_engine, recorder, tmp_path):
    place = Place(tmp_path)
    flown = place.record.plan

    def elsewhere(grid, dwell_ms):
        fast = replace(grid.fast, start_um=grid.fast.start_um * 1e3 + 500)
        yield from flown(replace(grid, fast=fast), dwell_ms)

    place = Place(tmp_path, scan=elsewhere)
    flown = place.record.plan
    with pytest.raises(FlightError, match=r"no column in -1.5..3.5 um as asked for"):
        run_engine(xrf_map(place.beamline, **MAP))
    assert recorder.events("primary") == []


def test_a_plan_that_opens_a_run_is_refused_in_words(run_engine, recorder, tmp_path):
    place: Any = None

    def with_run(grid, dwell_ms):
        yield from bp.count([place.beamline.i0], num=1)

    place = Place(tmp_path, scan=with_run)
    with pytest.raises(ConfigError, match=r"'with_run' opens a run of its own.*runs don't nest"):
        run_engine(xrf_map(place.beamline, **MAP))
    assert len(recorder.starts) == 1
    assert "runs don't nest" in recorder.stop_of(recorder.starts[0]["uid"])["reason"]
    assert place.is_safe


def test_a_plan_that_hangs_is_given_up(run_engine, recorder, tmp_path):
    place: Any = None

    def hangs(grid, dwell_ms):
        place.record.grid = grid
        place.record.row_s = 60.0
        yield from bps.trigger(place.record, group="scan")
        yield from bps.wait("scan")

    place = Place(tmp_path, scan=hangs)
    quick = replace(QUICK, overhead_s=0.01, grace_s=0.2, patience=1.0)
    with pytest.raises(FlightError, match=r"TimeoutError|not done"):
        run_engine(xrf_map(replace(place.beamline, time_model=quick), **MAP))
    assert place.record.aborts == 1
    assert place.is_safe


def test_paused_before_any_message_the_map_is_the_same(run_engine, tmp_path):
    place = Place(tmp_path)
    recorder = Recorder(run_engine)
    plan = Interrupting(xrf_map(place.beamline, **MAP), None, pause)
    run_engine(iter(plan))
    run_engine.unsubscribe(recorder.token)
    undisturbed = recorder.builder(recorder.starts[0])
    for k in range(plan.count):
        recorder = Recorder(run_engine)
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(xrf_map(place.beamline, **MAP), k, pause)))
        assert not place.microscope.shutter_open, f"message {k}"
        run_engine.resume()
        run_engine.unsubscribe(recorder.token)
        same_map(recorder.builder(recorder.starts[0]), undisturbed)
        assert recorder.stop_of(recorder.starts[0]["uid"])["exit_status"] == "success"
        assert place.is_safe, f"message {k}"


def test_a_pause_in_mid_scan_aborts_it_and_the_map_is_flown_anew(run_engine, recorder, place):
    place.record.row_s = 0.1
    paused = []

    def pause_once(row: int) -> None:
        if row == 3 and not paused:
            paused.append(row)
            later(0, run_engine.request_pause)

    place.record.on_row = pause_once
    with pytest.raises(RunEngineInterrupted):
        run_engine(xrf_map(place.beamline, **MAP))
    assert not place.microscope.shutter_open
    assert place.record.aborts == 1
    run_engine.resume()
    maps = recorder.builder(recorder.starts[0]).maps()
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)
    assert place.record.scans == 2
    assert {event["data"]["xrf_attempt"] for event in recorder.events("primary")} == {1}
    assert place.is_safe


def test_a_suspender_that_trips_in_mid_scan_has_the_map_flown_anew(run_engine, recorder, place):
    trip = Signal(name="trip", value=0)
    run_engine.install_suspender(SuspendBoolHigh(trip))
    place.record.row_s = 0.1
    dark = []

    def trip_once(row: int) -> None:
        if row == 3 and not dark:
            dark.append(row)
            later(0, lambda: trip.put(1))
            later(0.3, lambda: dark.append(place.microscope.shutter_open))
            later(0.4, lambda: trip.put(0))

    place.record.on_row = trip_once
    result = run_engine(xrf_map(place.beamline, **MAP))
    assert result.exit_status == "success"
    assert dark == [3, False]
    assert place.record.scans == 2
    maps = recorder.builder(recorder.starts[0]).maps()
    np.testing.assert_allclose(maps.counts.values, truth(maps), rtol=1e-9)
    assert place.is_safe


@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_ended_in_mid_scan_it_is_aborted_and_all_is_safe(run_engine, recorder, place, ending):
    place.record.row_s = 0.1
    place.record.on_row = lambda row: later(0, getattr(run_engine, ending)) if row == 1 else None
    with pytest.raises(RunEngineInterrupted):
        run_engine(xrf_map(place.beamline, **MAP))
    assert place.record.aborts == 1
    later(0.2, lambda: None).join()
    assert place.is_safe
    assert recorder.stop_of(recorder.starts[0]["uid"]) is not None


def test_limits_refuse_the_map_before_the_plan_is_run(run_engine, recorder, place):
    with pytest.raises(RefusedError, match="limits allow"):
        run_engine(xrf_map(place.beamline, **{**MAP, "x_center_um": 1e4}))
    assert (recorder.docs, place.record.scans) == ([], 0)


def test_preview_tells_time_and_pixels_and_flies_nothing(place):
    design = preview(xrf_map, beamline=place.beamline, **MAP)
    assert design.allowed
    assert design.time_s == pytest.approx(5 * (6 * 0.01 + 0.2))
    assert place.record.scans == 0
