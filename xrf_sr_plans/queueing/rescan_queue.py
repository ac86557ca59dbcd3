"""`RescanQueue`: a device that puts rescans into the queue server's queue."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from bluesky.protocols import Reading
from event_model import DataKey
from ophyd.status import Status

from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.region_documents import regions_from_arguments
from xrf_sr_plans.measurement import alternatives, not_allowed
from xrf_sr_plans.queueing.client import (
    Connect,
    QueueClient,
    connect_zmq,
    correlation_uid,
    find_item,
    with_correlation,
)
from xrf_sr_plans.ranges import ABOVE_ZERO, Range, check

logger = logging.getLogger(__name__)

_POSITIONS = ("front", "back")
_GRACE_S = 5.0
"""How long after its timeout a `set` may still be at work before its status fails."""


@dataclass(frozen=True)
class Submission:
    """What became of one region that was to be queued.

    Parameters
    ----------
    key
        Key of the region (`Region.key`); "" where the item names no region.
    disposition
        Whether the item is in the queue or has run ("queued"), was refused by the manager or
        could not be an item at all ("refused"), or may or may not be in the queue ("failed").
    reason
        The same in words.
    item_uid
        The manager's uid of the item; "" unless it is queued.
    correlation
        Our own uid of the item, which the fine run's start document has too.
    """

    key: str
    disposition: Literal["queued", "refused", "failed"]
    reason: str
    item_uid: str = ""
    correlation: str = ""


class RescanQueue:
    """A device that puts plan items into the queue server's queue.

    ``set({"items": [{"name": ..., "kwargs": ...}, ...], "survey_uid": ...})`` submits the items
    in a thread of its own. Its status finishes when every item has an outcome, and it fails only
    where the manager's client itself hangs. ``read()`` gives the outcomes, each a `Submission`,
    as a JSON list under ``<name>_dispositions``.

    An item that is in the queue already or has run is not submitted again. This holds after a
    timeout, which leaves open whether the manager got the item, and when the RunEngine repeats
    the message after a pause. Once the manager has left an item unanswered, the remaining items
    are not submitted. The queue is never started from here, because it may hold other people's
    items.

    Parameters
    ----------
    name
        Name of the device.
    connect
        Makes a client of the manager. It is called in the thread, once for each `set`. By
        default it connects over 0MQ to where the manager's own client would.
    timeout_s
        How long a whole `set` may take.
    attempts
        How often an item is submitted at most, where the manager doesn't answer.
    position
        "front" runs rescans before what other people have queued, while the sample is still in
        place; "back" runs them afterwards.

    Raises
    ------
    ConfigError
        `timeout_s` or `attempts` is not above 0, or `position` is another word.
    """

    parent = None

    def __init__(
        self,
        name: str = "rescan_queue",
        *,
        connect: Connect | None = None,
        timeout_s: float = 60.0,
        attempts: int = 3,
        position: Literal["front", "back"] = "front",
    ) -> None:
        place = "" if position in _POSITIONS else alternatives(_POSITIONS)
        check(
            name,
            ABOVE_ZERO.flaw("timeout_s", timeout_s),
            Range(1, 1000, whole=True).flaw("attempts", attempts),
            place and not_allowed("position", position, place),
        )
        self.name = name
        self.hints: dict[str, list[str]] = {"fields": []}
        self._connect = connect or connect_zmq()
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._position = position
        self._submissions: list[Submission] = []
        self._survey_uid = ""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._content = ""
        self._under_way: list[Status] | None = None
        self._read_at = time.time()

    def set(self, value: Mapping[str, Any]) -> Status:
        """Begin to submit ``value["items"]``, and return at once.

        The same items of the same survey, given while they are being submitted, are not submitted
        again: the status finishes when the submission under way does. Other items wait for it.
        """
        items, survey_uid = list(value["items"]), value.get("survey_uid")
        status = Status(self, timeout=self._timeout_s + _GRACE_S)
        content = json.dumps([items, survey_uid], sort_keys=True, default=repr)
        with self._lock:
            if content == self._content and self._under_way is not None:
                # A pause and a resume in the middle of it: the RunEngine repeats the message.
                self._under_way.append(status)
                return status
            # The thread fills its own lists, so that a `set` which hangs can't add to a later one.
            submissions: list[Submission] = []
            waiting = [status]
            self._submissions, self._survey_uid = submissions, str(survey_uid or "")
            self._content, self._under_way = content, waiting
            before, self._thread = (
                self._thread,
                threading.Thread(
                    target=lambda: self._work(items, survey_uid, submissions, waiting, before),
                    name=f"{self.name}-submit",
                    daemon=True,
                ),
            )
            self._thread.start()
        return status

    def _work(
        self,
        items: Sequence[Mapping[str, Any]],
        survey_uid: str | None,
        submissions: list[Submission],
        waiting: list[Status],
        before: threading.Thread | None,
    ) -> None:
        """Submit items once the submission before is over, and finish all that wait for it."""
        if before is not None:
            before.join(self._timeout_s)
        try:
            submissions.extend(self._submit_all(items, survey_uid))
        except Exception as error:
            logger.exception("%s: %s: nothing could be queued", self.name, self._manager)
            reason = f"{self._manager}: {error!r}"
            submissions.extend(_not_queued(item, "failed", reason) for item in items)
        self._read_at = time.time()
        with self._lock:
            if self._under_way is waiting:
                self._under_way = None
        for status in waiting:
            if not status.done:
                status.set_finished()

    def read(self) -> dict[str, Reading[str]]:
        """Return what became of the items of the latest `set`."""
        submissions = [asdict(submission) for submission in list(self._submissions)]
        values = {
            "dispositions": json.dumps(submissions),
            "survey_uid": self._survey_uid,
        }
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": self._read_at}
            for key, value in values.items()
        }

    def describe(self) -> dict[str, DataKey]:
        """Return the data keys of `read`."""
        return {
            f"{self.name}_{key}": {"source": "queueserver", "dtype": "string", "shape": []}
            for key in ("dispositions", "survey_uid")
        }

    def read_configuration(self) -> dict[str, Reading[Any]]:
        """Return nothing, because nothing can be configured in a plan."""
        return {}

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return no data keys, as `read_configuration` returns nothing."""
        return {}

    def _submit_all(
        self, items: Sequence[Mapping[str, Any]], survey_uid: str | None
    ) -> list[Submission]:
        """Submit all items over one connection; return their outcomes in the order of `items`."""
        deadline = time.monotonic() + self._timeout_s
        client = self._connect()
        submissions: list[Submission] = []
        try:
            # Each item goes to the very front, so the one to run first is submitted last.
            for item in items[::-1] if self._position == "front" else items:
                if submissions and submissions[-1].disposition == "failed":
                    # A manager that was silent through all attempts at one item won't answer for
                    # the others either, and each of them would cost as much time again.
                    reason = f"not submitted: {self._manager} didn't answer for the item before"
                    submissions.append(_not_queued(item, "failed", reason))
                else:
                    submissions.append(self._submit(client, item, survey_uid, deadline))
        finally:
            client.close()
        return submissions[::-1] if self._position == "front" else submissions

    @property
    def _manager(self) -> str:
        address = getattr(self._connect, "address", "")
        return f"the RE Manager at {address}" if address else "the RE Manager"

    def _submit(
        self,
        client: QueueClient,
        item: Mapping[str, Any],
        survey_uid: str | None,
        deadline: float,
    ) -> Submission:
        """Submit one item until the manager answers, at most `attempts` times."""
        try:
            correlation = correlation_uid(item, survey_uid)
            complete_item = with_correlation(item, correlation)
            key = _region_key(item)
        except (ValueError, KeyError, TypeError, XrfSrError) as error:
            return _not_queued(item, "refused", f"no item for the queue: {error}")
        refusals = getattr(client, "RequestFailedError", ())
        problem, submitted = "no time left", False
        # The loop looks for the item before each submission and once more after the last one,
        # which may have arrived although its reply was lost.
        for attempt in range(self._attempts + 1):
            last_look = attempt == self._attempts
            if time.monotonic() > deadline or (last_look and not submitted):
                break
            try:
                known_item = find_item(client, correlation)
                if known_item is not None:
                    uid, place = known_item
                    return Submission(key, "queued", f"already known: {place}", uid, correlation)
                if last_look:
                    break
                submitted = True
                reply = client.item_add(complete_item, pos=self._position)
            except refusals as error:
                logger.warning("%s: region %s refused: %s", self.name, key, error)
                return Submission(key, "refused", str(error), "", correlation)
            except Exception as error:  # noqa: BLE001 - 0MQ, HTTP and others: unknown, look again
                problem = repr(error)
                level = logging.WARNING if attempt == 0 else logging.INFO
                text = "%s: %s doesn't answer about region %s: %s; looking again"
                logger.log(level, text, self.name, self._manager, key, problem)
            else:
                uid = str(reply.get("item", {}).get("item_uid", ""))
                logger.info("%s: queued region %s as item %s", self.name, key, uid)
                return Submission(
                    key, "queued", f"item {uid} at the {self._position}", uid, correlation
                )
        reason = f"unknown whether it is queued: {self._manager}: {problem}"
        return Submission(key, "failed", reason, "", correlation)


def _region_key(item: Mapping[str, Any]) -> str:
    """Return the key of the region that an item rescans, which its edges alone may describe."""
    return regions_from_arguments(item["kwargs"]["regions"][:1])[0].key


def _not_queued(
    item: Mapping[str, Any], disposition: Literal["refused", "failed"], reason: str
) -> Submission:
    try:
        key = _region_key(item)
    except (LookupError, TypeError, XrfSrError):
        key = ""
    return Submission(key, disposition, reason)
