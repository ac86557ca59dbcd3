"""Leave the beamline safe: by plans while plans are run, and by unstaging after a halt."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from bluesky import plan_stubs as bps
from bluesky.protocols import Pausable
from bluesky.utils import MsgGenerator, RequestAbort, RequestStop, RunEngineControlException
from ophyd.status import Status

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import in_words

logger = logging.getLogger(__name__)

_TRIES = 3


class Safeguard:
    """A device of the plan's own that is staged around a map and leaves the beamline safe.

    After a halt no plan is run any more, but the RunEngine still unstages devices: this one then
    stops the flyer, closes the shutter and restores the fast axis's velocity. When the plan is
    paused it closes the shutter, so that the sample gets no dose meanwhile. The shutter is opened
    through this device too, because that message is repeated when the plan is resumed.

    Attributes
    ----------
    velocity
        Velocity of the fast axis before the map, in its own units. None where it is not known.
    interruptions
        How often the map was paused so far.
    """

    parent = None

    def __init__(self, beamline: Beamline) -> None:
        self.name = f"{beamline.name}_safeguard"
        self._beamline = beamline
        self._armed = False
        self._open = False
        self.velocity: float | None = None
        self.interruptions = 0

    def stage(self) -> list[object]:
        """Make sure that `unstage` leaves everything safe."""
        self._armed = True
        return [self]

    def unstage(self) -> list[object]:
        """Leave everything safe, unless a plan has already done so (`stand_down`)."""
        if self._armed:
            self._try_now("stop the flyer", lambda: _stopped(self._beamline.flyer))
            self._try_now("close the shutter", self._close_now)
            self._try_now("restore the velocity", self._restore_velocity_now)
        self._armed = False
        return [self]

    def stand_down(self) -> None:
        """Note that everything is safe, so that `unstage` has nothing to do."""
        self._armed = False

    def set(self, value: str) -> Any:
        """Open or close the shutter ("open", "close"); one that is open already is left alone."""
        shutter = self._beamline.shutter
        wanted = value == "open"
        if shutter is None or (wanted and self._open):
            return _done()
        status = shutter.set(value)
        self._open = wanted
        status.add_callback(self._closed_if_failed)
        return status

    def _closed_if_failed(self, status: Any) -> None:
        if not status.success:
            self._open = False

    def pause(self) -> None:
        """Stop what the RunEngine doesn't stop by itself, and close the shutter."""
        self.interruptions += 1
        if not isinstance(self._beamline.flyer, Pausable):
            self._try_now("stop the flyer", lambda: _stopped(self._beamline.flyer))
        if self._open:
            self._try_now("close the shutter", self._close_now)

    def resume(self) -> None:
        """Do nothing: the replayed row opens the shutter again."""

    def _close_now(self) -> None:
        if self._beamline.shutter is not None:
            self._open = False
            status = self._beamline.shutter.set("close")
            status.add_callback(lambda done: self._tell("the shutter may be open", done))

    def _restore_velocity_now(self) -> None:
        signal = velocity_signal(self._beamline.fast)
        if signal is not None and self.velocity is not None:
            status = signal.set(self.velocity)
            name = self._beamline.fast.name
            text = f"{name} may not have its velocity of {self.velocity:g} back"
            status.add_callback(lambda done: self._tell(text, done))

    def _tell(self, what: str, status: Any) -> None:
        if not status.success:
            logger.critical("%s: %s: %r", self.name, what, status)

    def _try_now(self, what: str, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception:
            logger.critical("%s: failed to %s", self.name, what, exc_info=True)


def velocity_signal(axis: Any) -> Any | None:
    """Return the signal that holds the velocity of an axis, or None where it can't be set."""
    signal = getattr(axis, "velocity", None)
    return signal if hasattr(signal, "set") and hasattr(signal, "read") else None


def all_in_turn(*steps: Callable[[], MsgGenerator[Any]]) -> MsgGenerator[list[Exception | None]]:
    """Run each step, whatever happens to the others; what goes wrong is logged.

    The RunEngine throws the error of a status that fails late into whatever message comes next,
    so each step is tried up to three times.

    Returns
    -------
    list of Exception or None
        For each step the error of its last attempt, or None where it was done in the end.
    """
    errors: list[Exception | None] = []
    for step in steps:
        last_error: Exception | None = None
        for attempt in range(_TRIES):
            try:
                yield from step()
            except RunEngineControlException:
                raise
            except Exception as error:  # noqa: BLE001 - the next step must have its turn
                logger.warning("clean-up, attempt %d: %r", attempt + 1, error)
                last_error = error
            else:
                last_error = None
                break
        errors.append(last_error)
    return errors


def what_ended(error: BaseException) -> str:
    """Return in words what ended a plan early."""
    by_hand = {RequestStop: "RE.stop", RequestAbort: "RE.abort"}
    return by_hand.get(type(error)) or in_words(error)


def stop_all(*devices: Any) -> MsgGenerator[None]:
    """Stop each device that can be stopped."""
    stops = [
        lambda device=device: bps.stop(device) for device in devices if hasattr(device, "stop")
    ]
    yield from all_in_turn(*stops)


def _stopped(device: Any) -> None:
    if not hasattr(device, "stop"):
        return
    result = device.stop(success=False)
    if inspect.iscoroutine(result):
        asyncio.ensure_future(result)  # noqa: RUF006 - the RunEngine's loop outlives the halt


def _done() -> Status:
    status = Status()
    status.set_finished()
    return status
