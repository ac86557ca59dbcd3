"""The log of a session or of the analysis process: lines to read, or a line of JSON per message."""

from __future__ import annotations

import json
import logging
import logging.handlers
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from xrf_sr_plans.config.settings import LogSettings

PACKAGE_LOGGER = "xrf_sr_plans"
"""The logger above all others of this package."""
LEVEL_VARIABLE = "XRF_SR_LOG_LEVEL"
"""The variable that tells the analysis process from which level on it logs."""
FORMAT_VARIABLE = "XRF_SR_LOG_FORMAT"
"""The variable that tells it how: "text" or "json"."""
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass
class _Lowered:
    """A logger whose level was lowered: what it was before, and what is wanted of it."""

    before: int
    wanted: list[int] = field(default_factory=list)


_LOWERED: dict[str, _Lowered] = {}


def pass_on(name: str, level: int) -> Callable[[], None]:
    """Have a logger pass messages from a level on; return what ends that.

    Sessions may overlap and end in any order: the lowest of the levels that are wanted counts,
    and after the last of them the logger has the level that it had before the first.
    """
    lowered = _LOWERED.setdefault(name, _Lowered(logging.getLogger(name).level))
    lowered.wanted.append(level)
    _apply(name, lowered)
    ended = False

    def end() -> None:
        nonlocal ended
        if ended:
            return
        ended = True
        lowered.wanted.remove(level)
        _apply(name, lowered)
        if not lowered.wanted:
            del _LOWERED[name]

    return end


def _apply(name: str, lowered: _Lowered) -> None:
    told = logging.getLogger(name)
    told.setLevel(lowered.before)
    if lowered.wanted and told.getEffectiveLevel() > min(lowered.wanted):
        told.setLevel(min(lowered.wanted))


class JsonFormatter(logging.Formatter):
    """Writes a message as one line of JSON: time (UTC), level, logger, process, message.

    A traceback is under ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def formatter(kind: str) -> logging.Formatter:
    """Return what writes messages in a format, "json" or else "text"."""
    return JsonFormatter() if kind == "json" else logging.Formatter(_TEXT)


def message_of(line: str) -> str:
    """Return the message of a line that `JsonFormatter` wrote; any other line as it is."""
    try:
        return str(json.loads(line)["message"])
    except (ValueError, TypeError, KeyError):
        return line


@dataclass(frozen=True)
class OpenLog:
    """A log file that is written, and what ends the passing on of messages to it."""

    handler: logging.Handler
    end: Callable[[], None]


def open_log(settings: LogSettings) -> OpenLog | None:
    """Begin to write the messages of this package into the log file that the settings name.

    Until the log is closed, loggers pass on what it is to have.

    Returns
    -------
    OpenLog | None
        What `close_log` takes; None where the settings name no file.
    """
    if settings.file is None:
        return None
    handler = logging.handlers.RotatingFileHandler(
        settings.file,
        maxBytes=int(settings.max_mb * 1e6),
        backupCount=settings.keep,
        encoding="utf-8",
        delay=True,
    )
    handler.setFormatter(formatter(settings.format))
    handler.setLevel(settings.level)
    logging.getLogger(PACKAGE_LOGGER).addHandler(handler)
    return OpenLog(handler, pass_on(PACKAGE_LOGGER, handler.level))


def close_log(log: OpenLog | None) -> None:
    """End the writing of a log file."""
    if log is not None:
        logging.getLogger(PACKAGE_LOGGER).removeHandler(log.handler)
        log.handler.close()
        log.end()
