"""Rows without fly-scan hardware: step, trigger, read; the documents are the same."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import numpy as np
from bluesky.protocols import Locatable, Stageable, Stoppable, Triggerable
from bluesky.protocols import Status as AnyStatus
from bluesky.utils import Msg, MsgGenerator, short_uid
from event_model import PartialEvent
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

logger = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_Reading = Mapping[str, Mapping[str, Any]]


class StepFlyer:
    """A `RowFlyer` made of any bluesky detectors and two positioners.

    A row is `row_plan`: ordinary messages, no thread, nothing that blocks. After a pause the
    RunEngine repeats the row's messages from its checkpoint, and the readings it then takes
    replace those from before: a row never mixes attempts.

    Parameters
    ----------
    name
        Prefix of the event keys.
    detectors
        Triggered (those that can be) and read at every pixel.
    fast, slow
        The positioners; their unit of length is looked up (``egu``).
    counts
        Element name -> key in the detectors' readings. An array (several detector elements,
        channels of a region of interest) is summed.
    i0_key
        Key of the incoming flux in the readings; without it I0 is NaN.
    exposure
        Movables that take the dwell in seconds, such as the detectors' exposure times.
    live_time_key
        Key of the live time, in seconds; without it the dwell counts as live.
    timeout_s
        Longest wait for a move, and for a trigger beyond the dwell.
    """

    parent = None

    def __init__(
        self,
        name: str,
        detectors: Sequence[Any],
        fast: Any,
        slow: Any,
        *,
        counts: Mapping[str, str],
        i0_key: str | None = None,
        exposure: Sequence[Any] = (),
        live_time_key: str | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        if not detectors or not counts:
            raise ConfigError(f"step flyer {name!r}: at least one detector and one element needed")
        self.name = name
        self.elements = list(counts)
        self.hints = {"fields": []}
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
        self._readings: dict[int, dict[str, Any]] = {}
        self._scale = {"fast": 1.0, "slow": 1.0}
        self._keys_checked = False

    def stage(self) -> StatusBase:
        """Forget all attempts; stage the detectors."""
        self._attempts.reset()
        self._request = None
        self._readings = {}
        self._keys_checked = False
        stageable = [d for d in self._detectors if isinstance(d, Stageable)]
        return _all_of(self, [detector.stage() for detector in stageable])

    def unstage(self) -> StatusBase:
        """Unstage the detectors."""
        stageable = [d for d in reversed(self._detectors) if isinstance(d, Stageable)]
        return _all_of(self, [detector.unstage() for detector in stageable])

    async def stop(self, success: bool = True) -> None:
        """Stop both axes."""
        for axis in self._axes.values():
            if isinstance(axis, Stoppable):
                await _maybe(axis.stop(success=success))

    def prepare(self, value: RowRequest) -> Status:
        """Begin one more attempt at a row; nothing moves yet."""
        self._request = value
        self._attempt = self._attempts.begin(value)
        self._readings = {}
        return self._finished()

    def row_plan(self, request: RowRequest) -> MsgGenerator[None]:
        """Step through the row.

        Raises
        ------
        ConfigError
            The detectors' readings lack a key that was asked for, or the unit of an axis is no
            length. Both are found out from descriptions, before anything moves.
        """
        yield from self._check_keys()
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

    def _check_keys(self) -> MsgGenerator[None]:
        """Refuse keys that no detector describes; once while staged."""
        if self._keys_checked:
            return
        described = yield from _described(self._detectors)
        self._keys_checked = True
        if not all(described):
            # One that doesn't say what it reads (yet): the readings will tell.
            return
        known = {key: None for keys in described for key in keys}
        for key in (*self._counts.values(), self._i0_key, self._live_time_key):
            if key is not None:
                self._value(known, key)

    def _move(self, movable: Any, value: float) -> MsgGenerator[None]:
        group = short_uid("step")
        yield Msg("set", movable, value, group=group)
        yield from bps.wait(group, timeout=self._timeout_s)

    def _measure(self, frame: int, dwell_s: float) -> MsgGenerator[None]:
        group = short_uid("trigger")
        triggerable = [d for d in self._detectors if isinstance(d, Triggerable)]
        for detector in triggerable:
            yield from bps.trigger(detector, group=group)
        if triggerable:
            yield from bps.wait(group, timeout=self._timeout_s + dwell_s)
        for detector in self._detectors:
            yield Msg("read", _Recorder(detector, self, frame))
        for role, axis in self._axes.items():
            yield Msg("read", _PositionRecorder(axis, self, frame, role))

    def record(self, frame: int, reading: _Reading) -> None:
        """Take in part of what was read at a pixel."""
        values = {key: entry["value"] for key, entry in reading.items()}
        self._readings.setdefault(frame, {}).update(values)

    def kickoff(self) -> Status:
        """Nothing to start: the row is `row_plan`."""
        return self._finished()

    def complete(self) -> Status:
        """Nothing to wait for: the row is `row_plan`."""
        return self._finished()

    def collect(self) -> Iterator[PartialEvent]:
        """Yield the row as one event, once; nothing where a pixel is missing."""
        request, readings = self._request, self._readings
        # The slow position is the last thing read at a pixel.
        done = [frame for frame, values in readings.items() if _position_key("slow") in values]
        if request is None or len(done) != request["num"]:
            return
        self._readings = {}
        frames = [readings[frame] for frame in range(request["num"])]
        yield row_event(self.name, self._frames(frames, request), request, self._attempt)

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Describe the row event."""
        num = None if self._request is None else self._request["num"]
        return describe_row(self.name, len(self.elements), num)

    def describe_configuration(self) -> dict[str, Any]:
        """Describe the element names."""
        return describe_elements(self.name, self.elements)

    def read_configuration(self) -> Mapping[str, Any]:
        """Return the element names."""
        return read_elements(self.name, self.elements)

    def _frames(self, frames: list[dict[str, Any]], request: RowRequest) -> RowFrames:
        dwell_s = request["dwell_ms"] * 1e-3

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


