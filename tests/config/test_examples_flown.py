"""The settings files that ship, each flown with simulated devices of its names and units."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Signal
from ophyd.sim import SynAxis

from support.plan_support import Recorder
from support.scan_record import ELEMENTS, ScanRecord, photons, write_maps_h5
from xrf_sr_plans import Beamline
from xrf_sr_plans.config import Settings
from xrf_sr_plans.config.examples import example
from xrf_sr_plans.devices.own_plan_flyer import OwnPlanFlyer
from xrf_sr_plans.devices.sim import SimBeamline, SimFineStage, make_beamline
from xrf_sr_plans.devices.sim.detectors import SimFluorescence, SimI0
from xrf_sr_plans.devices.step_flyer import StepFlyer
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.session import start_session

pytestmark = pytest.mark.timeout(240)
AREA = {"x_center_um": 0, "y_center_um": 0, "width_um": 16, "height_um": 12, "step_um": 2}


@pytest.fixture
def run_engine() -> RunEngine:
    return RunEngine({}, call_returns_result=True)


def survey(run_engine: RunEngine, beamline: Beamline, **wishes: Any) -> LatestSurvey:
    """Fly a survey in a session as the settings of the beamline describe it."""
    latest = LatestSurvey()
    token = run_engine.subscribe(latest)
    with start_session(run_engine, beamline, in_process=True, result_sinks=[latest]) as session:
        plan = session.plans["coarse_survey_with_sr"]
        run_engine(plan(**{**AREA, "dwell_ms": 10, "factor": 2, "budget_s": 600, **wishes}))
        assert session.link.flush(60)
    run_engine.unsubscribe(token)
    return latest


def test_the_simulated_beamline_needs_nothing_else(run_engine: RunEngine) -> None:
    environment = {"XRF_SIM_CLOCK": "instant", "XRF_SR_STORE": "off"}
    beamline = Beamline.from_settings(Settings.load(example("simulated"), environment))
    assert isinstance(beamline, SimBeamline)
    assert {"samx", "samy", "xrf", "shutter", "i0", "xrfdet"} == set(beamline.devices)
    recorder = Recorder(run_engine)
    latest = survey(run_engine, beamline, find="K")
    assert latest.record.coarse
    assert recorder.map_starts()[0]["xrf_sr"]["beamline"] == "sim"


def test_srx_flies_the_coarse_stage_and_then_the_piezo(run_engine: RunEngine) -> None:
    piezo = SimFineStage(
        axis_names=("nano_stage_sx", "nano_stage_sy"),
        limits_um=((-45, 45), (-45, 45)),
        reach_um=(80, 80),
        max_velocity_um_s=30,
    )
    sim = make_beamline(axis_names=("nano_stage_x", "nano_stage_y"), fine_stage=piezo)
    stage = SimpleNamespace(
        x=sim.fast, y=sim.slow, sx=sim.fine.fast, sy=sim.fine.slow,
        th=SynAxis(name="nano_stage_th", egu="deg"),
    )  # fmt: skip
    profile = {
        "nano_stage": stage,
        "coarse_rows": sim.flyer,
        "fine_rows": sim.fine.flyer,
        "shut_b": sim.shutter,
    }
    beamline = Beamline.from_settings(Settings.load(example("srx"), {}), profile)
    assert beamline.time_model.overhead_s == 3.8
    assert beamline.rescanning.max_velocity_um_s == 30
    recorder = Recorder(run_engine)
    plans = bind_plans(beamline)
    box = {"x_low_um": -4, "x_high_um": 4, "y_low_um": 0, "y_high_um": 3}
    run_engine(plans["xrf_map"](**AREA, dwell_ms=10))
    run_engine(plans["rescan_regions"](regions=[box], fine_step_um=1, dwell_ms=40))
    coarse, fine = recorder.map_starts()
    assert coarse["motors"] == ["nano_stage_y", "nano_stage_x"]
    assert {"nano_stage_sx", "nano_stage_sy"} <= set(str(fine["xrf_sr"]["placement"]).split("'"))
    assert "nano_stage_th" in str(coarse["xrf_sr"])
    assert recorder.builder(fine).complete


def test_the_bionanoprobe_is_stepped_with_its_detectors(run_engine: RunEngine) -> None:
    sim = make_beamline("cells", axis_names=("sm_px", "sm_py"))
    parts: dict[str, Any] = {
        "microscope": sim.microscope,
        "fast": sim.fast.axis,
        "slow": sim.slow.axis,
        "clock": sim.clock,
    }
    devices = SimpleNamespace(
        sm_px=sim.fast,
        sm_py=sim.slow,
        shutter=sim.shutter,
        theta=SynAxis(name="theta", egu="deg"),
        xsp3=SimFluorescence(name="xsp3", **parts),
        ion_chamber=SimI0(name="ion_chamber", **parts),
    )
    beamline = Beamline.from_settings(Settings.load(example("bionanoprobe"), {}), devices)
    assert isinstance(beamline.flyer, StepFlyer)
    recorder = Recorder(run_engine)
    survey(run_engine, beamline, find="Zn", height_um=8)
    (coarse, *_) = recorder.map_starts()
    maps = recorder.builder(coarse).maps()
    assert list(maps.counts["element"].values) == ["P", "K", "Fe", "Zn"]
    assert float(maps.counts.sum()) > 0
    assert np.isfinite(maps.i0.values).all()


def test_2_id_flies_its_own_plan_with_axes_in_mm(run_engine: RunEngine, tmp_path: Path) -> None:
    sim = make_beamline(axis_names=("samx", "samy"), egu="mm")
    record = ScanRecord(tmp_path, lambda: sim.microscope.shutter_open)
    record.write, record.extra_columns = write_maps_h5, 2
    instrument = {
        "samx": sim.fast,
        "samy": sim.slow,
        "samz": SynAxis(name="samz", egu="mm"),
        "shutter": sim.shutter,
        "fly2d": record.plan,
        "abort_scans": Signal(name="abort_scans", value=0),
        "scan_busy": lambda: record.busy,
        "mda_file_name": lambda: f"scan_{record.scans:04d}.h5",
    }
    # The simulated scan record writes other files and elements than MDA of 2-ID.
    file = {"folder": str(tmp_path), "pattern": "*.h5", "settle_s": 0.05}
    flown = {"flyer": {"file": file, "elements": ELEMENTS}}
    settings = Settings.load(example("2-id"), {}, beamline=flown)
    beamline = Beamline.from_settings(settings, instrument)
    assert isinstance(beamline.flyer, OwnPlanFlyer)
    assert beamline.fast.egu == "mm"
    recorder = Recorder(run_engine)
    with start_session(run_engine, beamline, in_process=True) as session:
        run_engine(session.plans["xrf_map"](**AREA, dwell_ms=10, sampling="squares"))
    (start,) = recorder.map_starts()
    maps = recorder.builder(start).maps()
    assert maps.counts.shape == (2, 6, 8)
    x_um, y_um = maps.counts["x"].values, maps.counts["y"].values
    assert abs(x_um.mean()) < 1e-9
    np.testing.assert_allclose(maps.counts.values, photons(x_um[None, :], y_um[:, None]), rtol=1e-9)
    beamline.flyer._stop_scan()
    assert instrument["abort_scans"].get() == 1
