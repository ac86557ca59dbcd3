"""One interruptible piece of work of a simulated device, and the status that tells its end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ophyd.status import StatusBase

from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.stage import MotorHangs

logger = logging.getLogger(__name__)

_JOIN_TIMEOUT_S = 1.0


class Motion:
    """Work that takes simulated time: in a thread, or at once where the clock is instant.

    `status` finishes when the work ends or is stopped; it fails when the work raises. Work that
    raises `MotorHangs` leaves it open until `stop`.
    """

    def __init__(self, status: StatusBase) -> None:
        self.status = status
        self.interrupt = threading.Event()
        self._lock = threading.Lock()
        self._finished = False
        self._thread: threading.Thread | None = None

    def run(self, clock: Clock, work: Callable[[Motion], object]) -> None:
        """Do the work."""
        if clock.instant:
            self._work(work)
            return
        self._thread = threading.Thread(
            target=self._work, args=(work,), name=f"sim-{self.status}", daemon=True
        )
        self._thread.start()

    @property
    def over(self) -> bool:
        """The work ended or was stopped."""
        return self._finished

    def stop(self, error: Exception | None = None) -> None:
        """Interrupt the work, wait until all is still, finish the status (or fail it)."""
        self.interrupt.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_TIMEOUT_S)
        self._finish(error)

    def _work(self, work: Callable[[Motion], object]) -> None:
        try:
            work(self)
        except MotorHangs:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is belongs into the status
            logger.debug("simulated motion failed: %s", error)
            self._finish(error)
            return
        # Whoever interrupted it says how it ended.
        if not self.interrupt.is_set():
            self._finish(None)

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if self._finished:
                return
            self._finished = True
        if error is None:
            self.status.set_finished()
        else:
            self.status.set_exception(error)
