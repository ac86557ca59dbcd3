"""`ClusterConnection`: one connection to a cluster, which is never mended."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xrf_sr_plans.cluster.check_workers import VERSIONS
from xrf_sr_plans.cluster.connection import ClusterAddress, connect
from xrf_sr_plans.cluster.lanes import Lane, placement
from xrf_sr_plans.cluster.task import enhance_packed
from xrf_sr_plans.cluster.versions import mismatch, versions_here
from xrf_sr_plans.errors import ClusterError
from xrf_sr_plans.packing import unpack

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

CONNECT_S = 5.0
"""Longest wait for the scheduler to answer."""
LOOKED_AT_AGAIN_S = 10.0
"""How long it is believed which workers a cluster has, and whether they can be reached."""
_REACH_S = 0.5
"""Longest wait for a worker's port."""
_CLOSE_S = 2.0


class ClusterConnection:
    """One connection to a cluster. Its methods may hang as long as the cluster does.

    Parameters
    ----------
    where
        The cluster; nothing is connected before the first question.
    lane
        What the questions are for.

    Attributes
    ----------
    has_workers : bool
        False where the cluster had no workers when it was last looked at.
    """

    def __init__(self, where: ClusterAddress, lane: Lane) -> None:
        self._where = where
        self._lane: Lane = lane
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._given_up = False
        self.has_workers = True
        self._reached: set[str | None] = set()
        self._unreachable = False
        self._placement: dict[str, Any] = {}
        self._looked_at = -LOOKED_AT_AGAIN_S

    def ask(self, request: bytes, deadline: float, kind: str = "enhance") -> Mapping[str, Any]:
        """Return the reply to a request (`task.enhance_packed`).

        Parameters
        ----------
        request
            What `task.request_of` returns.
        deadline
            When nobody waits for it any more, in seconds of `time.monotonic`.
        kind
            What the scheduler counts the task as.

        Raises
        ------
        CancelledError
            The connection broke, as where the scheduler was restarted.
        ClusterError
            All workers have other versions.
        ConfigError
            There is no scheduler, or the keys are wrong.
        TimeoutError
            It took longer.
        """
        client, placed = self._ready(deadline)
        # Requests lie in the task itself and not beside it: what was scattered is lost with the
        # worker that has it, and then Dask can't do the task elsewhere.
        future = client.submit(
            enhance_packed, request, key=f"{kind}-{uuid.uuid4().hex}", pure=False, **placed
        )
        try:
            return unpack(future.result(timeout=max(0.0, deadline - time.monotonic())))
        finally:
            # A task that nobody refers to any more is cancelled.
            future.release()

    def give_up(self) -> None:
        """Close the client if there is one, or once there is one; don't wait for it."""
        self._given_up = True
        if self._client is not None:
            threading.Thread(target=_close, args=(self._client,), daemon=True).start()

    def _ready(self, deadline: float) -> tuple[Client, dict[str, Any]]:
        """Connect if need be; return the client, and where tasks are to run."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        try:
            if self._client is None:
                left_s = max(0.1, deadline - time.monotonic())
                self._client = connect(self._where, min(CONNECT_S, left_s))
                if self._given_up:
                    _close(self._client)
            if self._client.status != "running":
                raise CancelledError
            if time.monotonic() - self._looked_at > LOOKED_AT_AGAIN_S:
                workers = self._client.scheduler_info(n_workers=-1)["workers"]
                self.has_workers = bool(workers)
                self._placement = placement(self._client, self._lane) | fitting(workers)
                self._client.direct_to_workers = self.reaches(workers)
                self._looked_at = time.monotonic()
            return self._client, self._placement
        finally:
            self._lock.release()

    def reaches(self, workers: Iterable[str]) -> bool:
        """Return whether replies can be fetched from the workers, given their addresses.

        They are several times as large as requests. Where workers can be reached, they don't pass
        through the scheduler, which the maps of a whole facility would. One worker of each host is
        tried, once; where that fails, it stays with the scheduler.
        """
        parts = [urlsplit(address) for address in workers]
        new = {one.hostname: one.port for one in parts if one.hostname not in self._reached}
        for host, port in new.items():
            if self._unreachable:
                break
            try:
                socket.create_connection((host or "", port or 0), _REACH_S).close()
                self._reached.add(host)
            except OSError as error:
                self._unreachable = True
                logger.info("results come by the scheduler; a worker on %s: %s", host, error)
        return not self._unreachable


def fitting(workers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the keyword `workers` of `Client.submit`, or {} where all of them may be asked.

    Those that have said other versions than this process has (`check_workers.VERSIONS`) are left
    out, so that a cluster can be upgraded worker by worker.

    Parameters
    ----------
    workers
        What the scheduler knows of each worker, by its address.

    Raises
    ------
    ClusterError
        No worker is left.
    """
    here = versions_here()
    told = {address: known.get(VERSIONS) for address, known in workers.items()}
    flaws = {
        address: mismatch(here, versions)
        for address, versions in told.items()
        if isinstance(versions, Mapping)
    }
    fit = [address for address in workers if not flaws.get(address)]
    if workers and not fit:
        raise ClusterError(next(iter(flaws.values())))
    return {"workers": fit} if len(fit) < len(workers) else {}


def _close(client: Client) -> None:
    with suppress(Exception):  # It may be closed, or what it talks to may be gone.
        client.close(timeout=_CLOSE_S)
