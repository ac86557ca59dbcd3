"""What is started as the analysis process: the pipes are set up before any library is loaded.

``python -m xrf_sr_plans.callbacks.service`` beside the session, and ``xrf-sr-worker`` on another
host, are `main` and `main_elsewhere`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from xrf_sr_plans.callbacks.service.greeting import (
    LOG_VARIABLES,
    Greeting,
    read_session_line,
    take_over,
)
from xrf_sr_plans.callbacks.service.guard import Tell, die_with_parent, guarded
from xrf_sr_plans.errors import WorkerError


class _Tolerant:
    """A text stream that loses what can't be written, as where the disk is full."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        """Do nothing: `write` has flushed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def main(tell_guard: Tell | None = None) -> None:
    """Keep the pipes for messages, keep signals away, and work until the other side is gone.

    Parameters
    ----------
    tell_guard
        Tells the guard of this process what it must know; None: there is none.
    """
    receive = os.fdopen(os.dup(0), "rb", buffering=0)
    send = os.fdopen(os.dup(1), "wb", buffering=0)
    # A stray print, even from C, goes to the log and not between two frames.
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _Tolerant(sys.stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A process that is stopped or stuck in C can't notice by reading that its parent died.
    die_with_parent()
    try:
        send.write(Greeting.of_this_process().line())
        variables = read_session_line(receive)  # type: ignore[arg-type]
    except OSError:
        os._exit(0)
    except WorkerError as error:
        sys.stderr.write(f"{error}\n")
        os._exit(2)
    take_over(variables, os.environ)
    _log()
    # Imported here, because it loads numpy, which reads the environment.
    from xrf_sr_plans.callbacks.service.worker import Worker

    Worker(receive, send, tell_guard).work()  # type: ignore[arg-type]
    os._exit(0)


def main_elsewhere() -> None:
    """Work for a session on another host, guarded; the program ``xrf-sr-worker``."""
    if len(sys.argv) > 1:
        sys.stderr.write(
            "xrf-sr-worker takes no arguments: a session starts it, as the setting "
            "analysis.worker_command says, and talks to it\n"
        )
        raise SystemExit(2)
    guarded(main)


def _log() -> None:
    import logging

    from xrf_sr_plans.config.logs import formatter

    level, kind = (os.environ.get(name) for name in LOG_VARIABLES)
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(formatter(kind or "text"))
    logging.basicConfig(level=level or "INFO", handlers=[log])
