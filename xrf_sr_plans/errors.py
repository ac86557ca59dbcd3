"""All exceptions that this package raises.

There are two main branches. A `RefusedError` means that the user must change something; it is
raised before anything moves, is queued or is written. An `AnalysisError` means that something
went wrong while data were looked at; it is recorded and never reaches the RunEngine. Between
the two stands `FlightError`, which means that the hardware failed too often.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class XrfSrError(Exception):
    """Base class of all errors of this package."""

    def _render_traceback_(self) -> list[str]:
        """Return what IPython shows: one line, because where in the code it was helps no user."""
        return [f"{type(self).__name__}: {self}"]


class RefusedError(XrfSrError, ValueError):
    """The request can't be carried out as it stands, and nothing has moved.

    Attributes
    ----------
    reasons
        Each single reason, where the message lists several; empty where it is the only one.
    """

    reasons: tuple[str, ...] = ()


class ArgumentsError(RefusedError, TypeError):
    """A plan was called without an argument that it needs, or with one that it doesn't have."""


class GridError(RefusedError):
    """The scan grid can't be flown: it has a NaN, no points, or a step larger than its width."""


class LimitsError(RefusedError):
    """A position, run-up, velocity or frame rate lies outside what the hardware allows."""


class BudgetError(RefusedError):
    """The request needs more beam time or more dose than it was given."""


class QueryError(RefusedError):
    """The element query can't be read, or it names an element that nobody measures."""


class ConfigError(RefusedError):
    """A setting has a value outside what is allowed."""


class MissingExtraError(RefusedError, ImportError):
    """An optional dependency is not installed.

    Parameters
    ----------
    what
        What needs the dependency; the message begins with it.
    extra
        Name of the extra of this package that installs the dependency.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'xrf-sr-plans[{extra}]'")


class ModelError(RefusedError):
    """The weights are damaged, of an unknown architecture, or not those that the card names."""


class FileFormatError(RefusedError):
    """The file holds no elemental maps in any layout that this package reads."""


class FileBusyError(RefusedError):
    """The file is being written by somebody else at the moment."""


class FlightError(XrfSrError, RuntimeError):
    """The hardware failed so often that a map was given up; the rows measured so far are kept."""


class LeftUnsafeError(XrfSrError, RuntimeError):
    """The beamline could not be left safe: the shutter is open or an axis has another velocity.

    It ends the plan whatever else happened, because a person must look.
    """


class AnalysisError(XrfSrError, RuntimeError):
    """The analysis could not be done, and the scan goes on without it."""


class AssemblyError(AnalysisError):
    """The documents of a run don't add up to an elemental map."""


class WorkerError(AnalysisError):
    """The analysis process died, hung or could not be started."""


class ClusterError(AnalysisError):
    """The cluster did not do what it was asked: it is gone, busy, of another version or failed."""


class MessageError(AnalysisError):
    """A message on a bus holds no document that can be read."""


class PickleRefusedError(MessageError):
    """A message on a bus is a pickle, which could run any code and is never read."""


class BusError(AnalysisError):
    """A bus did not take what was to be published on it."""


def in_words(error: BaseException, max_length: int = 300) -> str:
    """Return type and message of an error as one line that fits into a document.

    Parameters
    ----------
    error
        The error. The cause of bluesky's FailedStatus is reported in its place, because only
        the cause says what happened to the device.
    max_length
        Number of characters after which the line is cut off.
    """
    if type(error).__name__ == "FailedStatus" and error.__cause__ is not None:
        error = error.__cause__
    name, told = type(error).__name__, " ".join(str(error).split())
    text = f"{name}: {told}" if told else name
    return text if len(text) <= max_length else f"{text[: max_length - 3]}..."


@contextmanager
def in_our_words(what: str, error: type[XrfSrError]) -> Iterator[None]:
    """Let damaged data end in an error of this package, whatever they raise.

    Parameters
    ----------
    what
        What is being read; the message begins with it.
    error
        The error to raise. Errors of this package pass as they are.
    """
    try:
        yield
    except XrfSrError:
        raise
    except Exception as raised:
        raise error(f"{what}: {in_words(raised)}") from raised
