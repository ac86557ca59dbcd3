"""`start_session(console=True)`: what is told at the prompt, and what can be typed there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import later
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.console.screen import Screen
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.review.verdicts import verdicts
from xrf_sr_plans.session import Session, start_session

SURVEY = {
    "width_um": 36,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "budget_s": 60,
    "analysis_timeout_s": 200,
}
ROWS = 8
pytestmark = pytest.mark.timeout(300)


class Shown:
    """What a session has shown, without the line of progress."""

    def __init__(self, session: Session) -> None:
        self.lines: list[str] = []
        assert session.console is not None
        session.console.screen._write = self._take

    def _take(self, text: str) -> None:
        if text.endswith("\n"):
            self.lines.append(text.strip("\r\n").removesuffix("\x1b[K"))

    def having(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    engine = RunEngine({}, call_returns_result=True)
    settings = AnalysisSettings(threads=1)
    with start_session(
        engine,
        make_beamline("grains"),
        settings=settings,
        in_process=True,
        approvals=str(tmp_path / "approvals"),
        console=True,
        store="off",
    ) as made:
        yield made


def fly(session: Session, **wishes: Any) -> Any:
    assert session.run_engine is not None
    return session.run_engine(session.plans["coarse_survey_with_sr"](**{**SURVEY, **wishes}))


def test_a_survey_returns_once_all_of_it_is_there_with_a_verdict_for_each_rescan(session):
    shown = Shown(session)
    outcome = fly(session).plan_result
    record = session.console.latest.record
    assert len(record.enhanced) == 1
    assert len(record.fine) == len(outcome.rescan_uids) > 0
    assert record.composites
    told = shown.having("inside the 90 % interval")
    assert [line.split(":")[0] for line in told] == [
        f"rescan {uid[:8]}" for uid in outcome.rescan_uids
    ]
    assert "dB over bicubic: " in told[0]
    assert [verdict.fine_uid for verdict in record.verdicts] == list(outcome.rescan_uids)


def test_an_abort_is_one_line(session):
    shown = Shown(session)
    engine = session.run_engine
    assert engine is not None

    def at_row_3(name: str, doc: dict[str, Any]) -> None:
        if name == "event_page" and session.console._progress.rows_done == 3:
            later(0.0, engine.request_pause)

    engine.subscribe(at_row_3)
    with pytest.raises(RunEngineInterrupted):
        fly(session)
    paused = session.console._paused()
    assert paused.startswith("paused at row ")
    assert f"of {ROWS}, shutter closed: RE.resume() goes on" in paused
    engine.abort()
    [line] = shown.lines
    assert line.startswith("stopped at row ")
    assert line.endswith(f"of {ROWS}; the map so far is usable; shutter closed")


def test_regions_are_approved_at_the_prompt_while_the_survey_waits(session):
    shown = Shown(session)
    names = session.names
    answered = threading.Event()

    def answer() -> None:
        deadline = time.monotonic() + 60
        while not session.approvals.waits_for and time.monotonic() < deadline:
            time.sleep(0.02)
        names["approve"](1, why="the vein")
        if len(names["regions"]()) > 1:
            names["deny"]()
        answered.set()

    threading.Thread(target=answer, daemon=True).start()
    outcome = fly(session, rescan="ask").plan_result
    assert answered.is_set()
    assert len(outcome.rescan_uids) == 1
    assert shown.having("wait for approval until")
    assert outcome.regions[0].region.approval["why"] == "the vein"
    assert "rescanned" in str(names["regions"]())
    # What is typed goes the same way.
    session.console._answer("approve 1")
    assert "rescanned already" in shown.lines[-1]


def test_what_was_proposed_is_approved_later_and_the_prompt_says_how_it_is_flown(session):
    shown = Shown(session)
    fly(session, rescan="propose")
    names = session.names
    regions = names["approve"](1)
    assert regions[0].disposition == "approved"
    assert shown.lines[-1] == "region 1 is approved and waits: RE(rescan_approved())"
    session.run_engine(names["rescan_approved"]())
    assert names["regions"]()[0].disposition == "rescanned"
    rows = session.console.latest.record.regions
    assert rows[0]["disposition"] == "rescanned"
    assert "decided_by" in rows[0]
    with pytest.raises(RefusedError, match="no survey with a uid that begins with 'zz'"):
        names["regions"]("zz")


def test_a_console_needs_a_run_engine():
    with pytest.raises(ConfigError, match="needs the RunEngine"):
        start_session(None, make_beamline(), console=True)


def test_lines_wipe_the_progress_that_they_are_written_over():
    written: list[str] = []
    screen = Screen(written.append)
    screen.progress("row 1/6")
    screen.tell("one\ntwo")
    assert written == ["\rrow 1/6\x1b[K", "\rone\x1b[K\n", "\rtwo\x1b[K\n"]


def test_there_is_no_verdict_in_other_runs():
    assert not list(verdicts([("start", {"uid": "u", "time": 0.0, "plan_name": "count"})]))
