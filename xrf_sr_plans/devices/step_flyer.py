"""Rows without fly-scan hardware, measured in steps, in the same documents as flown rows."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.protocols import (
    Hints,
    Locatable,
    Movable,
    NamedMovable,
    Readable,
    Reading,
    Stageable,
    Stoppable,
    Triggerable,
)
from bluesky.protocols import Status as AnyStatus
from bluesky.utils import Msg, MsgGenerator, short_uid
from event_model import DataKey, PartialEvent
from ophyd.status import Status, StatusBase

from xrf_sr_plans.devices.axes import axis_scale
from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.rows import (
    AttemptCounter,
    RowFrames,
    describe_elements,
    describe_row,
    read_elements,
    row_event,
)
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.units import unit_name
from xrf_sr_plans.ranges import ABOVE_ZERO, check

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_Readings = Mapping[str, Reading[Any]]


class StepFlyer:
    """A `RowFlyer` made of any bluesky detectors and two positioners.

    A row is measured by `row_plan`, which consists of ordinary plan messages, so that no thread
    is needed and nothing blocks. After a pause the RunEngine repeats the messages of the row
    from its checkpoint. The readings that it then takes replace those from before, so that a row
    never mixes two attempts.

    Parameters
    ----------
    name
        Prefix of the event keys.
    detectors
        Detectors that are read at every pixel, after those that can be triggered are triggered.
    fast
        The positioner that moves along a row. Its unit of length is looked up (``egu``).
    slow
        The positioner that moves from row to row, of the same kind.
    counts
        Key of the photons in the detectors' readings, by element name. An array, such as one
        value per detector element or per channel, is summed.
    i0_key
        Key of the beam monitor, in counts/s; None: I0 is NaN.
    exposure
        Movables that take the dwell in seconds, such as the detectors' exposure times.
    live_time_key
        Key of the live time, in seconds; None: all of the dwell counts as live time.
    timeout_s
        Longest wait for a move, and for a trigger beyond the dwell, in seconds.

    Raises
    ------
    ConfigError
        There is no detector or no element, or `timeout_s` is not a finite number above 0.
    """

    parent = None

    def __init__(
        self,
        name: str,
        detectors: Sequence[Readable[Any]],
        fast: NamedMovable[float],
        slow: NamedMovable[float],
        *,
        counts: Mapping[str, str],
        i0_key: str | None = None,
        exposure: Sequence[Movable[float]] = (),
        live_time_key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        if not detectors or not counts:
            raise ConfigError(f"step flyer {name!r}: at least one detector and one element needed")
        check(f"step flyer {name!r}", ABOVE_ZERO.flaw("timeout_s", timeout_s))
        self.name = name
        self.elements = list(counts)
        self.hints: Hints = {"fields": []}
        self._detectors = tuple(detectors)
        self._axes = {"fast": fast, "slow": slow}
        self._counts = dict(counts)
        self._i0_key = i0_key
        self._exposure = tuple(exposure)
        self._live_time_key = live_time_key
        self._timeout_s = timeout_s
        self._attempts = AttemptCounter()
        self._request: RowRequest | None = None
        self._attempt = 0
        # The values read at each pixel of the row, by index of the pixel and then by key.
        self._readings: dict[int, dict[str, Any]] = {}
        # Micrometers per unit of each axis; a row looks them up before it moves.
        self._scale = {"fast": 1.0, "slow": 1.0}
        self._keys_checked = False

    def stage(self) -> StatusBase:
        """Forget all attempts, and stage the detectors."""
        self._attempts.reset()
        self._request = None
        self._readings = {}
        self._keys_checked = False
        stageable = [d for d in self._detectors if isinstance(d, Stageable)]
        return _combined_status(self, [detector.stage() for detector in stageable])

    def unstage(self) -> StatusBase:
        """Unstage the detectors."""
        stageable = [d for d in reversed(self._detectors) if isinstance(d, Stageable)]
        return _combined_status(self, [detector.unstage() for detector in stageable])

    async def stop(self, success: bool = True) -> None:
        """Stop both axes."""
        for axis in self._axes.values():
            if isinstance(axis, Stoppable):
                await _awaited(axis.stop(success=success))

    def prepare(self, value: RowRequest) -> Status:
        """Begin one more attempt at a row; nothing moves yet."""
        self._request = value
        self._attempt = self._attempts.begin(value)
        self._readings = {}
        return self._finished()

    def row_plan(self, request: RowRequest) -> MsgGenerator[None]:
        """Step through the row, and read the detectors at each pixel.

        Raises
        ------
        ConfigError
            The detectors' readings lack a key that was asked for, or the unit of an axis is no
            length. Both are found out from descriptions, before anything moves.
        """
        yield from self.check_plan()
        for role, axis in self._axes.items():
            unit = getattr(axis, "egu", None)
            if not unit_name(unit):
                unit = yield from _described_unit(axis)
            self._scale[role] = axis_scale(unit, axis.name)
        for movable in self._exposure:
            yield from self._move(movable, request["dwell_ms"] * 1e-3)
        yield from self._move(self._axes["slow"], request["slow_um"] / self._scale["slow"])
        step = request["direction"] * request["step_um"]
        for frame in range(request["num"]):
            target_um = request["first_um"] + frame * step
            yield from self._move(self._axes["fast"], target_um / self._scale["fast"])
            yield from self._measure(frame, request["dwell_ms"] * 1e-3)

    def check_plan(self) -> MsgGenerator[None]:
        """Refuse keys that no detector describes; this is checked once while staged.

        Raises
        ------
        ConfigError
            The detectors' readings lack a key that was asked for.
        """
        if self._keys_checked:
            return
        described = yield from _described(self._detectors)
        self._keys_checked = True
        if not all(described):
            # A detector that doesn't say what it reads may read any key: `_value` finds out.
            return
        known = {key: None for keys in described for key in keys}
        for key in (*self._counts.values(), self._i0_key, self._live_time_key):
            if key is not None:
                self._value(known, key)

    def _move(self, movable: Movable[float], value: float) -> MsgGenerator[None]:
        group = short_uid("step")
        yield Msg("set", movable, value, group=group)
        yield from bps.wait(group, timeout=self._timeout_s)

    def _measure(self, frame: int, dwell_s: float) -> MsgGenerator[None]:
        """Trigger and read the detectors and the axes at one pixel."""
        group = short_uid("trigger")
        triggerable = [d for d in self._detectors if isinstance(d, Triggerable)]
        for detector in triggerable:
            yield from bps.trigger(detector, group=group)
        if triggerable:
            yield from bps.wait(group, timeout=self._timeout_s + dwell_s)
        for detector in self._detectors:
            yield Msg("read", _ReadingRecorder(detector, self, frame))
        for role, axis in self._axes.items():
            yield Msg("read", _PositionRecorder(axis, self, frame, role))

    def record(self, frame: int, reading: _Readings) -> None:
        """Take in what one device has read at a pixel, in place of what it read there before."""
        values = {key: entry["value"] for key, entry in reading.items()}
        self._readings.setdefault(frame, {}).update(values)

    def kickoff(self) -> Status:
        """Do nothing, because `row_plan` measures the row."""
        return self._finished()

    def complete(self) -> Status:
        """Do nothing, because there is nothing to wait for after `row_plan`."""
        return self._finished()

    def collect(self) -> Iterator[PartialEvent]:
        """Yield the row as one event, once. Yield nothing where a pixel is missing."""
        request, readings = self._request, self._readings
        # The slow position is the last thing read at a pixel.
        done = [frame for frame, values in readings.items() if _position_key("slow") in values]
        if request is None or len(done) != request["num"]:
            return
        self._readings = {}
        frames = [readings[frame] for frame in range(request["num"])]
        yield row_event(self.name, self._frames(frames, request), request, self._attempt)

    def describe_collect(self) -> dict[str, dict[str, DataKey]]:
        """Return the data keys of the row event, by stream."""
        num = None if self._request is None else self._request["num"]
        return describe_row(self.name, len(self.elements), num)

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return the data key of the element names."""
        return describe_elements(self.name, self.elements)

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return the element names."""
        return read_elements(self.name, self.elements)

    def _frames(self, frames: list[dict[str, Any]], request: RowRequest) -> RowFrames:
        """Return the frames of a row from the values read at each of its pixels."""
        dwell_s = request["dwell_ms"] * 1e-3

        # Each column has the shape (frame,), in order of acquisition.
        def column(key: str | None, default: float = np.nan) -> np.ndarray:
            if key is None:
                return np.full(len(frames), default)
            return np.array([float(np.sum(self._value(frame, key))) for frame in frames])

        return RowFrames(
            np.stack([column(key) for key in self._counts.values()]),
            column(self._i0_key),
            column(self._live_time_key, dwell_s),
            column(_position_key("fast")) * self._scale["fast"],
            column(_position_key("slow")) * self._scale["slow"],
        )

    def _value(self, frame: Mapping[str, Any], key: str) -> Any:
        if key not in frame:
            known = ", ".join(sorted(k for k in frame if not k.startswith("//")))
            raise ConfigError(f"step flyer {self.name!r}: nothing reads {key!r}; there is {known}")
        return frame[key]

    def _finished(self) -> Status:
        status = Status(self)
        status.set_finished()
        return status


class _ReadingRecorder:
    """A device that reads another one and hands the reading to the flyer.

    A plan can't hand it over itself, because after a pause the RunEngine repeats the plan's
    messages but not the code between them.
    """

    parent = None

    def __init__(self, device: Any, flyer: StepFlyer, frame: int) -> None:
        self.name = device.name
        self._device = device
        self._flyer = flyer
        self._frame = frame

    async def read(self) -> _Readings:
        reading = await _awaited(self._device.read())
        self._flyer.record(self._frame, reading)
        return reading

    def describe(self) -> Any:
        return self._device.describe()


class _PositionRecorder(_ReadingRecorder):
    """A device that hands the position of an axis to the flyer, under a key of its own."""

    def __init__(self, device: Any, flyer: StepFlyer, frame: int, role: str) -> None:
        super().__init__(device, flyer, frame)
        self._role = role

    async def read(self) -> _Readings:
        if isinstance(self._device, Locatable):
            position = (await _awaited(self._device.locate()))["readback"]
        else:
            position = self._device.position
        # The timestamp goes nowhere: the flyer keeps the value alone.
        reading: _Readings = {
            _position_key(self._role): {"value": float(position), "timestamp": 0.0}
        }
        self._flyer.record(self._frame, reading)
        return reading


def _position_key(role: str) -> str:
    # No device has a slash in a key, so that this can't hide a detector's reading.
    return f"//{role}"


def _combined_status(device: StepFlyer, results: Sequence[Any]) -> StatusBase:
    """Return a status that finishes with the last of the statuses, or fails with the first.

    `results` is what `stage` or `unstage` of several devices returned. Results that are no
    statuses are those of ophyd devices, which are staged already.
    """
    combined = Status(device)
    statuses = [result for result in results if isinstance(result, AnyStatus)]
    lock = threading.Lock()
    unfinished = set(map(id, statuses))

    def on_end(status: AnyStatus) -> None:
        with lock:
            if id(status) not in unfinished:
                return
            unfinished.discard(id(status))
            if not status.success:
                # Later ends change nothing any more: a status can fail only once.
                unfinished.clear()
                combined.set_exception(status.exception(0) or RuntimeError("staging failed"))
            elif not unfinished:
                combined.set_finished()

    if not statuses:
        combined.set_finished()
    for status in statuses:
        status.add_callback(on_end)
    return combined


async def _awaited(value: Any) -> Any:
    """Return a value that may be an awaitable, as methods of ophyd-async return."""
    return await value if inspect.isawaitable(value) else value


def _described_unit(axis: Any) -> MsgGenerator[str | None]:
    """Return the unit in which an axis without ``egu`` describes its position."""
    (data_keys,) = yield from _described([axis])
    return next((key["units"] for key in data_keys.values() if key.get("units")), None)


def _described(devices: Sequence[Any]) -> MsgGenerator[list[dict[str, Any]]]:
    """Return the data keys that each device describes; {} for a device that can't yet."""
    described: list[dict[str, Any]] = [{} for _ in devices]

    async def ask() -> None:
        for device, keys in zip(devices, described, strict=True):
            try:
                keys.update(await _awaited(device.describe()))
            except Exception as error:  # noqa: BLE001 - whatever it is, reading it will show it
                logger.warning("%s doesn't describe itself: %r", device.name, error)

    yield from bps.wait_for([ask], timeout=_TIMEOUT_S)
    return described
