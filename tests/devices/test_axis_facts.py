"""What is found out about a positioner, whatever library it comes from."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import EpicsMotor
from ophyd.sim import SynAxis, make_fake_device

from xrf_sr_plans.devices.axes import AxisFacts, axis_facts, axis_scale
from xrf_sr_plans.errors import ConfigError


def fake_epics_motor(low: float, high: float) -> Any:
    motor = make_fake_device(EpicsMotor)("x:", name="stage_x")
    motor.motor_egu.sim_put("mm")
    motor.user_readback.sim_put(1.5)
    motor.velocity.sim_put(2.0)
    motor.acceleration.sim_put(0.2)
    type(motor).limits = property(lambda self: (low, high))
    return motor


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("um", 1), ("µm", 1), ("mm", 1e3), ("MM", 1e3), ("m", 1e6), ("nm", 1e-3), ("", 1), (None, 1)],
)
def test_units_of_length_are_known(unit: str | None, factor: float) -> None:
    assert axis_scale(unit, "x") == factor


def test_an_angle_is_no_length() -> None:
    with pytest.raises(ConfigError, match=r"'theta': unit is 'deg'; one of .*mm.* is needed"):
        axis_scale("deg", "theta")


@pytest.mark.parametrize(
    ("egu", "factor"),
    [("nanometer", 1e-3), ("millimetre", 1e3), (b"mm", 1e3), (" mm", 1e3), (" ", 1), (b"", 1)],
)
def test_the_unit_of_a_positioner_is_read_however_it_is_spelled(egu: Any, factor: float) -> None:
    facts = axis_facts(SimpleNamespace(name="y", position=2.0, egu=egu))
    assert (facts.position_um, facts.um_per_unit) == (2.0 * factor, factor)


@pytest.mark.parametrize("egu", ["px", "counts", "degrees", b"steps", "Mm"])
def test_a_positioner_in_an_unknown_unit_is_refused(egu: Any) -> None:
    theta = SimpleNamespace(name="theta", position=2.0, egu=egu)
    with pytest.raises(ConfigError, match=r"axis 'theta': unit is '.*'; one of .* is needed"):
        axis_facts(theta)


def test_a_synthetic_axis_knows_its_position_but_no_limits() -> None:
    facts = axis_facts(SynAxis(name="m", value=0.5))
    assert facts == AxisFacts("m", 500.0, None, None, 1000.0, None, 1.0, 1000.0, 500.0)


def test_an_epics_motor_tells_all_in_micrometres() -> None:
    facts = axis_facts(fake_epics_motor(-3.0, 4.0))
    assert facts == AxisFacts("stage_x", 1500.0, -3000.0, 4000.0, 2000.0, None, 0.2, 1000.0, 0.0)


def test_an_epics_motor_with_equal_limits_has_none() -> None:
    facts = axis_facts(fake_epics_motor(0.0, 0.0))
    assert (facts.low_um, facts.high_um) == (None, None)


@pytest.mark.parametrize(
    ("limits", "low_um", "high_um"),
    [
        ((None, 5.0), None, 5.0),
        ((-math.inf, 5), None, 5.0),
        ((-5, math.inf), -5.0, None),
        ([-5, None], -5.0, None),
        (np.array([-5.0, 5.0]), -5.0, 5.0),
        ((-math.inf, math.inf), None, None),
        ((None, None), None, None),
        ((7, 7), None, None),
        # Nothing is below -100 and above 100 at once.
        ((100, -100), 100.0, -100.0),
        ((math.inf, 5), math.inf, 5.0),
    ],
)
def test_limits_are_read_as_what_they_say(limits: Any, low_um: Any, high_um: Any) -> None:
    facts = axis_facts(SimpleNamespace(name="x", position=0.0, egu="um", limits=limits))
    assert (facts.low_um, facts.high_um) == (low_um, high_um)


def test_one_of_two_limit_signals_will_do() -> None:
    far = SimpleNamespace(name="y", position=2.0, egu="mm", low_limit_travel=math.nan)
    far.high_limit_travel = SimpleNamespace(get=lambda: 3.0)
    facts = axis_facts(far)
    assert math.isnan(facts.low_um)
    assert facts.high_um == 3000.0
    assert not facts.allows(0.0)


def test_a_position_is_allowed_where_no_limit_that_is_set_forbids_it() -> None:
    below = axis_facts(SimpleNamespace(name="x", position=0.0, egu="um", limits=(None, 5)))
    assert [below.allows(target) for target in (-1e6, 5, 5.1)] == [True, True, False]
    swapped = axis_facts(SimpleNamespace(name="x", position=0.0, egu="um", limits=(9, -9)))
    assert not swapped.allows(0.0)


def test_a_bare_positioner_with_limit_attributes_will_do() -> None:
    bare = SimpleNamespace(
        name="y", position=2.0, low_limit=-5.0, high_limit=5.0, velocity=1.0, max_velocity=9.0
    )
    facts = axis_facts(bare)
    assert (facts.position_um, facts.low_um, facts.high_um) == (2.0, -5.0, 5.0)
    assert (facts.velocity_um_s, facts.max_velocity_um_s) == (1.0, 9.0)
    assert facts.acceleration_s is None


def test_a_positioner_that_says_nothing_has_no_position() -> None:
    facts = axis_facts(SimpleNamespace(name="mute"))
    assert math.isnan(facts.position_um)
    assert facts.velocity_um_s is None


class TestOphydAsync:
    @pytest.fixture
    def run_engine(self) -> RunEngine:
        return RunEngine({})

    @pytest.fixture
    def motor(self, run_engine: RunEngine) -> Any:
        core = pytest.importorskip("ophyd_async.core")
        sim = pytest.importorskip("ophyd_async.sim")
        with core.init_devices():
            motor = sim.SimMotor("async_x", instant=False, initial_value=1.25)
        return motor

    EXPECTED = AxisFacts("async_x", 1250.0, None, None, 1000.0, None, 0.5, 1000.0, 1250.0)

    def test_outside_a_plan_signals_in_memory_answer_at_once(self, motor: Any) -> None:
        assert axis_facts(motor) == self.EXPECTED

    def test_inside_a_plan_nothing_blocks_either(self, run_engine: RunEngine, motor: Any) -> None:
        facts = []

        def plan() -> Any:
            yield from bps.null()
            facts.append(axis_facts(motor))

        run_engine(plan())
        assert facts == [self.EXPECTED]

    def test_a_signal_that_has_to_wait_counts_as_unknown(self) -> None:
        import asyncio

        class Slow:
            async def get_value(self) -> float:
                await asyncio.sleep(0.01)
                return 7.0

        device = SimpleNamespace(name="far", egu="um", user_readback=Slow())
        assert math.isnan(axis_facts(device).position_um)
