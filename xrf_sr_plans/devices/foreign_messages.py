"""`watched`: the messages of somebody else's plan, inside a map of ours."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bluesky.utils import Msg, MsgGenerator

from xrf_sr_plans.errors import ConfigError

_DROPPED = frozenset({"checkpoint", "clear_checkpoint", "rewindable"})
"""Where a pause may resume is for our plan to say: it repeats the map as a whole."""

_DOCUMENTS = frozenset({"open_run", "close_run", "create", "declare_stream", "monitor", "collect"})
"""Messages that emit documents, into a run of their own or into ours."""

_WAITS = frozenset({"wait", "wait_for"})


def watched(
    plan: MsgGenerator[Any],
    owner: str,
    *,
    timeout_s: float,
    flaw: Callable[[], Exception | None],
) -> MsgGenerator[None]:
    """Pass a plan's messages on, and end the plan where it does what it can't do here.

    The plan gets every reason to end as an exception, so that it can clean up. It can't go on
    after that as if nothing had happened. Waits without a timeout get what is left of
    `timeout_s`, so that a scan which hangs doesn't hang the map.

    Parameters
    ----------
    plan
        Somebody else's plan.
    owner
        What to call it in messages.
    timeout_s
        How long it may take, in s.
    flaw
        Asked before each message. Returns an exception where the plan has to end, else None.

    Raises
    ------
    ConfigError
        The plan opens a run or emits documents. Runs don't nest.
    TimeoutError
        It took too long.
    """
    deadline = time.monotonic() + timeout_s
    answer: Any = None
    error: Exception | None = None
    reason: Exception | None = None
    while True:
        try:
            msg = plan.throw(error) if error is not None else plan.send(answer)
        except StopIteration:
            break
        answer = error = None
        ends = _document_flaw(msg, owner)
        if ends is None and reason is None:
            ends = flaw() or _late(deadline, owner, timeout_s)
        if ends is not None:
            # Told once: what comes after that is the plan's own cleaning up.
            reason = reason or ends
            error = ends
            continue
        if msg.command in _DROPPED:
            continue
        try:
            answer = yield _with_timeout(msg, deadline)
        except GeneratorExit:
            plan.close()
            raise
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is the plan's to handle
            error = raised
    if reason is not None:
        raise reason


def _document_flaw(msg: Msg, owner: str) -> ConfigError | None:
    if msg.command not in _DOCUMENTS:
        return None
    what = "opens a run of its own" if msg.command == "open_run" else f"sends {msg.command!r}"
    return ConfigError(
        f"{owner} {what}: it is run inside the run of the map, which takes its rows from the"
        " scan's file, and runs don't nest; give the plan without its run"
    )


def _late(deadline: float, owner: str, timeout_s: float) -> TimeoutError | None:
    if time.monotonic() <= deadline:
        return None
    return TimeoutError(f"{owner} is not done in {timeout_s:.4g} s")


def _with_timeout(msg: Msg, deadline: float) -> Msg:
    """Return a wait that ends at the deadline, where it has no timeout of its own."""
    if msg.command not in _WAITS or msg.kwargs.get("timeout") is not None:
        return msg
    left_s = max(deadline - time.monotonic(), 0.1)
    return msg._replace(kwargs={**msg.kwargs, "timeout": left_s})
