"""Logs: lines to read or lines of JSON, of the session and of the analysis process."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings, LogSettings, Settings
from xrf_sr_plans.config.logs import close_log, message_of, open_log, pass_on
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.session import start_session

LOGGER = logging.getLogger("xrf_sr_plans.plans.test")


def write(settings: LogSettings) -> list[str]:
    log = open_log(settings)
    try:
        LOGGER.warning("row %d failed", 3)
        LOGGER.debug("a detail")
        try:
            raise ValueError("no beam")
        except ValueError:
            LOGGER.exception("an error")
    finally:
        close_log(log)
    LOGGER.warning("after the end")
    return Path(str(settings.file)).read_text(encoding="utf-8").splitlines()


def test_a_log_in_json_has_one_message_per_line(tmp_path: Path) -> None:
    lines = write(LogSettings(file=str(tmp_path / "log"), format="json"))
    first, last = map(json.loads, lines)
    assert (first["level"], first["message"]) == ("WARNING", "row 3 failed")
    assert first["logger"] == "xrf_sr_plans.plans.test"
    assert first["time"].endswith("+00:00")
    assert "ValueError: no beam" in last["exception"]


def test_a_log_in_text_can_be_read(tmp_path: Path) -> None:
    lines = write(LogSettings(file=str(tmp_path / "log")))
    assert lines[0].endswith(" WARNING xrf_sr_plans.plans.test: row 3 failed")


def test_debugging_is_logged_when_it_is_asked_for(tmp_path: Path) -> None:
    top = logging.getLogger("xrf_sr_plans")
    level = top.level
    lines = write(LogSettings(file=str(tmp_path / "log"), level="DEBUG"))
    assert any("a detail" in line for line in lines)
    assert top.level == level


@pytest.mark.parametrize("first", [0, 1])
def test_sessions_that_overlap_leave_the_levels_of_loggers_as_they_were(first: int) -> None:
    told = logging.getLogger("xrf_sr_plans.plans")
    level = told.level
    ends = [pass_on(told.name, logging.INFO), pass_on(told.name, logging.DEBUG)]
    assert told.level == logging.DEBUG
    ends[first]()
    ends[first]()
    assert told.level == (logging.DEBUG, logging.INFO)[first]
    ends[1 - first]()
    assert told.level == level


def test_a_session_logs_where_its_settings_say_until_it_is_closed(tmp_path: Path) -> None:
    file = tmp_path / "session.log"
    settings = Settings.load(None, {}, log={"file": str(file), "format": "json"})
    with start_session(None, make_beamline(), settings=settings, in_process=True):
        LOGGER.warning("seen")
    LOGGER.warning("not seen")
    assert [json.loads(line)["message"] for line in file.read_text().splitlines()][-1] == "seen"


def test_a_session_is_refused_where_its_log_would_have_no_place(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    settings = Settings.load(None, {}, log={"file": str(tmp_path / "taken" / "log")})
    with pytest.raises(ConfigError, match="the folder of file"):
        start_session(None, make_beamline(), settings=settings, in_process=True)


def test_the_analysis_process_logs_as_the_session_does_unless_told() -> None:
    told = Settings.load(None, {}, log={"level": "DEBUG", "format": "json"})
    assert (told.of_analysis.log_level, told.of_analysis.log_format) == ("DEBUG", "json")
    own = Settings.load(None, {"XRF_SR_LOG_LEVEL": "ERROR"}, log={"level": "DEBUG"})
    assert own.of_analysis.log_level == "ERROR"


@pytest.mark.e2e
def test_the_last_words_of_an_analysis_process_are_read_out_of_json(tmp_path: Path) -> None:
    told = "; ".join(
        [
            "import logging, os, sys",
            "from xrf_sr_plans.config.logs import FORMAT_VARIABLE, LEVEL_VARIABLE, formatter",
            "handler = logging.StreamHandler(sys.stderr)",
            "handler.setFormatter(formatter(os.environ[FORMAT_VARIABLE]))",
            "logging.basicConfig(level=os.environ[LEVEL_VARIABLE], handlers=[handler])",
            "logging.getLogger('xrf_sr_plans.x').debug('no memory left')",
            "os._exit(3)",
        ]
    )
    settings = AnalysisSettings(
        log_file=str(tmp_path / "log"), log_format="json", log_level="DEBUG"
    )
    worker = WorkerProcess(settings, lambda process, message: None, [sys.executable, "-c", told])
    assert worker.end(30.0) == "exit code 3: no memory left"
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert json.loads(line)["level"] == "DEBUG"


def test_a_line_that_is_no_json_is_its_own_message() -> None:
    assert message_of("Segmentation fault") == "Segmentation fault"
    assert message_of('{"message": "no beam"}') == "no beam"
    assert message_of('"text"') == '"text"'
