"""Any detectors and two positioners fly row by row in the same documents as fly-scan hardware."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynGauss, SynSignal

from support.sim_support import Documents, fly, grid_of, messages_of, pausing_at, small_map
from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import HasRowPlan, RowFlyer
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.step_flyer import StepFlyer
from xrf_sr_plans.errors import ConfigError

GRID = grid_of(nx=5, ny=3, run_up_um=0.0)


def ophyd_flyer(**kwargs: Any) -> StepFlyer:
    fast, slow = SynAxis(name="mx", egu="um"), SynAxis(name="my", egu="um")
    iron = SynGauss("iron", fast, "mx", center=0, Imax=100, sigma=2)
    zinc = SynSignal(name="zinc", func=lambda: slow.position * 10)
    flux = SynSignal(name="flux", func=lambda: 5.0)
    counts = {"Fe": "iron", "Zn": "zinc"}
    settings: dict[str, Any] = {"counts": counts, "i0_key": "flux", **kwargs}
    return StepFlyer("step", [iron, zinc, flux], fast, slow, **settings)


def test_ophyd_sim_detectors_fly_in_row_documents() -> None:
    flyer = ophyd_flyer()
    assert isinstance(flyer, RowFlyer)
    assert isinstance(flyer, HasRowPlan)
    documents = fly(flyer, GRID)
    (descriptor,) = documents.named("descriptor")
    assert set(descriptor["data_keys"]) == set(schema.row_keys("step").values())
    assert descriptor["configuration"]["step"]["data"]["step_elements"] == ["Fe", "Zn"]
    rows = documents.rows()
    assert [(row["row"], row["direction"], row["n_frames"]) for row in rows] == [
        (0, 1, 5),
        (1, -1, 5),
        (2, 1, 5),
    ]
    for k, row in enumerate(rows):
        x = GRID.fast.centers_um[:: row["direction"]]
        np.testing.assert_allclose(row["fast_um"], x)
        np.testing.assert_allclose(row["slow_um"], GRID.slow.centers_um[k])
        np.testing.assert_allclose(row["counts"][0], 100 * np.exp(-(x**2) / 8))
        np.testing.assert_allclose(row["counts"][1], 10 * GRID.slow.centers_um[k])
        assert row["i0"] == [5.0] * 5
        assert row["live_time"] == [0.01] * 5


def test_axes_in_millimetres_are_sent_to_micrometres() -> None:
    fast, slow = SynAxis(name="mx", egu="mm"), SynAxis(name="my", egu="mm")
    detector = SynSignal(name="det", func=lambda: fast.position)
    flyer = StepFlyer("step", [detector], fast, slow, counts={"Fe": "det"})
    row = fly(flyer, GRID).rows()[0]
    np.testing.assert_allclose(row["counts"][0], GRID.fast.centers_um * 1e-3)
    np.testing.assert_allclose(row["fast_um"], GRID.fast.centers_um)
    assert np.isnan(row["i0"]).all()


def test_an_axis_in_an_unknown_unit_is_refused_before_anything_moves() -> None:
    fast, slow = SynAxis(name="mx", egu="counts"), SynAxis(name="my", egu="mm")
    moves: list[Any] = []
    for axis in (fast, slow):
        axis.subscribe(lambda **kwargs: moves.append(kwargs["value"]), run=False)
    detector = SynSignal(name="det", func=lambda: 1.0)
    flyer = StepFlyer("step", [detector], fast, slow, counts={"Fe": "det"})
    with pytest.raises(ConfigError, match=r"axis 'mx': unit is 'counts'; one of .*mm.* is needed"):
        fly(flyer, GRID)
    assert not moves


def test_an_array_reading_is_summed_over_detector_elements() -> None:
    channels = SynSignal(name="roi", func=lambda: np.array([1.0, 2.0, 3.0]))
    flyer = StepFlyer(
        "step", [channels], SynAxis(name="mx"), SynAxis(name="my"), counts={"Fe": "roi"}
    )
    assert fly(flyer, GRID).rows()[0]["counts"] == [[6.0] * 5]


def test_the_simulated_beamline_steps_too_with_its_dwell_as_exposure() -> None:
    beamline = make_beamline()
    detector = beamline.detector
    flyer = StepFlyer(
        "step",
        [detector, beamline.i0],
        beamline.fast,
        beamline.slow,
        counts={name: f"xrfdet_{name}" for name in detector.elements},
        i0_key="i0",
        live_time_key="xrfdet_live_time",
        exposure=[detector.exposure_s, beamline.i0.exposure_s],
    )
    rows = fly(flyer, GRID, dwell_ms=40.0).rows()
    assert detector.exposure_s.get() == pytest.approx(0.04)
    x = GRID.fast.centers_um
    rates = beamline.microscope.rates_cps(x, x, float(GRID.slow.centers_um[0]))
    expected = rates.sum() * 0.04
    assert np.sum(rows[0]["counts"]) == pytest.approx(expected, rel=0.05)
    assert 0.039 < rows[0]["live_time"][0] < 0.04


@pytest.mark.parametrize(
    "wrong",
    [{"counts": {"Cu": "Cu_roi"}}, {"i0_key": "Cu_roi"}, {"live_time_key": "Cu_roi"}],
)
def test_a_key_nobody_reads_is_named_with_what_there_is_before_the_first_pixel(wrong) -> None:
    flyer = ophyd_flyer(**wrong)
    moves: list[Any] = []
    flyer._axes["fast"].subscribe(lambda **kwargs: moves.append(kwargs["value"]), run=False)
    with pytest.raises(ConfigError, match=r"nothing reads 'Cu_roi'; there is flux, iron, zinc"):
        fly(flyer, GRID)
    assert not moves


def test_a_detector_that_does_not_describe_itself_is_taken_at_its_readings() -> None:
    class Shy(SynSignal):
        def describe(self) -> dict[str, Any]:
            raise RuntimeError("not yet triggered")

    fast, slow = SynAxis(name="mx"), SynAxis(name="my")
    shy = Shy(name="shy", func=lambda: 1.0)
    assert fly(StepFlyer("step", [shy], fast, slow, counts={"Fe": "shy"}), GRID).rows()
    with pytest.raises(ConfigError, match=r"nothing reads 'iron'; there is shy"):
        fly(StepFlyer("step", [shy], fast, slow, counts={"Fe": "iron"}), GRID)


def test_a_flyer_needs_a_detector() -> None:
    with pytest.raises(ConfigError, match="at least one detector"):
        StepFlyer("step", [], None, None, counts={})


def test_detectors_are_staged_and_unstaged_with_the_flyer() -> None:
    class Staged(SynGauss):
        calls: list[str] = []  # noqa: RUF012 - read by the test

        def stage(self) -> list[Any]:
            self.calls.append("stage")
            return super().stage()

        def unstage(self) -> list[Any]:
            self.calls.append("unstage")
            return super().unstage()

    fast = SynAxis(name="mx")
    detector = Staged("det", fast, "mx", center=0, Imax=1)
    fly(StepFlyer("step", [detector], fast, SynAxis(name="my"), counts={"Fe": "det"}), GRID)
    assert Staged.calls == ["stage", "unstage"]


def test_a_pause_at_any_message_of_a_row_leaves_one_whole_attempt_of_it() -> None:
    grid = grid_of(nx=3, ny=2, run_up_um=0.0)
    whole = fly(ophyd_flyer(), grid).rows()
    for index in range(2, messages_of(small_map(ophyd_flyer(), grid)) - 4, 7):
        run_engine, documents = RunEngine({}), Documents()
        with pytest.raises(RunEngineInterrupted):
            run_engine(pausing_at(small_map(ophyd_flyer(), grid), index), documents)
        run_engine.resume()
        last = {row["row"]: {**row, "attempt": 0} for row in documents.rows()}
        assert [last[row["row"]] for row in whole] == whole


def test_readings_from_before_a_pause_are_replaced_not_mixed() -> None:
    fast, slow = SynAxis(name="mx"), SynAxis(name="my")
    when = {"now": "before"}
    detector = SynSignal(name="det", func=lambda: 1.0 if when["now"] == "before" else 2.0)
    flyer = StepFlyer("step", [detector], fast, slow, counts={"Fe": "det"})
    run_engine, documents = RunEngine({}), Documents()
    # Message 30 or so is in the middle of the first row.
    with pytest.raises(RunEngineInterrupted):
        run_engine(pausing_at(small_map(flyer, GRID), 30), documents)
    when["now"] = "after"
    run_engine.resume()
    first = documents.rows()[0]
    assert first["attempt"] == 1
    assert first["counts"] == [[2.0] * 5]


def test_ophyd_async_motors_and_detectors_fly_in_the_same_documents() -> None:
    core = pytest.importorskip("ophyd_async.core")
    sim = pytest.importorskip("ophyd_async.sim")
    run_engine, documents = RunEngine({}), Documents()
    pattern = sim.PatternGenerator()
    with core.init_devices():
        fast = sim.SimMotor("ax", initial_value=0.0, units="um")
        slow = sim.SimMotor("ay", initial_value=0.0, units="um")
        detector = sim.SimPointDetector(pattern, num_channels=2, name="pdet")
    keys = {"Fe": "pdet-channel-1-value", "Zn": "pdet-channel-2-value"}
    flyer = StepFlyer("step", [detector], fast, slow, counts=keys, exposure=[detector.acquire_time])
    run_engine(small_map(flyer, GRID, dwell_ms=4.0), documents)
    rows = documents.rows()
    assert [row["row"] for row in rows] == [0, 1, 2]
    for k, row in enumerate(rows):
        np.testing.assert_allclose(row["fast_um"], GRID.fast.centers_um[:: row["direction"]])
        np.testing.assert_allclose(row["slow_um"], GRID.slow.centers_um[k])
        assert np.isfinite(row["counts"]).all()
    assert np.sum(rows[0]["counts"]) > 0
    wrong = StepFlyer("step", [detector], fast, slow, counts={"Fe": "pdet-channel-3-value"})
    with pytest.raises(ConfigError, match=r"'pdet-channel-3-value'; .*pdet-channel-2-value"):
        run_engine(small_map(wrong, GRID, dwell_ms=4.0))
