"""`enhance_packed`: what a worker of a cluster is asked, one finished map at a time.

Requests and replies are bytes of `packing`. Dask sees nothing else: what it keeps and moves is a
number of bytes, each moved once in either direction.
"""

from __future__ import annotations

import functools
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.cluster.device_lock import device_name, one_map_at_a_time
from xrf_sr_plans.cluster.lanes import Lane
from xrf_sr_plans.cluster.model_delivery import ModelFiles, ModelFolder
from xrf_sr_plans.cluster.packed_maps import maps_of_plain, plain_of_maps
from xrf_sr_plans.cluster.versions import mismatch, versions_here
from xrf_sr_plans.errors import MissingExtraError, in_words
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.packing import pack, unpack

replies: Counter[str] = Counter()
"""How many requests this process has answered, by the ``state`` of its reply."""


def request_of(
    maps: ElementalMaps,
    factor: int,
    checksum: str,
    *,
    lane: Lane,
    threads: int,
    within_s: float,
    files: ModelFiles | None = None,
) -> bytes:
    """Return the request for one map.

    Parameters
    ----------
    maps
        The measured map.
    factor
        Fine pixels per coarse step along each axis.
    checksum
        That of the model's files (`model_delivery.ModelFiles`).
    lane
        What the map is for.
    threads
        Number of CPU threads for the network, on which the last bits depend.
    within_s
        How long somebody waits for it.
    files
        The files themselves, for a worker that doesn't have them.

    Raises
    ------
    ClusterError
        The map is too large to be sent.
    """
    return pack(
        {
            "versions": versions_here(),
            "maps": plain_of_maps(maps),
            "factor": factor,
            "model": checksum,
            "files": None if files is None else dict(files.contents),
            "lane": lane,
            "threads": threads,
            "within_s": within_s,
        }
    )


def request_for_nothing() -> bytes:
    """Return the request that only asks whether a worker would take a map of this client."""
    return pack({"versions": versions_here(), "maps": None})


def enhance_packed(request: bytes) -> bytes:
    """Enhance a map on this worker.

    Parameters
    ----------
    request
        What `request_of` or `request_for_nothing` returns.

    Returns
    -------
    bytes
        A packed dictionary whose ``state`` is ``done`` (with ``maps``, the seconds on the device
        and where that was), ``ready`` (no map came, and one would be taken), ``needed`` (the
        model's files, once), ``refused`` (this worker can't serve such a client, and ``why``) or
        ``failed`` (this map can't be enhanced, and ``why``).
    """
    reply = _checked_reply(unpack(request))
    if reply["state"] != "ready":
        replies[reply["state"]] += 1
    return pack(reply)


def _checked_reply(asked: Mapping[str, Any]) -> dict[str, Any]:
    why = mismatch(asked["versions"], versions_here())
    if why:
        return {"state": "refused", "why": why}
    if asked["maps"] is None:
        return {"state": "ready"}
    try:
        return _reply(asked)
    except MissingExtraError as error:
        return {"state": "refused", "why": f"a worker lacks something: {error}"}
    except Exception as error:  # noqa: BLE001 - told to the client, which enhances the map itself
        return {"state": "failed", "why": in_words(error)}


def _reply(asked: Mapping[str, Any]) -> dict[str, Any]:
    models, files = _models(), asked["files"]
    weights = models.find(asked["model"])
    if weights is None:
        if files is None:
            return {"state": "needed"}
        weights = models.add(asked["model"], files)
    maps = maps_of_plain(asked["maps"], ElementalMaps)
    try:
        import torch

        device = device_name()
    except ImportError as error:
        raise MissingExtraError("the network", "sr") from error
    from xrf_sr_plans.sr.predict import enhance_maps

    with one_map_at_a_time(device, asked["lane"], asked["within_s"]):
        began = time.perf_counter()
        before = torch.get_num_threads()
        torch.set_num_threads(asked["threads"])
        try:
            enhanced = enhance_maps(maps, asked["factor"], model=str(weights))
        finally:
            torch.set_num_threads(before)
        seconds = time.perf_counter() - began
    return {
        "state": "done",
        "maps": plain_of_maps(enhanced),
        "seconds": seconds,
        "where": f"{socket.gethostname()}, {device or 'cpu'}",
    }


@functools.cache
def _models() -> ModelFolder:
    """Return the models of this worker, in a folder that is deleted when it ends."""
    from distributed import get_worker

    try:
        return ModelFolder(Path(get_worker().local_directory) / "models")
    except ValueError:  # no worker of Dask
        return ModelFolder(Path(_other_folder().name))


@functools.cache
def _other_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="xrf-sr-models-")
