"""A run that is closed however it ends, and never open around another one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, MsgGenerator, RunEngineControlException

logger = logging.getLogger(__name__)

Ending = tuple[str, str]
"""Exit status and reason of a stop document."""


def single_run(
    md: Mapping[str, Any],
    events: MsgGenerator[None],
    *,
    opened: Callable[[str], None] | None = None,
    ending: Callable[[Exception], Ending] | None = None,
) -> MsgGenerator[str]:
    """Open a run, emit its events and close it.

    Other people's callbacks and preprocessors assume that runs don't nest, so `events` must not
    open another one. Unlike bluesky's own wrapper this one also closes the run when the plan is
    interrupted just before it would have been closed.

    Parameters
    ----------
    md
        The start document.
    events
        A plan that emits the events.
    opened
        Called with the run's uid as soon as it is known.
    ending
        Says with which exit status and reason the run is closed after an error. By default that
        is what the RunEngine's own request says, and else "fail" with the error's text.

    Returns
    -------
    str
        The run's uid.
    """
    uid = ""

    def whole_run() -> MsgGenerator[None]:
        nonlocal uid
        uid = str((yield from bps.open_run(dict(md))))
        if opened is not None:
            opened(uid)
        yield from events
        yield from bps.close_run()

    def close_early(error: Exception) -> MsgGenerator[None]:
        status, reason = (ending or ended_by)(error)
        try:
            yield from bps.close_run(status, reason)
        except IllegalMessageSequence:
            logger.debug("the run was closed already, or not yet open, when %r came", error)

    yield from bpp.contingency_wrapper(whole_run(), except_plan=close_early)
    return uid


def ended_by(error: Exception) -> Ending:
    """Return the exit status and the reason of a run that an error ends."""
    if isinstance(error, RunEngineControlException):
        return str(getattr(error, "exit_status", "abort")), ""
    return "fail", str(error)
