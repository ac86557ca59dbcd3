"""The results device: its trigger always ends, in bounded time, and the reading says how."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future

import pytest
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp

from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.region import Region

REGION = Region(0, 1, 2, 3, ("Fe",), 1.0, "bright", "run", 0.5, 1.0)


def summary(status="done", reason=""):
    model = {"name": "net", "sha256": "abc"}
    return AnalysisSummary("run", "result", status, reason, (REGION,), model)


class Source:
    """Answers when the test says so."""

    def __init__(self):
        self.asked, self.given_up = [], []
        self.result, self.fallback = Future(), Future()

    def request(self, uid):
        self.asked.append(uid)
        return self.result

    def fall_back(self, uid, reason):
        self.given_up.append(reason)
        return self.fallback


def triggered(device, timeout_s=None):
    device.set({"source_uids": ["run"], "timeout_s": timeout_s}).wait(1)
    status = device.trigger()
    status.wait(5)
    assert status.success
    return {key.removeprefix("analysis_"): part["value"] for key, part in device.read().items()}


def test_a_result_is_read_like_a_motor():
    source = Source()
    source.result.set_result(summary())
    reading = triggered(AnalysisDevice(source=source))
    assert (reading["status"], reading["model"], reading["result_uid"]) == ("done", "net", "result")
    assert [Region.from_dict(plain) for plain in json.loads(reading["regions"])] == [REGION]


def test_every_reading_is_described():
    device = AnalysisDevice(name="sr", source=Source())
    assert set(device.read()) == set(device.describe())
    assert set(device.read_configuration()) == set(device.describe_configuration())
    assert all(key.startswith("sr_") for key in device.describe())
    assert device.read()["sr_status"]["value"] == "pending"


def test_a_late_result_is_replaced_by_the_fallback():
    source = Source()
    source.fallback.set_result(summary("fallback", "no result within 0.05 s"))
    reading = triggered(AnalysisDevice(source=source), timeout_s=0.05)
    assert (reading["status"], reading["reason"]) == ("fallback", "no result within 0.05 s")
    source.result.set_result(summary())
    assert source.given_up == ["no result within 0.05 s"]


def test_a_failed_result_is_replaced_by_the_fallback():
    source = Source()
    source.result.set_result(summary("failed", "worker died"))
    source.fallback.set_result(summary("fallback", "worker died"))
    assert triggered(AnalysisDevice(source=source))["status"] == "fallback"
    assert source.given_up == ["worker died"]


def test_even_a_fallback_that_never_comes_ends_the_wait():
    reading = triggered(AnalysisDevice(source=Source(), fallback_timeout_s=0.05), timeout_s=0.05)
    assert reading["status"] == "failed"
    assert "no fallback" in reading["reason"]


@pytest.mark.parametrize("broken", ["request", "fall_back"])
def test_a_source_that_raises_ends_the_wait(broken):
    source = Source()
    setattr(source, broken, lambda *_: 1 / 0)
    reading = triggered(AnalysisDevice(source=source), timeout_s=0.05)
    assert reading["status"] == "failed"
    assert "ZeroDivisionError" in reading["reason"]


def test_without_analysis_the_reading_says_so():
    reading = triggered(AnalysisDevice())
    assert (reading["status"], reading["reason"]) == ("failed", "no analysis configured")


def test_triggering_again_repeats_the_outcome_and_asks_nobody():
    source = Source()
    device = AnalysisDevice(source=source)
    device.set({"source_uids": ["run"]})
    first, second = device.trigger(), device.trigger()
    source.result.set_result(summary())
    first.wait(1)
    second.wait(1)
    before = device.read()
    device.trigger().wait(1)
    assert device.read() == before
    assert source.asked == ["run"]


@pytest.mark.parametrize(
    "value",
    [{}, {"source_uids": []}, {"source_uids": ["a", "b"]}, {"source_uids": ["a"], "timeout_s": 0}],
)
def test_a_wrong_setting_is_refused_by_name(value):
    with pytest.raises(ConfigError, match="analysis"):
        AnalysisDevice().set(value)


def test_a_plan_waits_for_it_pauses_and_goes_on():
    source = Source()
    device = AnalysisDevice(source=source)
    engine = RunEngine({})
    readings = []

    @bpp.run_decorator()
    def plan():
        yield from bps.checkpoint()
        yield from bps.abs_set(device, {"source_uids": ["run"]}, wait=True)
        yield from bps.trigger(device, group="analysis")
        threading.Timer(0.2, engine.request_pause).start()
        yield from bps.wait("analysis")
        yield from bps.create("analysis")
        readings.append((yield from bps.read(device)))
        yield from bps.save()

    from bluesky.utils import RunEngineInterrupted

    with pytest.raises(RunEngineInterrupted):
        engine(plan())
    source.result.set_result(summary())
    engine.resume()
    assert readings[0]["analysis_status"]["value"] == "done"
    assert source.asked == ["run"]
