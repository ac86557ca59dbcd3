"""`RescanQueue`: a device that puts rescans into the queue server's queue."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ophyd.status import Status

from xrf_sr_plans.errors import ConfigError, XrfSrError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.queueing.client import (
    Connect,
    QueueClient,
    connect_zmq,
    correlated,
    correlation_uid,
    find_item,
)

logger = logging.getLogger(__name__)

_GRACE_S = 5.0


@dataclass(frozen=True)
class Answer:
    """What became of one region that was to be queued."""

    key: str
    disposition: Literal["queued", "refused", "failed"]
    reason: str
    item_uid: str = ""
    correlation: str = ""


class RescanQueue:
    """Set it to plan items, and they are in the queue; read what became of each.

    ``set({"items": [{"name", "kwargs"}, ...], "survey_uid": ...})`` submits in a thread of its
    own; the status finishes when every item has an answer, and fails only if the manager's
    client itself hangs. ``read()`` gives the answers as JSON under ``<name>_dispositions``:
    ``key`` (of the region), ``disposition`` (queued, refused by the manager, failed), ``reason``,
    ``item_uid`` and ``correlation``.

    An item that is in the queue already, or ran, is not submitted again: neither after a
    timeout, which leaves open whether the manager got it, nor when the RunEngine repeats the
    message after a pause. Once the manager has left an item unanswered, the rest are not
    submitted. The queue is never started from here: other people's items are in it.

    Parameters
    ----------
    name
        Of the device.
    connect
        Makes a client of the manager; called in the thread, for each `set`.
    timeout_s
        For a whole `set`.
    attempts
        How often an item is submitted at most, where the manager doesn't answer.
    position
        "front": rescans run before what other people queued, as the sample is in place.
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
        if not timeout_s > 0 or attempts < 1:
            raise ConfigError(
                f"{name}: timeout_s is {timeout_s} and attempts {attempts}; both must be above 0"
            )
        self.name = name
        self.hints: dict[str, list[str]] = {"fields": []}
        self._connect = connect or connect_zmq()
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._position = position
        self._answers: list[Answer] = []
        self._survey_uid = ""
        self._read_at = time.time()

    def set(self, value: Mapping[str, Any]) -> Status:
        """Submit ``value["items"]``; returns at once."""
        items, survey_uid = list(value["items"]), value.get("survey_uid")
        answers: list[Answer] = []
        self._answers, self._survey_uid = answers, str(survey_uid or "")
        status = Status(self, timeout=self._timeout_s + _GRACE_S)

        def work() -> None:
            try:
                answers.extend(self._submit_all(items, survey_uid))
            except Exception as error:
                logger.exception("%s: %s: nothing could be queued", self.name, self._manager)
                answers.extend(_failed(item, f"{self._manager}: {error!r}") for item in items)
            self._read_at = time.time()
            if not status.done:
                status.set_finished()

        threading.Thread(target=work, name=f"{self.name}-submit", daemon=True).start()
        return status

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the answers to the latest `set`."""
        values = {
            "dispositions": json.dumps([asdict(answer) for answer in list(self._answers)]),
            "survey_uid": self._survey_uid,
        }
        return {
            f"{self.name}_{key}": {"value": value, "timestamp": self._read_at}
            for key, value in values.items()
        }

    def describe(self) -> dict[str, dict[str, Any]]:
        """Describe `read`."""
        return {
            f"{self.name}_{key}": {"source": "queueserver", "dtype": "string", "shape": []}
            for key in ("dispositions", "survey_uid")
        }

    def read_configuration(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def describe_configuration(self) -> dict[str, Any]:
        """Describe nothing."""
        return {}

    def _submit_all(
        self, items: Sequence[Mapping[str, Any]], survey_uid: str | None
    ) -> list[Answer]:
        deadline = time.monotonic() + self._timeout_s
        client = self._connect()
        answers: list[Answer] = []
        try:
            # Each goes to the front, so the one to run first is submitted last.
            for item in items[::-1] if self._position == "front" else items:
                if answers and answers[-1].disposition == "failed":
                    # Who doesn't answer once, attempts and all, won't do so for each of the rest.
                    reason = f"not submitted: {self._manager} didn't answer for the one before"
                    answers.append(_failed(item, reason))
                else:
                    answers.append(self._submit(client, item, survey_uid, deadline))
        finally:
            client.close()
        return answers[::-1] if self._position == "front" else answers

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
    ) -> Answer:
        try:
            correlation = correlation_uid(item, survey_uid)
            whole = correlated(item, correlation)
            key = _region_key(item)
        except (ValueError, KeyError, TypeError, XrfSrError) as error:
            return _failed(item, f"no item for the queue: {error}", "refused")
        refusals = getattr(client, "RequestFailedError", ())
        problem, sent = "no time left", False
        # One look more than submissions: the last of them may have arrived unanswered.
        for attempt in range(self._attempts + 1):
            if time.monotonic() > deadline or (attempt == self._attempts and not sent):
                break
            try:
                found = find_item(client, correlation)
                if found is not None:
                    uid, place = found
                    return Answer(key, "queued", f"already known: {place}", uid, correlation)
                if attempt == self._attempts:
                    break
                sent = True
                reply = client.item_add(whole, pos=self._position)
            except refusals as error:
                logger.warning("%s: region %s refused: %s", self.name, key, error)
                return Answer(key, "refused", str(error), "", correlation)
            except Exception as error:  # noqa: BLE001 - 0MQ, HTTP and others: unknown, look again
                problem = repr(error)
                level = logging.WARNING if attempt == 0 else logging.INFO
                text = "%s: %s doesn't answer about region %s: %s; looking again"
                logger.log(level, text, self.name, self._manager, key, problem)
            else:
                uid = str(reply.get("item", {}).get("item_uid", ""))
                logger.info("%s: queued region %s as item %s", self.name, key, uid)
                return Answer(
                    key, "queued", f"item {uid} at the {self._position}", uid, correlation
                )
        reason = f"unknown whether it is queued: {self._manager}: {problem}"
        return Answer(key, "failed", reason, "", correlation)


def _region_key(item: Mapping[str, Any]) -> str:
    kwargs = item["kwargs"]
    defaults = {"elements": (), "score": 1.0, "reason": "", "source_uid": ""}
    return Region.from_dict({**defaults, **kwargs["regions"][0]}).key


def _failed(
    item: Mapping[str, Any], reason: str, disposition: Literal["refused", "failed"] = "failed"
) -> Answer:
    try:
        key = _region_key(item)
    except (LookupError, TypeError, XrfSrError):
        key = ""
    return Answer(key, disposition, reason)
