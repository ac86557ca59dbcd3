"""`ResultPublisher`: whole result runs to a bus, or a word on why they are not there."""

from __future__ import annotations

import uuid
from typing import Any

from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.errors import BusError, MessageError
from xrf_sr_plans.intake.bus import Outlet, Told
from xrf_sr_plans.schema import Document, Documents

SEND_S = 30.0
"""Longest wait for a bus to take a result run, in seconds."""


class ResultPublisher:
    """A sink of result runs that publishes each as a whole.

    A run that the bus can't take, as one of its documents is too large, is replaced by one that
    says so: its stop document has the exit status "fail" and the reason.

    Parameters
    ----------
    outlet
        The bus.
    told
        Called with a sentence on each run that was not published.
    send_s
        Longest wait for the bus to take a run, in seconds.

    Attributes
    ----------
    failures : int
        How many runs were not published.
    """

    takes_arrays = True

    def __init__(self, outlet: Outlet, told: Told, send_s: float = SEND_S) -> None:
        self.failures = 0
        self._outlet = outlet
        self._told = told
        self._send_s = send_s
        self._coming: Documents = []

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of a result run; they come one run after the other."""
        if name == "start":
            self._coming = []
        self._coming.append((name, doc))
        if name == "stop":
            documents, self._coming = self._coming, []
            self._publish(documents)

    def _publish(self, documents: Documents) -> None:
        run = str(documents[0][1].get("uid", ""))
        try:
            messages = [self._outlet.pack(name, doc) for name, doc in documents]
            problem = self._too_large(documents, messages)
            if problem:
                self._told(f"result run {run} is published without its maps: {problem}")
                self.failures += 1
                messages = [
                    self._outlet.pack(name, as_lists(doc))
                    for name, doc in without_maps(documents, problem)
                ]
            self._outlet.send(run, messages, self._send_s)
        except (BusError, MessageError) as error:
            self.failures += 1
            self._told(f"result run {run} was not published: {error}; replay its map")

    def _too_large(self, documents: Documents, messages: list[bytes]) -> str:
        limit = self._outlet.max_bytes
        largest = max(range(len(messages)), key=lambda index: len(messages[index]))
        if limit is None or len(messages[largest]) <= limit:
            return ""
        return (
            f"its {documents[largest][0]} document has {len(messages[largest]) / 1e6:.2f} MB, and "
            f"the bus takes {limit / 1e6:.2f} MB. Raise {self._outlet.how_to_raise}, or keep large "
            "maps in files (analysis.result_dir) or results in a store (--store)"
        )


def without_maps(documents: Documents, reason: str) -> list[Document]:
    """Return a run in place of one that can't be published: its start document and a failed stop.

    It has a uid of its own, because the run itself may be published later.
    """
    start, stop = documents[0][1], documents[-1][1]
    uid = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{start['uid']}/without maps"))
    return [
        ("start", {**start, "uid": uid, "result_uid": start["uid"]}),
        (
            "stop",
            {
                **stop,
                "uid": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{uid}/stop")),
                "run_start": uid,
                "exit_status": "fail",
                "reason": reason,
                "num_events": {},
            },
        ),
    ]
