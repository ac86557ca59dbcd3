"""One piece of work of a simulated device, which can be interrupted and has a status."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ophyd.status import StatusBase

from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.stage import MotorHangs

logger = logging.getLogger(__name__)

_JOIN_TIMEOUT_S = 1.0
"""How long `stop` waits for the work to notice that it is interrupted."""


class Motion:
    """Work that takes simulated time, in a thread unless the clock is instant.

    Parameters
    ----------
    status
        Finishes when the work ends or is stopped, and fails when the work raises. Work that
        raises `MotorHangs` leaves it open until `stop`.
    """

    def __init__(self, status: StatusBase) -> None:
        self.status = status
        self.interrupt = threading.Event()
        self._lock = threading.Lock()
        self._done = False
        self._thread: threading.Thread | None = None

    def run(self, clock: Clock, work: Callable[[Motion], object]) -> None:
        """Begin to work; `work` gets this motion, and ends early once `interrupt` is set."""
        if clock.instant:
            self._work(work)
            return
        self._thread = threading.Thread(
            target=self._work, args=(work,), name=f"sim-{self.status}", daemon=True
        )
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether the work has ended or was stopped."""
        return self._done

    def stop(self, error: Exception | None = None) -> None:
        """Interrupt the work, wait until it has ended, and finish the status.

        Where an error is given, the status fails with it.
        """
        self.interrupt.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT_S)
        self._finish(error)

    def _work(self, work: Callable[[Motion], object]) -> None:
        try:
            work(self)
        except MotorHangs:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is must reach the status
            logger.debug("simulated motion failed: %s", error)
            self._finish(error)
            return
        # Work that was interrupted is finished by `stop`, which knows whether it failed.
        if not self.interrupt.is_set():
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if self._done:
                return
            self._done = True
        if error is None:
            self.status.set_finished()
        else:
            self.status.set_exception(error)
