"""`placement`: which workers of a cluster may take a task, and which task goes first.

Workers that `xrf-sr cluster` starts come in pairs: one process for the maps of samples that are in
the beam, and a nicer one for everything that can wait. They say so by Dask's resources. Dask never
interrupts a task, so with one kind of process a map of a survey would wait for a replayed one.
Workers that somebody else started have no such resources; there only the priority counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from distributed import Client

Lane = Literal["live", "bulk"]
"""Whether the beam is on the sample (``live``), or the task can wait (``bulk``)."""
PRIORITIES: dict[Lane, int] = {"live": 10, "bulk": 0}
"""Of Dask's priorities, the higher goes first."""


def resources_of(lane: Lane) -> dict[str, float]:
    """Return the resources of a worker of a lane, of which a task takes all: one at a time."""
    return {_resource(lane): 1.0}


def lanes_of(resources: Mapping[str, float] | None) -> list[Lane]:
    """Return the lanes of a worker by its resources; none where somebody else started it."""
    return [lane for lane in PRIORITIES if _resource(lane) in (resources or {})]


def placement(client: Client, lane: Lane) -> dict[str, Any]:
    """Return the keywords `priority` and `resources` of `Client.submit` for a task of a lane.

    What can wait never goes to workers for live maps, also while there is no other, as where the
    one that it was with is started again. A live map takes any worker rather than none.

    Parameters
    ----------
    client
        A client of the cluster, whose workers are looked at.
    lane
        What the task is for.
    """
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    lanes = [lanes_of(worker.get("resources")) for worker in workers]
    known = any(lane in one for one in lanes)
    waits = lane == "bulk" and bool(lanes) and all(lanes)
    return {
        "priority": PRIORITIES[lane],
        "resources": resources_of(lane) if known or waits else None,
    }


def _resource(lane: Lane) -> str:
    return f"xrf-sr-{lane}"
