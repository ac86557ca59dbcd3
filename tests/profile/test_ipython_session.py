"""A real IPython session, started from the profile and typed into as a user would."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

STARTUP = Path(__file__).resolve().parents[2] / "profile_collection" / "startup"
SURVEY = (
    "RE(coarse_survey_with_sr(width_um=24, height_um=12, step_um=2, x_center_um=0, y_center_um=0,"
    " dwell_ms=10, find='K', factor=2, budget_s=60))"
)
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pexpect.spawn]:
    """Return an IPython whose profile is this repository's, on a clock five times too fast."""
    tmp_path = tmp_path_factory.mktemp("ipython")
    profile = tmp_path / "profile"
    shutil.copytree(STARTUP, profile / "startup")
    environment = {
        **os.environ,
        "XRF_SIM_CLOCK": "5",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONWARNINGS": "ignore",
        "TERM": "dumb",
    }
    child = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--profile-dir", str(profile), "--simple-prompt", "--colors=NoColor"],
        env=environment,  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=90,
        dimensions=(50, 250),
    )
    child.expect(r"In \[1\]: ")
    yield child
    child.sendline("exit()")
    child.expect(pexpect.EOF, timeout=30)
    child.close()
    assert child.exitstatus == 0


def ask(session: pexpect.spawn, line: str) -> str:
    """Type a line and return what it printed."""
    session.sendline(line)
    session.expect(r"In \[\d+\]: ")
    return session.before or ""


def position(session: pexpect.spawn) -> str:
    """Return where the stage is."""
    return ask(session, "samx.position, samy.position").split("]: ")[1].strip()


def test_a_survey_typed_in_is_paused_with_ctrl_c_and_resumed_to_its_end(session) -> None:
    session.sendline(SURVEY)
    session.expect(r"row [23]/6")
    session.sendintr()
    session.sendintr()
    session.expect(r"In \[\d+\]: ")
    assert "RE.resume()" in session.before
    assert "paused" in ask(session, "RE.state")
    resumed = ask(session, "RE.resume()")
    assert "Traceback" not in resumed
    assert "idle" in ask(session, "RE.state")
    assert "'done'" in ask(session, "analysis.read()['analysis_status']['value']")


def test_a_preview_says_what_would_be_flown_and_moves_nothing(session) -> None:
    before = position(session)
    call = SURVEY.removeprefix("RE(coarse_survey_with_sr(").removesuffix("))")
    answer = ask(session, f"print(preview(coarse_survey_with_sr, {call}))")
    assert "would start" in answer
    assert position(session) == before


def test_a_survey_beyond_the_limits_is_refused_by_axis_value_and_limit(session) -> None:
    answer = ask(session, SURVEY.replace("width_um=24", "width_um=2400").replace("60))", "900))"))
    assert "LimitsError" in answer
    assert "samx" in answer
    assert "Traceback" not in answer


def test_the_latest_survey_is_listed_at_the_prompt(session) -> None:
    assert "1 coarse maps, 1 enhanced" in ask(session, "latest_survey")
