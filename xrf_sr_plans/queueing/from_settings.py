"""`rescan_queue`: the way to the queue server that settings describe."""

from __future__ import annotations

from xrf_sr_plans.config import QueueSettings
from xrf_sr_plans.queueing.client import connect_zmq
from xrf_sr_plans.queueing.rescan_queue import RescanQueue


def rescan_queue(settings: QueueSettings) -> RescanQueue:
    """Return the device that hands rescans to a queue server.

    Parameters
    ----------
    settings
        Where the manager is, and how it is asked.
    """
    return RescanQueue(
        connect=connect_zmq(
            settings.control_address, settings.info_address, timeout_s=settings.request_timeout_s
        ),
        timeout_s=settings.timeout_s,
        attempts=settings.attempts,
        position=settings.position,
    )
