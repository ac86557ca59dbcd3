"""Steps of a device, one after another in a thread of their own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import ophyd
from ophyd.status import Status

from xrf_sr_plans.errors import FlightError, in_words

logger = logging.getLogger(__name__)

_CONNECTION_POLL_S = 0.1


class Stopped(Exception):
    """Ends a job that somebody stopped."""


class Job:
    """Steps that wait for hardware, so that the RunEngine doesn't have to.

    Its statuses finish when the last step is done or the job is stopped; they fail with
    `FlightError` when a step does.

    Parameters
    ----------
    name
        Begins every message.
    steps
        What is done; it waits by `wait` and `until`, so that it can be stopped.
    statuses
        What finishes with the job; a step may `finish` some of them earlier.
    connected
        Whether there is a point in waiting.
    clean_up
        Done where a step has failed, before the statuses do.
    """

    def __init__(
        self,
        name: str,
        steps: Callable[[Job], None],
        statuses: tuple[Status, ...],
        *,
        connected: Callable[[], bool],
        clean_up: Callable[[], None],
    ) -> None:
        self.name = name
        self._steps = steps
        self._statuses = statuses
        self._open = list(statuses)
        self._connected = connected
        self._clean_up = clean_up
        self._wake = threading.Event()
        self._stopped = False
        self._over = False
        self._lock = threading.Lock()
        self._thread: Any = None

    @property
    def over(self) -> bool:
        """Whether nothing more will be done."""
        return self._over

    def start(self, after: Job | None, timeout_s: float) -> None:
        """Begin as soon as another job, which should be about to end, is over."""
        # The control layer's own kind of thread: Channel Access has a context per thread.
        self._thread = ophyd.get_cl().thread_class(
            target=self._run, args=(after, timeout_s), name=self.name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Let it end at its next wait; the statuses finish now."""
        self._stopped = True
        self._wake.set()
        self.finish(*self._statuses)

    def finish(self, *statuses: Status, error: Exception | None = None) -> None:
        """Finish those statuses that are still open, or fail them."""
        with self._lock:
            for status in statuses:
                # `done` turns true a moment later than a status is finished.
                if status not in self._open:
                    continue
                self._open.remove(status)
                if error is None:
                    status.set_finished()
                else:
                    status.set_exception(error)

    def wait(self, status: Any, timeout_s: float, what: str) -> None:
        """Wait for a status.

        Raises
        ------
        FlightError
            It failed or took too long, or the connection was lost.
        Stopped
            Somebody stopped the job.
        """
        status.add_callback(lambda *_: self._wake.set())
        self.until(lambda: status.done, timeout_s, what, poll_s=_CONNECTION_POLL_S)
        if not status.success:
            raise FlightError(f"{self.name}: {what}: {in_words(status.exception(timeout_s))}")

    def until(
        self, condition: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.01
    ) -> None:
        """Wait until something is true; errors as in `wait`."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._wake.clear()
            if self._stopped:
                raise Stopped
            if not self._connected():
                raise FlightError(f"{self.name}: {what}: the connection is lost")
            if condition():
                return
            if time.monotonic() > deadline:
                raise FlightError(f"{self.name}: {what}: not done in {timeout_s:.3g} s")
            self._wake.wait(poll_s)

    def _run(self, after: Job | None, timeout_s: float) -> None:
        error: Exception | None = None
        try:
            if after is not None:
                self.until(lambda: after.over, timeout_s, "the end of what was stopped")
            self._steps(self)
        except Stopped:
            logger.debug("%s: stopped", self.name)
        except Exception as raised:  # noqa: BLE001 - whatever it is belongs into the statuses
            ours = isinstance(raised, FlightError)
            error = raised if ours else FlightError(f"{self.name}: {in_words(raised)}")
            self._clean_up()
        self._over = True
        self.finish(*self._statuses, error=error)
