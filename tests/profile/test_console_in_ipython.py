"""The console in a plain IPython without any profile, typed into as a user would."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator

import pexpect
import pytest

START = (
    "from bluesky import RunEngine; RE = RunEngine({});"
    " from xrf_sr_plans import start_session;"
    " from xrf_sr_plans.devices.sim import make_beamline;"
    " session = start_session(RE, make_beamline('grains', clock=5.0), console=True)"
)
WISHES = "width_um=36, height_um=16, step_um=2, x_center_um=0, y_center_um=0, dwell_ms=10"
ASKING = f"RE(coarse_survey_with_sr({WISHES}, budget_s=60, rescan='ask', analysis_timeout_s=100));"
pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pexpect.spawn]:
    tmp_path = tmp_path_factory.mktemp("plain-ipython")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "PYTHONWARNINGS": "ignore",
        "TERM": "dumb",
    }
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--simple-prompt", "--colors=NoColor"],
        env=environment,  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=200,
        dimensions=(50, 250),
    )
    child.expect(r"In \[1\]: ")
    yield child
    child.sendline("exit()")
    child.expect(pexpect.EOF, timeout=60)
    child.close()
    assert child.exitstatus == 0


def ask(session: pexpect.spawn, line: str) -> str:
    """Type a line and return what it printed, without the line of progress."""
    session.sendline(line)
    session.expect(r"In \[\d+\]: ")
    said = (session.before or "").replace("\x1b[K", "")
    return "\n".join(part.split("\r")[-1] for part in said.split("\r\n"))


def lines(said: str, typed: str) -> list[str]:
    return [line for line in said.splitlines() if line.strip() and typed not in line]


def test_bad_settings_are_one_line_before_anything_is_started(session):
    session.sendline("import os; os.environ['XRF_SR_THREADS'] = 'many'")
    session.expect(r"In \[\d+\]: ")
    said = ask(session, START)
    assert "Traceback" not in said
    assert re.search("ConfigError: .*XRF_SR_THREADS", said)
    session.sendline("del os.environ['XRF_SR_THREADS']")
    session.expect(r"In \[\d+\]: ")


def test_one_call_gives_plans_and_what_is_typed_besides(session):
    assert "Traceback" not in ask(session, START)
    said = ask(session, "coarse_survey_with_sr, preview, approve, deny, edit, surveys, analysis")
    assert "NameError" not in said


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (f"RE(coarse_survey_with_sr({WISHES}, widht_um=3))", "ArgumentsError: .*'widht_um'"),
        ("RE(coarse_survey_with_sr(width_um=3))", "ArgumentsError: .*'height_um'"),
        (f"RE(coarse_survey_with_sr({WISHES}, find='Fe and'))", "Error: .*Fe and"),
        ("approve(1)", "RefusedError: no survey has proposed regions yet"),
        ("RE(rescan_approved())", "RefusedError: no survey has approved regions"),
    ],
)
def test_a_refusal_is_one_line(session, call, says):
    told = lines(ask(session, call), call[:20])
    assert len(told) == 1, told
    assert re.search(says, told[0])


def test_an_abort_after_ctrl_c_is_one_line_of_ours(session):
    session.sendline(ASKING)
    session.expect(r"row [23]/8")
    session.sendintr()
    # Two signals at once may arrive as one.
    time.sleep(0.5)
    session.sendintr()
    session.expect(r"In \[\d+\]: ")
    assert re.search(r"paused at row \d of 8, shutter closed: RE.resume\(\)", session.before)
    assert "Traceback" not in session.before
    told = lines(ask(session, "RE.abort();"), "RE.abort();")
    assert len(told) <= 2, told
    assert re.search(r"stopped at row \d of 8; the map so far is usable; shutter closed", told[-1])
    # What bluesky itself prints.
    assert told[:-1] in ([], ["Aborting: running cleanup and marking exit_status as 'abort'..."])


def test_answers_typed_while_the_survey_waits_are_taken(session):
    session.sendline(ASKING)
    session.expect(r"regions wait for approval until")
    session.expect(r"type approve 1 3")
    session.sendline("nonsense")
    session.expect("is no answer")
    session.sendline("approve 1 why=the vein")
    session.expect("1. .*: approved: approved by .*the vein")
    session.sendline("none")
    session.expect(r"inside the 90 % interval")
    session.expect(r"In \[\d+\]: ")
    assert "rescanned" in ask(session, "print(regions())")
    assert "1 fine maps" in ask(session, "latest_survey")


def test_a_worker_that_is_killed_costs_nothing_at_the_prompt(session):
    said = ask(session, "import os, signal; os.kill(session.link.pid, signal.SIGKILL)")
    assert "Traceback" not in said
    call = ASKING.replace("'ask'", "'propose'")
    said = ask(session, call)
    assert "Traceback" not in said
    assert "1 enhanced" in ask(session, "latest_survey")
