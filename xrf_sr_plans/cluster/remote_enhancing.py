"""`RemoteEnhancing`: ask a Dask cluster for an enhanced map, in bounded time.

Dask's calls may wait for a scheduler or a worker that hangs, so none is made in the thread of who
asks: each question has a thread of its own, which is left to itself where it takes too long. All
that is known of the cluster here is one connection. Whatever goes wrong, it is given up and made
anew later, so that a cluster that was restarted is as good as a new one.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotInTimeError
from pathlib import Path
from typing import Any

from xrf_sr_plans.cluster.cluster_connection import ClusterConnection
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.cluster.lanes import Lane
from xrf_sr_plans.cluster.model_delivery import ModelFiles, checksum_of
from xrf_sr_plans.cluster.packed_maps import maps_of_plain
from xrf_sr_plans.cluster.task import request_for_nothing, request_of
from xrf_sr_plans.errors import ClusterError, RefusedError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps

logger = logging.getLogger(__name__)

FIRST_LOOK_S = 1.0
"""How soon it is looked whether a cluster answers again that did not do what it was asked."""
LONGEST_PAUSE_S = 15.0
"""Longest time between two looks, each of which comes after twice the time of the one before."""
_LOOK_S = 5.0
"""Longest wait for an answer then."""
_known: dict[tuple[Any, ...], RemoteEnhancing] = {}
_known_lock = threading.Lock()


class RemoteEnhancing:
    """Have maps enhanced on a cluster. It is thread-safe; see `enhancing_on`.

    Parameters
    ----------
    where
        The cluster.
    lane
        What the maps are for.
    threads
        Number of CPU threads for the network, where a worker has no GPU.
    timeout_s
        Longest wait for an enhanced map.
    """

    def __init__(self, where: ClusterAddress, lane: Lane, threads: int, timeout_s: float) -> None:
        self._where = where
        self._lane: Lane = lane
        self._threads = threads
        self._timeout_s = timeout_s
        self._connection = ClusterConnection(where, lane)
        self._lock = threading.Lock()
        self._trouble = ""
        """Why no map is sent to the cluster at the moment; empty: they are sent."""
        self._closed = threading.Event()

    def warm_up(self, maps: ElementalMaps, factor: int, weights: Path) -> None:
        """Have a worker load what such maps need, and return at once.

        If that fails, no map is sent there until the cluster answers again, as with any map.
        """
        if not self._trouble:
            _in_thread(self, maps, factor, weights)

    def __call__(
        self, maps: ElementalMaps, factor: int, weights: Path, within_s: float | None = None
    ) -> EnhancedMaps:
        """Return the enhanced map, as `sr.predict.enhance_maps` of the same maps would.

        Parameters
        ----------
        maps
            The measured map.
        factor
            Fine pixels per coarse step along each axis.
        weights
            The weights of the model. It is sent to workers that don't have it.
        within_s
            Longest wait, where it has to be shorter than usual.

        Raises
        ------
        ClusterError
            The cluster can't be reached, has not done it in time, has another version or failed.
            It may have been so a moment ago, and the cluster has not answered since.
        ModelError
            The model's files can't be read.
        """
        if trouble := self._trouble:
            raise ClusterError(f"{trouble}; the cluster is used again once it answers")
        within_s = self._timeout_s if within_s is None else min(within_s, self._timeout_s)
        began = time.monotonic()
        deadline = began + within_s
        checksum = checksum_of(weights)
        told: dict[str, Any] = {"lane": self._lane, "threads": self._threads}
        request = request_of(maps, factor, checksum, within_s=within_s, **told)
        reply = self._reply(request, deadline, within_s)
        if reply["state"] == "needed":
            files = ModelFiles.of(weights)
            logger.info("the model is sent to a worker of %s", self._where.address)
            request = request_of(maps, factor, checksum, within_s=within_s, files=files, **told)
            reply = self._reply(request, deadline, within_s)
        if reply["state"] == "refused":
            raise self._given_up(self._connection, str(reply["why"]))
        if reply["state"] != "done":
            raise ClusterError(f"a worker of the cluster failed: {reply.get('why')}")
        enhanced = maps_of_plain(reply["maps"], EnhancedMaps)
        logger.info(
            "enhanced on the cluster (%s): %.3f s there, %.3f s with the way",
            reply["where"],
            reply["seconds"],
            time.monotonic() - began,
        )
        return enhanced

    def close(self) -> None:
        """Disconnect, and don't wait for it."""
        self._closed.set()
        self._connection.give_up()

    def _reply(self, request: bytes, deadline: float, within_s: float) -> Mapping[str, Any]:
        """Return the reply to a request; a connection that broke is made again once."""
        for is_last in (False, True):
            asked = self._connection
            answer = _in_thread(asked.ask, request, deadline)
            try:
                return answer.result(max(0.0, deadline - time.monotonic()))
            except (NotInTimeError, TimeoutError):
                trouble = f"no answer of the cluster within {within_s:g} s"
                trouble += "" if asked.has_workers else ", which has no workers"
                raise self._given_up(asked, trouble) from None
            except CancelledError:
                # The scheduler was restarted, or the connection broke.
                if is_last:
                    raise self._given_up(
                        asked, "the connection to the cluster broke twice"
                    ) from None
                self._begin_anew(asked)
            except (ClusterError, RefusedError) as error:
                raise self._given_up(asked, str(error)) from error
            except Exception as error:
                raise self._given_up(asked, f"the cluster failed: {in_words(error)}") from error
        raise AssertionError

    def _given_up(self, asked: ClusterConnection, trouble: str) -> ClusterError:
        """Let go of a connection, and return the error that says why."""
        with self._lock:
            is_new, self._trouble = not self._trouble, trouble
        self._begin_anew(asked)
        if is_new:
            threading.Thread(target=self._look_again, name="xrf-sr-cluster", daemon=True).start()
        return ClusterError(trouble)

    def _look_again(self) -> None:
        """Ask whether a worker takes maps until one does, and have maps sent there again."""
        pause_s = FIRST_LOOK_S
        while not self._closed.wait(pause_s):
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            asked = self._connection
            answer = _in_thread(
                asked.ask, request_for_nothing(), time.monotonic() + _LOOK_S, "look"
            )
            try:
                reply = answer.result(_LOOK_S)
            except Exception as error:  # noqa: BLE001 - it is still in trouble
                logger.debug("%s: %s", self._where.address, in_words(error))
                self._begin_anew(asked)
                continue
            if reply["state"] == "ready":
                logger.info("%s answers, and is used again", self._where.address)
                self._trouble = ""
                return
            self._trouble = str(reply.get("why"))

    def _begin_anew(self, asked: ClusterConnection) -> None:
        with self._lock:
            # Another thread may have begun anew already.
            if self._connection is asked:
                self._connection = ClusterConnection(self._where, self._lane)
        asked.give_up()


