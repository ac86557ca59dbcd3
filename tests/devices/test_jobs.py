"""Jobs of a device: what waits, waits in a thread, and always ends."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import ophyd
import pytest
from ophyd.status import Status

from xrf_sr_plans.devices.epics_flyer import EpicsRowFlyer
from xrf_sr_plans.devices.jobs import Job
from xrf_sr_plans.devices.row_pvs import RowPVs
from xrf_sr_plans.errors import ConfigError, FlightError, MissingExtraError


class Bench:
    """A job with one status, a connection that can be cut, and a record of clean-ups."""

    def __init__(self, steps: Callable[[Job], None], after: Job | None = None) -> None:
        self.status = Status()
        self.connected = True
        self.cleaned_up = 0
        self.job = Job(
            "xrf, row 3",
            steps,
            (self.status,),
            connected=lambda: self.connected,
            clean_up=self._clean_up,
        )
        self.job.start(after, 5.0)

    def _clean_up(self) -> None:
        self.cleaned_up += 1

    def error(self) -> str:
        return str(self.status.exception(5))


def done(status: Status) -> Status:
    status.set_finished()
    return status


def never(job: Job) -> None:
    job.wait(Status(), 30.0, "the end of time")


def test_the_status_finishes_with_the_last_step() -> None:
    bench = Bench(lambda job: job.wait(done(Status()), 5.0, "a move"))
    bench.status.wait(5)
    assert bench.job.done
    assert bench.cleaned_up == 0


def test_a_step_that_takes_too_long_fails_by_name_after_cleaning_up() -> None:
    bench = Bench(lambda job: job.wait(Status(), 0.05, "moving samx"))
    assert bench.error() == "xrf, row 3: moving samx: not done in 0.05 s"
    assert bench.cleaned_up == 1


def test_a_lost_connection_ends_the_wait_at_once() -> None:
    bench = Bench(never)
    bench.connected = False
    began = time.monotonic()
    assert "the connection is lost" in bench.error()
    assert time.monotonic() - began < 1


def test_what_fails_in_a_step_is_the_flight_s_error() -> None:
    def steps(job: Job) -> None:
        failed = Status()
        failed.set_exception(ValueError("velocity clamped"))
        job.wait(failed, 5.0, "setting the velocity")

    bench = Bench(steps)
    assert isinstance(bench.status.exception(5), FlightError)
    assert "setting the velocity: ValueError: velocity clamped" in bench.error()
    assert "xrf, row 3: KeyError" in Bench(lambda job: {}["x"]).error()


def test_a_stopped_job_finishes_its_status_without_error_and_does_no_further_step() -> None:
    further = threading.Event()

    def steps(job: Job) -> None:
        never(job)
        further.set()

    bench = Bench(steps)
    bench.job.stop()
    bench.status.wait(1)
    following = Bench(lambda job: None, after=bench.job)
    following.status.wait(1)
    assert bench.job.done
    assert not further.is_set()
    assert bench.cleaned_up == 0


def test_a_job_waits_for_the_one_before_but_not_for_ever() -> None:
    stubborn = threading.Event()
    first = Bench(lambda job: stubborn.wait(5) and None)
    second = Bench(lambda job: None, after=first.job)
    time.sleep(0.1)
    assert not second.status.done
    stubborn.set()
    second.status.wait(5)


def test_a_flyer_without_elements_or_without_channel_access_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    facts = {"arm": "arm", "busy": "busy", "num": "num", "dwell": "dwell"}
    with pytest.raises(ConfigError, match="no element"):
        EpicsRowFlyer(RowPVs(counts={}, **facts), name="xrf", fast=None, slow=None)
    monkeypatch.setattr(ophyd, "cl", SimpleNamespace(name="dummy"))
    with pytest.raises(MissingExtraError, match="'epics'"):
        EpicsRowFlyer(RowPVs(counts={"Fe": "fe"}, **facts), name="xrf", fast=None, slow=None)


def test_the_ioc_without_caproto_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "caproto", None)
    monkeypatch.delitem(sys.modules, "xrf_sr_plans.devices.ioc", raising=False)
    with pytest.raises(MissingExtraError, match=r"xrf-sr-plans\[epics\]"):
        importlib.import_module("xrf_sr_plans.devices.ioc")
