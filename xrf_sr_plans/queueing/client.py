"""The client of a RE Manager: which part of it is used, and how items are found again."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from xrf_sr_plans.errors import MissingExtraError
from xrf_sr_plans.ranges import ABOVE_ZERO, check

CORRELATION_KEY = "rescan_item"
"""Key under which an item's correlation uid stands in the metadata of its plan.

The fine run's start document therefore has it too. The uid that the manager itself gives an item
would not do, because it is not in the run's start document and changes when the item fails
(bluesky-queueserver #374, #158).
"""

_ADDRESS_VARIABLE = "QSERVER_ZMQ_CONTROL_ADDRESS"
"""Environment variable that the manager's own client reads where no address is given."""

_DEFAULT_ADDRESS = "tcp://localhost:60615"
"""Address that the manager's own client falls back on where the variable isn't set either."""

_NAMESPACE = uuid.UUID("0b7f4d6e-3c52-5d0e-8f55-5b2f8f5c7a11")


class QueueClient(Protocol):
    """The part of `bluesky_queueserver_api.zmq.REManagerAPI` (or ``.http``) that is used."""

    def item_add(self, item: Mapping[str, Any], *, pos: Any = None) -> Mapping[str, Any]:
        """Put an item into the queue and return the manager's reply."""
        ...

    def queue_get(self, *, reload: bool = False) -> Mapping[str, Any]:
        """Return the items that wait, and the one that runs."""
        ...

    def history_get(self, *, reload: bool = False) -> Mapping[str, Any]:
        """Return the items that have run."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Connect = Callable[[], QueueClient]
"""A function that connects to a manager."""


@dataclass(frozen=True)
class ZmqConnector:
    """A function that connects to a RE Manager over 0MQ; see `connect_zmq`."""

    control_addr: str | None
    info_addr: str | None
    timeout_s: float

    @property
    def address(self) -> str:
        """The address that requests are sent to."""
        return self.control_addr or os.environ.get(_ADDRESS_VARIABLE) or _DEFAULT_ADDRESS

    def __call__(self) -> QueueClient:
        """Return a client of the manager.

        0MQ connects lazily, so that a manager which isn't there is noticed at the first request
        only.

        Raises
        ------
        MissingExtraError
            The package bluesky-queueserver-api is not installed.
        """
        try:
            from bluesky_queueserver_api.zmq import REManagerAPI
        except ImportError as error:
            raise MissingExtraError("queueing rescans", "queue") from error
        return REManagerAPI(
            zmq_control_addr=self.control_addr,
            zmq_info_addr=self.info_addr,
            timeout_recv=self.timeout_s,
        )


def connect_zmq(
    control_addr: str | None = None, info_addr: str | None = None, *, timeout_s: float = 5.0
) -> ZmqConnector:
    """Return a function that connects to a RE Manager over 0MQ.

    Calling the function raises `MissingExtraError` where bluesky-queueserver-api is not installed.

    Parameters
    ----------
    control_addr
        Address for requests, such as "tcp://localhost:60615"; None: what the manager's client
        takes from its environment variables or by default.
    info_addr
        Address for console output, such as "tcp://localhost:60625"; None: as above.
    timeout_s
        How long one request may take.

    Raises
    ------
    ConfigError
        `timeout_s` is not a finite number above 0.
    """
    check("connect_zmq", ABOVE_ZERO.flaw("timeout_s", timeout_s))
    return ZmqConnector(control_addr, info_addr, timeout_s)


def correlation_uid(item: Mapping[str, Any], survey_uid: str | None) -> str:
    """Return the uid by which an item is found again.

    It follows from the survey, the plan's name and its arguments alone, so that the same call of
    the same survey always has the same uid.
    """
    content = json.dumps([survey_uid, item["name"], item.get("kwargs", {})], sort_keys=True)
    return str(uuid.uuid5(_NAMESPACE, content))


def with_correlation(item: Mapping[str, Any], correlation: str) -> dict[str, Any]:
    """Return a plan item as the manager takes it, with its correlation uid in the metadata.

    Raises
    ------
    ValueError
        The item can't be written as strict JSON, for instance because of a NaN or a device.
    """
    kwargs = dict(item.get("kwargs", {}))
    kwargs["md"] = {**(kwargs.get("md") or {}), CORRELATION_KEY: correlation}
    complete_item = {**item, "item_type": "plan", "kwargs": kwargs}
    try:
        json.dumps(complete_item, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return complete_item


def find_item(client: QueueClient, correlation: str) -> tuple[str, str] | None:
    """Return the manager's uid of an item and, in words, where it is.

    The queue, the running item and the history are searched in this order. None means that the
    manager doesn't know the item.
    """
    for place, item in _all_items(client):
        if _mapping(_mapping(item.get("kwargs")).get("md")).get(CORRELATION_KEY) == correlation:
            return str(item.get("item_uid", "")), place
    return None


def _all_items(client: QueueClient) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield all plan items that the manager knows, with where they are in words.

    Other people's items may have any form: their arguments may be null, a list or a number.
    """
    queue = _mapping(client.queue_get(reload=True))
    for item in _sequence(queue.get("items")):
        yield "it waits in the queue", _mapping(item)
    yield "it is running", _mapping(queue.get("running_item"))
    history = _mapping(client.history_get(reload=True))
    # The latest first: of an item that ran twice the last outcome counts.
    for item in reversed(_sequence(history.get("items"))):
        plain = _mapping(item)
        yield f"it ran: {_mapping(plain.get('result')).get('exit_status', 'unknown')}", plain


def _mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one in the place of anything else."""
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    """Return a list or tuple as it is, and an empty one in the place of anything else."""
    return value if isinstance(value, list | tuple) else ()
