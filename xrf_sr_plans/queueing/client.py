"""Talking to a RE Manager: what we need of its client, and how to find our items again."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from xrf_sr_plans.errors import MissingExtraError

CORRELATION_KEY = "rescan_item"
"""Key in the plan's metadata, and so in the fine run's start document, of our own item uid.

The uid that the manager gives an item is not in the run's start document and changes when the
item fails (bluesky-queueserver #374, #158).
"""

_ADDRESS_VARIABLE = "QSERVER_ZMQ_CONTROL_ADDRESS"
_DEFAULT_ADDRESS = "tcp://localhost:60615"
"""What the manager's own client falls back on, in this order."""

_NAMESPACE = uuid.UUID("0b7f4d6e-3c52-5d0e-8f55-5b2f8f5c7a11")


class QueueClient(Protocol):
    """The part of `bluesky_queueserver_api.zmq.REManagerAPI` (or ``.http``) that is used."""

    def item_add(self, item: Any, *, pos: Any = None) -> Mapping[str, Any]:
        """Put an item into the queue."""
        ...

    def queue_get(self, *, reload: bool = False) -> Mapping[str, Any]:
        """Return the items that wait, and the one that runs."""
        ...

    def history_get(self, *, reload: bool = False) -> Mapping[str, Any]:
        """Return the items that ran."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


Connect = Callable[[], QueueClient]


@dataclass(frozen=True)
class ZmqConnection:
    """Connects to a RE Manager over 0MQ when it is called; see `connect_zmq`."""

    control_addr: str | None
    info_addr: str | None
    timeout_s: float

    @property
    def address(self) -> str:
        """Where requests go."""
        return self.control_addr or os.environ.get(_ADDRESS_VARIABLE) or _DEFAULT_ADDRESS

    def __call__(self) -> QueueClient:
        """Return a client; that there is a manager at all shows only when it is asked."""
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
) -> ZmqConnection:
    """Return a function that connects to a RE Manager over 0MQ.

    Parameters
    ----------
    control_addr, info_addr
        Such as "tcp://localhost:60615" and "tcp://localhost:60625"; None: the client's default
        or its environment variables.
    timeout_s
        For each request.

    Raises
    ------
    MissingExtraError
        On connecting: bluesky-queueserver-api is not installed.
    """
    return ZmqConnection(control_addr, info_addr, timeout_s)


def correlation_uid(item: Mapping[str, Any], survey_uid: str | None) -> str:
    """Return the same uid for the same plan call of the same survey."""
    content = json.dumps([survey_uid, item["name"], item.get("kwargs", {})], sort_keys=True)
    return str(uuid.uuid5(_NAMESPACE, content))


def correlated(item: Mapping[str, Any], correlation: str) -> dict[str, Any]:
    """Return a plan item as the manager takes it, with our uid in the plan's metadata.

    Raises
    ------
    ValueError
        The item doesn't go through strict JSON (NaN, a device, ...).
    """
    kwargs = dict(item.get("kwargs", {}))
    kwargs["md"] = {**(kwargs.get("md") or {}), CORRELATION_KEY: correlation}
    whole = {**item, "item_type": "plan", "kwargs": kwargs}
    try:
        json.dumps(whole, allow_nan=False)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return whole


def find_item(client: QueueClient, correlation: str) -> tuple[str, str] | None:
    """Return (item uid, where it is in words) of an item of ours; None where there is none."""
    for place, item in _all_items(client):
        if (item.get("kwargs", {}).get("md") or {}).get(CORRELATION_KEY) == correlation:
            return str(item.get("item_uid", "")), place
    return None


def _all_items(client: QueueClient) -> Iterator[tuple[str, Mapping[str, Any]]]:
    queue = client.queue_get(reload=True)
    yield from (("it waits in the queue", item) for item in queue.get("items", ()))
    if queue.get("running_item"):
        yield "it is running", queue["running_item"]
    for item in reversed(client.history_get(reload=True).get("items", ())):
        yield f"it ran: {item.get('result', {}).get('exit_status', 'unknown')}", item
