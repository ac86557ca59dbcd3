"""The same plans without fly-scan hardware: rows stepped with any detectors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynSignal

from support.plan_support import Interrupting, Recorder, pause, same_map
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.devices.step_flyer import StepFlyer
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.plans.xrf_map import xrf_map

AREA = {"width_um": 3, "height_um": 2, "step_um": 1, "dwell_ms": 1}
HERE = {"x_center_um": 0.5, "y_center_um": 0.0}


def stepping_beamline() -> Beamline:
    x, y = SynAxis(name="x"), SynAxis(name="y")
    # SynAxis speaks millimetres.
    iron = SynSignal(func=lambda: 100 + 1e4 * x.position + 1e3 * y.position, name="iron")
    flyer = StepFlyer("step", [iron], x, y, counts={"Fe": "iron"})
    return Beamline(x, y, flyer, safe_box_um=((-9, 9), (-9, 9)))


@pytest.fixture(scope="module")
def run_engine():
    return RunEngine({}, call_returns_result=True)


def test_a_stepped_map_has_the_documents_of_a_flown_one(run_engine):
    recorder = Recorder(run_engine)
    run_engine(xrf_map(stepping_beamline(), **AREA, **HERE))
    run_engine.unsubscribe(recorder.token)
    (start,) = recorder.starts
    assert start["xrf_sr"]["sampling"] == "point"
    assert start["xrf_sr"]["grid"]["run_up_um"] == 0
    builder = recorder.builder(start)
    assert builder.complete
    maps = builder.maps()
    expected = 100 + 10 * maps.counts["x"] + maps.counts["y"]
    np.testing.assert_allclose(maps.counts.sel(element="Fe"), expected.transpose("y", "x"))


def test_paused_before_any_message_a_stepped_map_is_the_same(run_engine):
    recorder = Recorder(run_engine)
    plan = Interrupting(xrf_map(stepping_beamline(), **AREA, **HERE), None, pause)
    run_engine(iter(plan))
    run_engine.unsubscribe(recorder.token)
    undisturbed = recorder.builder(recorder.starts[0])
    for k in range(plan.count):
        recorder = Recorder(run_engine)
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(xrf_map(stepping_beamline(), **AREA, **HERE), k, pause)))
        run_engine.resume()
        run_engine.unsubscribe(recorder.token)
        same_map(recorder.builder(recorder.starts[0]), undisturbed)


def test_without_limits_a_safe_box_is_needed(run_engine):
    beamline = replace(stepping_beamline(), safe_box_um=None)
    with pytest.raises(ValueError, match="'x': knows no limits"):
        run_engine(xrf_map(beamline, **AREA, **HERE))


def test_a_detector_without_the_key_refuses_the_map_before_the_run_begins(run_engine):
    x, y = SynAxis(name="x"), SynAxis(name="y")
    flyer = StepFlyer("step", [SynSignal(name="iron")], x, y, counts={"Fe": "irn"})
    beamline = Beamline(x, y, flyer, safe_box_um=((-9, 9), (-9, 9)))
    recorder = Recorder(run_engine)
    moves = []
    y.subscribe(lambda **kwargs: moves.append(kwargs["value"]), run=False)
    with pytest.raises(ConfigError, match="nothing reads 'irn'; there is iron"):
        run_engine(xrf_map(beamline, **AREA, **HERE))
    run_engine.unsubscribe(recorder.token)
    assert (recorder.docs, moves) == ([], [])
