"""The log of a session or of the analysis process: lines to read, or a line of JSON per message."""

from __future__ import annotations

import json
import logging
import logging.handlers
from datetime import UTC, datetime

from xrf_sr_plans.config.settings import LogSettings

PACKAGE_LOGGER = "xrf_sr_plans"
"""The logger above all others of this package."""
LEVEL_VARIABLE = "XRF_SR_LOG_LEVEL"
"""The variable that tells the analysis process from which level on it logs."""
FORMAT_VARIABLE = "XRF_SR_LOG_FORMAT"
"""The variable that tells it how: "text" or "json"."""
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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


def open_log(settings: LogSettings) -> logging.Handler | None:
    """Begin to write the messages of this package into the log file that the settings name.

    Loggers keep the levels that they have, unless they would hold back what the log is to have.

    Returns
    -------
    logging.Handler | None
        What writes the file, for `close_log`; None where the settings name none.
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
    top = logging.getLogger(PACKAGE_LOGGER)
    top.addHandler(handler)
    if top.getEffectiveLevel() > handler.level:
        top.setLevel(handler.level)
    return handler


def close_log(handler: logging.Handler | None) -> None:
    """End the writing of a log file."""
    if handler is not None:
        logging.getLogger(PACKAGE_LOGGER).removeHandler(handler)
        handler.close()
