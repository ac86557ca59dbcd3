"""Everything this package raises.

Two main branches. `RefusedError`: the user must change something; it is raised before anything
moves, is queued or is written. `AnalysisError`: something went wrong while looking at data;
it is recorded and never reaches the RunEngine. Between them `FlightError`: the hardware gave up.
"""

from __future__ import annotations


class XrfSrError(Exception):
    """Base of all errors of this package."""


class RefusedError(XrfSrError, ValueError):
    """The request can't be carried out as it stands; nothing has moved."""


class GridError(RefusedError):
    """A scan grid that can't be flown (NaN, no points, step larger than the width, ...)."""


class LimitsError(RefusedError):
    """A position, run-up, velocity or rate lies outside what the hardware allows."""


class BudgetError(RefusedError):
    """The request needs more beam time or dose than it was given."""


class QueryError(RefusedError):
    """An element query that can't be read, or that names an element nobody measures."""


class ConfigError(RefusedError):
    """A setting with a value outside what is allowed."""


class MissingExtraError(RefusedError, ImportError):
    """An optional dependency is needed; the message names the extra to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'xrf-sr-plans[{extra}]'")


class ModelError(RefusedError):
    """Weights that are wrong, truncated, of an unknown architecture or not to be trusted."""


class FileFormatError(RefusedError):
    """A file that holds no elemental maps in any layout we know."""


class FlightError(XrfSrError, RuntimeError):
    """The hardware failed so often that a map was given up; what was measured is kept."""


class AnalysisError(XrfSrError, RuntimeError):
    """The analysis could not be done; the scan goes on without it."""


class AssemblyError(AnalysisError):
    """Documents that don't add up to an elemental map."""


class WorkerError(AnalysisError):
    """The analysis process died, hung or could not be started."""


def in_words(error: BaseException, most: int = 300) -> str:
    """Return type and message of an error on one line short enough for a document.

    Of bluesky's FailedStatus it is the status's own error: it says what happened.
    """
    if type(error).__name__ == "FailedStatus" and error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= most else f"{text[: most - 3]}..."
