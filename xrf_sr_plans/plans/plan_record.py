"""`PlanRecord`: what a plan decided, as events of its run like everything that is measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from bluesky import plan_stubs as bps
from bluesky import preprocessors as bpp
from bluesky.utils import IllegalMessageSequence, MsgGenerator
from ophyd.status import Status

logger = logging.getLogger(__name__)

_DTYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}


class PlanRecord:
    """A device of the plan's own which holds named values of fixed types.

    Parameters
    ----------
    name
        Prefix of the data keys.
    fields
        A first value for each field by name. Its type is the field's: str, bool, int or float.
    """

    parent = None
    hints: Mapping[str, Any] = {"fields": []}

    def __init__(self, name: str, fields: Mapping[str, str | bool | int | float]) -> None:
        self.name = name
        self._values = dict(fields)
        self._time = time.time()

    def set(self, values: Mapping[str, Any]) -> Status:
        """Take new values for some of the fields.

        Raises
        ------
        KeyError
            If the record has no field of that name.
        """
        unknown = set(values) - set(self._values)
        if unknown:
            raise KeyError(f"{self.name} has no {sorted(unknown)}; it has {sorted(self._values)}")
        self._values.update(values)
        self._time = time.time()
        status = Status()
        status.set_finished()
        return status

    def read(self) -> dict[str, Any]:
        """Return the values as bluesky readings."""
        return {
            f"{self.name}_{field}": {"value": value, "timestamp": self._time}
            for field, value in self._values.items()
        }

    def describe(self) -> dict[str, Any]:
        """Return the data keys."""
        return {
            f"{self.name}_{field}": {
                "source": f"plan:{self.name}.{field}",
                "dtype": _DTYPES[type(value)],
                "shape": [],
            }
            for field, value in self._values.items()
        }

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing: there is no configuration."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Return nothing: there is no configuration."""
        return {}


def record_event(record: PlanRecord, stream: str, values: Mapping[str, Any]) -> MsgGenerator[None]:
    """Emit one event that holds the values of `record`.

    A pause in the middle of it repeats the event and nothing else.

    Parameters
    ----------
    record
        The device that is read.
    stream
        Name of the event's stream.
    values
        New values by field. The other fields keep theirs.
    """

    def event() -> MsgGenerator[None]:
        yield from bps.create(stream)
        yield from bps.read(record)
        yield from bps.save()

    yield from bps.checkpoint()
    yield from bps.abs_set(record, values)
    yield from bpp.contingency_wrapper(event(), except_plan=_drop)
    yield from bps.checkpoint()


_READ_ATTEMPTS = 3


def patient_read(device: Any) -> MsgGenerator[Mapping[str, Any] | None]:
    """Read a device between checkpoints, and once more where a pause came in the middle of it.

    The message is then repeated, but its answer gets lost.
    """
    reading = None
    for _ in range(_READ_ATTEMPTS):
        reading = yield from bps.read(device)
        if reading is not None:
            break
    yield from bps.checkpoint()
    return reading


def _drop(error: Exception) -> MsgGenerator[None]:
    """Drop an event that was begun, because the clean-up may have an event to emit itself."""
    try:
        yield from bps.drop()
    except IllegalMessageSequence:
        logger.debug("no event was begun when %r came", error)
