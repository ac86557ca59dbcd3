"""A survey among the callbacks and preprocessors that beamlines have in every session."""

from __future__ import annotations

import logging

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import matplotlib as mpl
import pytest
from bluesky import RunEngine
from bluesky.callbacks import LiveTable
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.preprocessors import SupplementalData
from ophyd import Signal
from ophyd.sim import hw

from support.plan_support import Recorder, small_beamline, small_survey

FAMILY = ["coarse", "coarse", "proposals", "fine", "outcomes"]


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def open_at_once(recorder: Recorder) -> int:
    """Return the largest number of runs that were open at the same time."""
    most = count = 0
    for name, _ in recorder.docs:
        count += {"start": 1, "stop": -1}.get(name, 0)
        most = max(most, count)
    return most


def is_whole(recorder: Recorder) -> None:
    """Assert that all runs of a survey are there, one after the other, and succeeded."""
    purposes = [start["xrf_sr"]["purpose"] for start in recorder.starts]
    assert purposes == FAMILY
    assert open_at_once(recorder) == 1
    assert {stop["exit_status"] for stop in recorder.of("stop")} == {"success"}


@pytest.mark.parametrize("company", ["baseline", "monitors", "flyers"])
def test_supplemental_data_of_any_kind_is_in_every_run(run_engine, recorder, company):
    device = hw().flyer1 if company == "flyers" else Signal(name="ring", value=400.0)
    run_engine.preprocessors.append(SupplementalData(**{company: [device]}))
    run_engine(small_survey(small_beamline()))
    is_whole(recorder)


def test_best_effort_callback_and_live_table_have_nothing_to_complain_about(
    run_engine, recorder, caplog, capsys
):
    mpl.use("Agg")
    run_engine.subscribe(BestEffortCallback())
    run_engine.subscribe(LiveTable(["xrf_row"]))
    with caplog.at_level(logging.WARNING):
        run_engine(small_survey(small_beamline()))
    is_whole(recorder)
    assert "Traceback" not in capsys.readouterr().err
    assert not [record for record in caplog.records if record.exc_info]


def test_a_survey_inside_a_keyed_run_of_the_users_leaves_that_run_alone(run_engine, recorder):
    def outer():
        yield from bpp.set_run_key_wrapper(bps.open_run({"xrf_sr": {"purpose": "outer"}}), "outer")
        result = yield from small_survey(small_beamline())
        yield from bpp.set_run_key_wrapper(bps.close_run(), "outer")
        return result

    outcome = run_engine(outer()).plan_result
    assert [region.disposition for region in outcome.regions] == ["rescanned"]
    assert [start["xrf_sr"]["purpose"] for start in recorder.starts] == ["outer", *FAMILY]
    assert {stop["exit_status"] for stop in recorder.of("stop")} == {"success"}
