"""Pause anywhere, and end anyhow: what was measured is right, and the beamline is left safe."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import Msg, RunEngineInterrupted
from ophyd import Signal

from support.plan_support import (
    Interrupting,
    Recorder,
    fly_through,
    is_safe,
    later,
    pause,
    same_map,
    small_beamline,
    small_survey,
)

APART = 30
"""Messages between two pauses of a survey: more than a row has."""


def last_words(recorder) -> dict[str, str]:
    events = [event["data"] for event in recorder.events("regions")]
    return {data["region_key"]: data["region_disposition"] for data in events}


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture(scope="module")
def reference():
    """The undisturbed survey: its maps, and how many messages it has."""
    run_engine = RunEngine({}, call_returns_result=True)
    recorder = Recorder(run_engine)
    plan = Interrupting(small_survey(small_beamline()), None, pause)
    result = run_engine(iter(plan))
    run_engine.unsubscribe(recorder.token)
    builders = [recorder.builder(start) for start in recorder.map_starts()]
    assert len(builders) == 3
    assert all(builder.complete for builder in builders)
    assert [one.disposition for one in result.plan_result.regions] == ["rescanned"]
    return builders, plan.count


@pytest.mark.timeout(300)
def test_paused_before_any_message_and_resumed_the_maps_are_the_same(run_engine, reference):
    """Each message has a pause before it in one of the surveys, which are paused several times."""
    builders, count = reference
    for first in range(APART):
        recorder = Recorder(run_engine)
        beamline = small_beamline(shutter_open=False)
        pauses = range(first, count, APART)
        plan = iter(Interrupting(small_survey(beamline), pauses, pause))
        with pytest.raises(RunEngineInterrupted):
            run_engine(plan)
        for _ in pauses[1:]:
            assert not beamline.microscope.shutter_open, "exposed while somebody thinks"
            assert not beamline.flyer._flying
            with pytest.raises(RunEngineInterrupted):
                run_engine.resume()
        assert not beamline.microscope.shutter_open, "exposed while somebody thinks"
        result = run_engine.resume()
        run_engine.unsubscribe(recorder.token)
        where = f"message {first} and each {APART} later"
        assert result.exit_status == "success", where
        assert [one.disposition for one in result.plan_result.regions] == ["rescanned"]
        starts = recorder.map_starts()
        assert len(starts) == 3, where
        for start, undisturbed in zip(starts, builders, strict=True):
            same_map(recorder.builder(start), undisturbed)
            assert recorder.stop_of(start["uid"])["exit_status"] == "success"
        rows = 3 + 3 + 4 + len(pauses)
        assert len(recorder.events("primary")) <= rows, "more than a row flown again for a pause"
        is_safe(beamline)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_ended_before_any_message_what_was_measured_is_usable_and_all_is_safe(
    run_engine, reference, ending
):
    builders, count = reference
    for k in range(0, count, 3):
        recorder = Recorder(run_engine)
        beamline = small_beamline()
        with pytest.raises(RunEngineInterrupted):
            run_engine(iter(Interrupting(small_survey(beamline), k, pause)))
        getattr(run_engine, ending)()
        run_engine.unsubscribe(recorder.token)
        assert run_engine.state == "idle"
        if recorder.docs:
            is_safe(beamline)
        for start in recorder.starts:
            assert recorder.stop_of(start["uid"]) is not None, f"message {k}"
        if ending != "halt":
            assert "proposed" not in last_words(recorder).values(), f"message {k}"
        for start, whole in zip(recorder.map_starts(), builders, strict=False):
            part = recorder.builder(start)
            if not part.rows_used:
                continue
            partial, undisturbed = part.maps().counts.values, whole.maps().counts.values
            missing = [row for row in range(len(partial[0])) if row not in part.rows_used]
            assert np.isnan(partial[:, missing]).all()
            np.testing.assert_array_equal(
                partial[:, part.rows_used], undisturbed[:, part.rows_used]
            )


def test_a_suspender_that_trips_at_any_row_changes_nothing_in_the_maps(run_engine, reference):
    builders, count = reference
    for k in range(3, count, 11):
        trip = Signal(name="trip", value=0)
        suspender = SuspendBoolHigh(trip)
        run_engine.install_suspender(suspender)
        recorder = Recorder(run_engine)
        beamline = small_beamline()

        def fire(trip=trip) -> Msg:
            # From another thread, as a real signal comes; the plan lingers, because a RunEngine
            # that is suspended while its plan returns can't get to idle.
            threading.Thread(target=trip.put, args=(1,)).start()
            later(0.05, lambda: trip.put(0))
            return Msg("sleep", None, 0.04)

        result = run_engine(iter(Interrupting(small_survey(beamline), k, fire)))
        run_engine.unsubscribe(recorder.token)
        run_engine.remove_suspender(suspender)
        assert result.exit_status == "success"
        for start, undisturbed in zip(recorder.map_starts(), builders, strict=True):
            same_map(recorder.builder(start), undisturbed)
        is_safe(beamline)


def test_a_pause_in_the_middle_of_motion_is_resumed(run_engine, reference):
    builders, _ = reference
    for after_s in (0.03, 0.11, 0.19, 0.33):
        recorder = Recorder(run_engine)
        beamline = small_beamline(clock=10.0)
        later(after_s, run_engine.request_pause)
        result = fly_through(run_engine, small_survey(beamline))
        run_engine.unsubscribe(recorder.token)
        assert result.exit_status == "success"
        for start, undisturbed in zip(recorder.map_starts(), builders, strict=True):
            same_map(recorder.builder(start), undisturbed)
        is_safe(beamline)


@pytest.mark.parametrize("ending", ["abort", "stop", "halt"])
def test_ended_in_the_middle_of_motion_everything_comes_to_rest(run_engine, ending):
    for after_s in (0.05, 0.17, 0.29):
        beamline = small_beamline(clock=10.0)
        recorder = Recorder(run_engine)
        ended = later(after_s, lambda: getattr(run_engine, ending)())
        with pytest.raises(RunEngineInterrupted):
            run_engine(small_survey(beamline))
        ended.join(5)
        run_engine.unsubscribe(recorder.token)
        is_safe(beamline)
        for start in recorder.starts:
            assert recorder.stop_of(start["uid"]) is not None
