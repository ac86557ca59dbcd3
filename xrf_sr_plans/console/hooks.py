"""Errors at an IPython prompt as one line, where a traceback tells a user nothing."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bluesky import RunEngine
from bluesky.utils import FailedPause, PlanHalt, RequestAbort, RequestStop, RunEngineInterrupted

from xrf_sr_plans.errors import XrfSrError

_BY_HAND = (RequestAbort, RequestStop, PlanHalt, FailedPause, asyncio.CancelledError)
"""What ends a plan because a person wanted that."""


def quiet_run_engine(run_engine: RunEngine) -> Callable[[], None]:
    """Keep tracebacks that tell a user nothing out of the RunEngine's log; return what undoes it.

    An abort by hand is not logged at all, as whoever did it knows. Errors of this package lose
    their traceback, as their message says what to do.
    """
    logs = {run_engine.log.logger, logging.getLogger("bluesky")}
    for log in logs:
        log.addFilter(_worth_a_traceback)

    def undo() -> None:
        for log in logs:
            log.removeFilter(_worth_a_traceback)

    return undo


def _worth_a_traceback(record: logging.LogRecord) -> bool:
    # Bluesky 1.15 warns of this after every abort; it is about its own traces.
    if str(record.msg).startswith("No open traces left"):
        return False
    error = record.exc_info[1] if record.exc_info else None
    # An error of this package itself is shown by IPython.
    return not isinstance(error, (*_BY_HAND, XrfSrError))


def ipython_shell() -> Any | None:
    """Return the IPython of this process, or None where there is none, as in a queue server."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell if hasattr(shell, "set_custom_exc") else None


def show_interruptions(shell: Any, say: Callable[[], str]) -> None:
    """Show a pause as one line at an IPython prompt.

    Parameters
    ----------
    shell
        The IPython.
    say
        Returns the line.
    """

    def show(
        _shell: Any, _kind: type, _error: BaseException, _traceback: Any, tb_offset: Any = None
    ) -> None:
        sys.stdout.write(f"{say()}\n")

    shell.set_custom_exc((RunEngineInterrupted,), show)


def put_into(shell: Any, names: Mapping[str, Any]) -> list[str]:
    """Put names into the namespace of an IPython; return those that are somebody else's already."""
    taken = [
        name
        for name, value in names.items()
        if name in shell.user_ns and not _is_ours(shell.user_ns[name], value)
    ]
    shell.push({name: value for name, value in names.items() if name not in taken})
    return taken


def _is_ours(there: Any, new: Any) -> bool:
    """Return whether a name may be replaced: it holds what this package put or imported there."""
    module = getattr(there, "__module__", None) or type(there).__module__
    return there is new or str(module).startswith("xrf_sr_plans")
