"""Work of a device that waits for hardware, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import ophyd
from ophyd.status import Status, StatusBase

from xrf_sr_plans.errors import FlightError, in_words

logger = logging.getLogger(__name__)

_CONNECTION_POLL_S = 0.1
"""How often a wait for a status looks whether the connection is still there."""


class JobStopped(Exception):
    """Ends a job that somebody has stopped, from within its steps."""


class Job:
    """Steps that wait for hardware, so that the RunEngine doesn't have to.

    The statuses of a job finish when its last step is done or when it is stopped. They fail with
    `FlightError` when a step fails.

    Parameters
    ----------
    name
        Name of the job, with which every message begins.
    steps
        The function that does the work. It waits with `wait` and `wait_until` alone, so that it
        can be stopped.
    statuses
        Statuses that finish with the job; a step may `finish` some of them earlier.
    connected
        Tells whether the hardware can be reached; where it can't, every wait ends at once.
    clean_up
        Called where a step has failed, before the statuses do.
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
        self._done = False
        self._lock = threading.Lock()

    @property
    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self._done

    def start(self, after: Job | None, timeout_s: float) -> None:
        """Begin to work, in a thread.

        Parameters
        ----------
        after
            A job to wait for, which should be about to end; None: begin at once.
        timeout_s
            How long to wait for it before this job fails.
        """
        # Channel Access has a context per thread; threads of this class share the first one's.
        thread = ophyd.get_cl().thread_class(
            target=self._run, args=(after, timeout_s), name=self.name, daemon=True
        )
        thread.start()

    def stop(self) -> None:
        """Make the job end at its next wait, and finish its statuses now."""
        self._stopped = True
        self._wake.set()
        self.finish(*self._statuses)

    def finish(self, *statuses: Status, error: Exception | None = None) -> None:
        """Finish those of the statuses that are still open, or fail them with an error."""
        with self._lock:
            for status in statuses:
                # A status can't be asked instead: its `done` turns true a moment too late.
                if status not in self._open:
                    continue
                self._open.remove(status)
                if error is None:
                    status.set_finished()
                else:
                    status.set_exception(error)

    def wait(self, status: StatusBase, timeout_s: float, what: str) -> None:
        """Wait for a status; `what` names it in messages.

        Raises
        ------
        FlightError
            The status failed or took too long, or the connection was lost.
        JobStopped
            Somebody has stopped the job.
        """
        status.add_callback(lambda *_: self._wake.set())
        self.wait_until(lambda: status.done, timeout_s, what, poll_s=_CONNECTION_POLL_S)
        if not status.success:
            raise FlightError(f"{self.name}: {what}: {in_words(status.exception(timeout_s))}")

    def wait_until(
        self, condition: Callable[[], bool], timeout_s: float, what: str, poll_s: float = 0.01
    ) -> None:
        """Wait until a condition is true, looking every `poll_s` seconds; `what` names it.

        Raises
        ------
        FlightError
            It took too long, or the connection was lost.
        JobStopped
            Somebody has stopped the job.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._wake.clear()
            if self._stopped:
                raise JobStopped
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
                self.wait_until(lambda: after.done, timeout_s, "the end of what was stopped")
            self._steps(self)
        except JobStopped:
            logger.debug("%s: stopped", self.name)
        except Exception as raised:  # noqa: BLE001 - whatever it is must reach the statuses
            # The job's own FlightErrors begin with its name already.
            is_named = isinstance(raised, FlightError)
            error = raised if is_named else FlightError(f"{self.name}: {in_words(raised)}")
            self._clean_up()
        self._done = True
        self.finish(*self._statuses, error=error)
