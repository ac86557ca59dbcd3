"""A small process around a worker on another host: it ends the worker when the link is gone.

A worker ends when its input ends, but one that is stopped, or stuck in C, doesn't read. On the
host of the session its parent is the session, with which the kernel ends it. Over ssh its parent
is ssh's server or a shell, which may stay. So a process that does nothing else stands between.
It also ends a worker whose successor has taken over, as where the network was silent for so long
that only one side knows, and deletes the scratch folder once the session has closed.
"""

from __future__ import annotations

import ctypes
import logging
import os
import select
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often it is looked whether a successor has taken over."""
OWNER = "owner"
"""File in a scratch folder with the token of the worker that uses it."""
Tell = Callable[[str, str], None]
"""Tells the guard ``("scratch", folder)``, ``("owner", token)`` or ``("closing", "")``."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, even while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def guarded(work: Callable[[Tell], None]) -> NoReturn:
    """Do the work in a child process, and end with it, or end it when the other side is gone.

    Parameters
    ----------
    work
        Called in the child with what tells the guard.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = os.pipe()
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent()
        os.close(reading)
        if os.getppid() != guard:  # it is gone already
            os._exit(1)
        work(lambda what, value: _tell(writing, what, value))
        os._exit(0)
    os.close(writing)
    os._exit(_Guard(child, reading).watch())


def _tell(writing: int, what: str, value: str) -> None:
    try:
        os.write(writing, f"{what} {value}\n".encode())
    except OSError:
        logger.warning("the guard is gone")


class _Guard:
    """Watch a child until it ends, and clean up after it."""

    def __init__(self, child: int, reading: int) -> None:
        self._child = child
        self._reading = reading
        self._heard = b""

    def watch(self) -> int:
        """Return the exit code of the child."""
        poll = select.poll()
        # Nothing is read of the worker's input: it is asked only whether somebody is there.
        for pipe in (0, 1):
            poll.register(pipe, 0)
        poll.register(self._reading, select.POLLIN)
        while (code := self._ended(os.WNOHANG)) is None:
            found = dict(poll.poll(1e3 * LOOK_S))
            if self._reading in found:
                more = os.read(self._reading, 2**16)
                self._heard += more
                if not more:  # it is about to end
                    poll.unregister(self._reading)
                    code = self._ended(0)
                    break
            if found.keys() & {0, 1} or self._is_replaced():
                os.kill(self._child, signal.SIGKILL)  # it is not waited for yet, so it is ours
                code = self._ended(0)
                break
        told = self._told
        if "closing" in told and told.get("scratch"):
            shutil.rmtree(told["scratch"], ignore_errors=True)
        return code or 0

    @property
    def _told(self) -> dict[str, str]:
        told: dict[str, str] = {}
        for line in self._heard.decode(errors="replace").splitlines():
            what, _, value = line.partition(" ")
            told[what] = value
        return told

    def _is_replaced(self) -> bool:
        """Return whether another worker has put its token into the scratch folder."""
        told = self._told
        if not told.get("scratch") or not told.get("owner"):
            return False
        try:
            return Path(told["scratch"], OWNER).read_text() != told["owner"]
        except (OSError, ValueError):
            return False

    def _ended(self, how: int) -> int | None:
        """Return the exit code of the child, or None while it runs."""
        pid, status = os.waitpid(self._child, how)
        return None if pid == 0 else os.waitstatus_to_exitcode(status) & 0xFF