class _Recorder:
    """Reads a device and hands the reading to the flyer, however often the message is repeated.

    The plan can't do that: after a pause the RunEngine repeats messages but not the plan.
    """

    parent = None

    def __init__(self, device: Any, flyer: StepFlyer, frame: int) -> None:
        self.name = device.name
        self._device = device
        self._flyer = flyer
        self._frame = frame

    async def read(self) -> _Reading:
        reading = await _maybe(self._device.read())
        self._flyer.record(self._frame, reading)
        return reading

    def describe(self) -> Any:
        return self._device.describe()


class _PositionRecorder(_Recorder):
    """Records where an axis is, under a key of its own."""

    def __init__(self, device: Any, flyer: StepFlyer, frame: int, role: str) -> None:
        super().__init__(device, flyer, frame)
        self._role = role

    async def read(self) -> _Reading:
        if isinstance(self._device, Locatable):
            position = (await _maybe(self._device.locate()))["readback"]
        else:
            position = self._device.position
        reading = {_position_key(self._role): {"value": float(position), "timestamp": 0.0}}
        self._flyer.record(self._frame, reading)
        return reading


def _position_key(role: str) -> str:
    # No device can have a slash in a key, so this can't hide a detector's reading.
    return f"//{role}"


def _all_of(device: Any, results: Sequence[Any]) -> StatusBase:
    """Return a status that finishes with all statuses among `results`, or fails with the first."""
    combined = Status(device)
    waiting = [result for result in results if isinstance(result, AnyStatus)]
    lock = threading.Lock()
    open_ones = set(map(id, waiting))

    def ended(status: AnyStatus) -> None:
        with lock:
            if id(status) not in open_ones:
                return
            open_ones.discard(id(status))
            if not status.success:
                open_ones.clear()
                combined.set_exception(status.exception(0) or RuntimeError("staging failed"))
            elif not open_ones:
                combined.set_finished()

    if not waiting:
        combined.set_finished()
    for status in waiting:
        status.add_callback(ended)
    return combined


async def _maybe(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def _described_unit(axis: Any) -> MsgGenerator[str | None]:
    """Return the unit that an axis without `egu` describes its position in."""
    (found,) = yield from _described([axis])
    return next((key["units"] for key in found.values() if key.get("units")), None)


def _described(devices: Sequence[Any]) -> MsgGenerator[list[dict[str, Any]]]:
    """Return what each device describes; nothing for one that fails to."""
    found: list[dict[str, Any]] = [{} for _ in devices]

    async def ask() -> None:
        for device, keys in zip(devices, found, strict=True):
            try:
                keys.update(await _maybe(device.describe()))
            except Exception as error:  # noqa: BLE001 - whatever it is, reading it will show it
                logger.warning("%s doesn't describe itself: %r", device.name, error)

    yield from bps.wait_for([ask], timeout=_TIMEOUT_S)
    return found
