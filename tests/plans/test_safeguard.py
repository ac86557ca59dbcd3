"""The last line of defence: what unstaging does when no plan runs any more."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from ophyd.sim import SynAxis
from ophyd.status import Status

from support.plan_support import small_beamline
from xrf_sr_plans.plans.safeguard import Safeguard, all_in_turn
from xrf_sr_plans.plans.xrf_map import xrf_map


class Shutter:
    """A shutter that knows nothing of staging."""

    name = "plain_shutter"
    parent = None

    def __init__(self, fails: bool = False) -> None:
        self.asked: list[str] = []
        self._fails = fails

    def set(self, value: str) -> Status:
        self.asked.append(value)
        status = Status()
        if self._fails:
            status.set_exception(RuntimeError("no air"))
        else:
            status.set_finished()
        return status


def guarded(**changes: Any) -> tuple[Safeguard, Shutter]:
    shutter = Shutter()
    guard = Safeguard(replace(small_beamline(), shutter=shutter, **changes))
    return guard, shutter


def test_unstaging_closes_the_shutter_and_restores_the_velocity():
    fast = SynAxis(name="fast")
    fast.velocity.put(7)
    guard, shutter = guarded(fast=fast)
    guard.velocity = 3.0
    guard.stage()
    guard.unstage()
    assert shutter.asked == ["close"]
    deadline = time.monotonic() + 5
    while fast.velocity.get() != 3.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fast.velocity.get() == 3.0


def test_a_flyer_that_cannot_be_stopped_does_not_keep_the_shutter_open(monkeypatch):
    def no_answer(**_: object) -> None:
        raise OSError("no answer")

    flyer = small_beamline().flyer
    monkeypatch.setattr(flyer, "stop", no_answer)
    guard, shutter = guarded(flyer=flyer)
    guard.stage()
    guard.unstage()
    assert shutter.asked == ["close"]


def test_after_a_plan_has_cleaned_up_unstaging_does_nothing():
    guard, shutter = guarded()
    guard.stage()
    guard.stand_down()
    guard.unstage()
    assert shutter.asked == []


def test_an_open_shutter_is_not_opened_again_but_is_after_a_pause():
    guard, shutter = guarded()
    for _ in range(3):
        guard.set("open")
    guard.pause()
    guard.set("open")
    assert shutter.asked == ["open", "close", "open"]


def test_a_shutter_that_fails_to_open_costs_rows_but_never_hangs():
    run_engine = RunEngine({}, call_returns_result=True)
    shutter = Shutter(fails=True)
    beamline = replace(small_beamline(), shutter=shutter)
    area = {"width_um": 3, "height_um": 3, "step_um": 1, "dwell_ms": 10}
    with pytest.raises(RuntimeError):
        run_engine(xrf_map(beamline, **area, row_attempts=1))
    assert shutter.asked[-1] == "close"


def test_every_clean_up_step_has_its_turn():
    done = []

    def bad():
        yield from ()
        raise FailedStatus("late")

    def good():
        done.append("good")
        yield from ()

    list(all_in_turn(bad, good))
    assert done == ["good"]
