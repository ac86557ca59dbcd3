"""The simulated stage axes as bluesky devices."""

from __future__ import annotations

import itertools
import time

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from bluesky.protocols import Locatable, Movable, Readable, Stoppable
from bluesky.simulators import check_limits

from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.trapezoid import distance_moved, move_duration_s
from xrf_sr_plans.errors import LimitsError


def test_an_axis_is_what_bluesky_plans_expect_of_a_motor() -> None:
    fast = make_beamline().fast
    for protocol in (Movable, Readable, Stoppable, Locatable):
        assert isinstance(fast, protocol)
    RunEngine({})(bps.mv(fast, 12.5))
    assert fast.position == pytest.approx(12.5, abs=0.06)
    assert fast.locate()["setpoint"] == 12.5
    assert fast.read()["samx"]["value"] == fast.position
    assert fast.describe()["samx"]["units"] == "um"


def test_check_limits_of_bluesky_sees_the_limits() -> None:
    RunEngine({})  # check_limits needs its event loop
    beamline = make_beamline(limits_um=((-10, 10), (-10, 10)))
    check_limits(bp.scan([], beamline.fast, -10, 10, 3))
    with pytest.raises(LimitsError, match=r"samx.*11 um is outside -10\.\.10 um"):
        check_limits(bp.scan([], beamline.fast, 0, 11, 2))
    with pytest.raises(LimitsError):
        beamline.fast.set(float("nan"))


def test_equal_limits_mean_that_none_are_set() -> None:
    beamline = make_beamline(limits_um=((0, 0), (0, 0)))
    beamline.fast.check_value(1e6)
    facts = axis_facts(beamline.fast)
    assert facts.low_um is None
    assert facts.high_um is None


def test_swapped_limits_allow_nothing() -> None:
    beamline = make_beamline(limits_um=((10, -10), (-10, 10)))
    with pytest.raises(LimitsError, match="samx"):
        beamline.fast.check_value(0.0)


def test_an_axis_in_millimetres_speaks_millimetres_throughout() -> None:
    beamline = make_beamline(egu="mm", limits_um=((-1000, 1000), (-1000, 1000)))
    fast = beamline.fast
    RunEngine({})(bps.mv(fast, 0.25))
    assert beamline.microscope is not None
    assert fast.axis.motor_um == pytest.approx(250)
    assert fast.limits == (-1, 1)
    assert fast.max_velocity == pytest.approx(2.0)
    facts = axis_facts(fast)
    assert facts.um_per_unit == 1000
    assert facts.position_um == pytest.approx(250, abs=0.1)
    assert (facts.low_um, facts.high_um) == (-1000, 1000)
    assert facts.max_velocity_um_s == pytest.approx(2000)


def test_velocity_is_settable_up_to_the_maximum() -> None:
    fast = make_beamline(max_velocity_um_s=100.0).fast
    RunEngine({})(bps.mv(fast.velocity, 80.0))
    assert fast.velocity.get() == 80.0
    assert fast.axis.velocity_um_s == 80.0
    with pytest.raises(LimitsError, match="samx_velocity is set to 101"):
        fast.velocity.set(101.0)
    with pytest.raises(LimitsError):
        fast.velocity.set(0.0)


def test_moves_take_the_time_of_a_trapezoid() -> None:
    assert move_duration_s(100.0, 50.0, 0.5) == pytest.approx(2.5)
    assert move_duration_s(1.0, 50.0, 0.5) == pytest.approx(2 * (1.0 * 0.5 / 50.0) ** 0.5)
    for distance in (1.0, 25.0, 100.0):
        total = move_duration_s(distance, 50.0, 0.5)
        way = [distance_moved(total * k / 50, distance, 50.0, 0.5) for k in range(51)]
        assert way[0] == 0
        assert way[-1] == distance
        assert way[25] == pytest.approx(distance / 2)
        assert all(b >= a for a, b in itertools.pairwise(way))
    beamline = make_beamline(acceleration_s=0.1)
    beamline.fast.set(50.0)
    assert beamline.clock.elapsed_s == pytest.approx(0.2)


def test_a_move_in_real_time_can_be_stopped_on_the_way() -> None:
    fast = make_beamline(clock="real").fast
    RunEngine({})(bps.mv(fast.velocity, 10.0))
    status = fast.set(40.0)
    time.sleep(0.2)
    fast.stop(success=True)
    status.wait(1)
    place = fast.axis.motor_um
    assert 0 < place < 30
    failed = fast.set(-40.0)
    fast.stop()
    with pytest.raises(RuntimeError, match="samx was stopped"):
        failed.wait(1)
    time.sleep(0.05)
    assert not fast.moving


def test_the_encoder_is_noisy_but_reads_the_same_at_the_same_place() -> None:
    fast = make_beamline(encoder_noise_um=0.1).fast
    readings = set()
    for target in (1.0, 2.0, 1.0):
        fast.set(target)
        readings.add(fast.position)
    assert len(readings) == 2
    assert all(0 < abs(reading - round(reading)) < 0.5 for reading in readings)


def test_the_sample_lags_by_half_the_backlash() -> None:
    axis = make_beamline(backlash_um=0.4).fast.axis
    device = make_beamline(backlash_um=0.4).fast
    device.set(5.0)
    assert device.axis.sample_um == pytest.approx(4.8)
    device.set(3.0)
    assert device.axis.sample_um == pytest.approx(3.2)
    assert axis.motor_um == 0.0