def enhancing_on(
    where: ClusterAddress, lane: Lane, threads: int, timeout_s: float
) -> RemoteEnhancing:
    """Return the one `RemoteEnhancing` of this process with these parameters.

    All maps share a connection, and what is known of a cluster that is in trouble.
    """
    # A process that was forked has none of its parent's threads, and needs a connection of its own.
    key = (os.getpid(), where, lane, threads, timeout_s)
    with _known_lock:
        if key not in _known:
            _known[key] = RemoteEnhancing(where, lane, threads, timeout_s)
        return _known[key]


def forget_clusters() -> None:
    """Disconnect, and begin anew with the next map, also on clusters that were in trouble."""
    with _known_lock:
        known = list(_known.values())
        _known.clear()
    for one in known:
        one.close()


def _in_thread(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Call a function in a thread that keeps no process from ending; return its future."""
    future: Future[Any] = Future()

    def call() -> None:
        try:
            future.set_result(function(*arguments))
        except Exception as error:  # noqa: BLE001 - whoever waits is told
            future.set_exception(error)
        except BaseException:  # noqa: BLE001 - asyncio's cancellation, which ends only this thread
            future.set_exception(CancelledError())

    threading.Thread(target=call, name="xrf-sr-cluster", daemon=True).start()
    return future
