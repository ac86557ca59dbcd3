"""Regions of surveys that a RE Manager runs are approved by others, and flown once."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from support.queue_servers import QueueServer
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import By
from xrf_sr_plans.approval.send import send_approved
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.queueing.client import connect_zmq
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.store.documents import documents

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]
ANN = By(who="ann", via="page", why="the vein")
SURVEY = {
    "width_um": 24,
    "height_um": 24,
    "step_um": 1,
    "dwell_ms": 20,
    "find": "K",
    "x_center_um": 0,
    "y_center_um": 0,
    "max_regions": 3,
    "approval_timeout_s": 300.0,
}


def starts(folder: Path, survey_uid: str, purpose: str) -> list[dict[str, Any]]:
    found = [next(documents(path))[1] for path in folder.glob("*.jsonl")]
    mine = [start for start in found if start.get("survey_uid") == survey_uid]
    return [start for start in mine if start["xrf_sr"]["purpose"] == purpose]


def states(folder: ApprovalFolder, uid: str) -> list[str]:
    return [state.disposition for state in folder.regions(uid)]


def run(server: QueueServer, **wishes: Any) -> None:
    kwargs = {**SURVEY, **wishes}
    server.client.item_add({"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": kwargs})
    server.client.queue_start()


def test_a_survey_that_the_manager_runs_waits_for_somebody_elsewhere(queue_server: QueueServer):
    folder = ApprovalFolder()
    known = set(folder.surveys())
    run(queue_server, rescan="ask")
    deadline, uid = time.monotonic() + 300, ""
    while not uid and time.monotonic() < deadline:
        new = [one for one in folder.surveys() if one not in known and folder.waiting(one)]
        uid = new[0] if new else ""
        time.sleep(0.2)
    assert uid
    folder.edit(uid, 1, pad_um=0.5, by=ANN)
    folder.approve(uid, 1, by=ANN)
    folder.deny(uid, by=ANN)
    queue_server.wait_until_idle(300)
    assert states(folder, uid) == ["rescanned", "denied", "denied"]
    [fine] = starts(queue_server.documents, uid, "fine")
    assert fine["xrf_sr"]["region"]["approval"]["who"] == "ann"
    assert len(starts(queue_server.documents, uid, "approvals")) == 1


def test_what_is_approved_later_is_queued_once_by_whoever_sends_it(queue_server: QueueServer):
    folder = ApprovalFolder()
    known = set(folder.surveys())
    run(queue_server, rescan="propose")
    queue_server.wait_until_idle(300)
    [uid] = [one for one in folder.surveys() if one not in known]
    folder.draw(uid, x_low_um=-4, x_high_um=0, y_low_um=-4, y_high_um=0, by=ANN)
    folder.approve(uid, 2, by=ANN)
    folder.deny(uid, 1, by=ANN)
    connect = connect_zmq(queue_server.control_addr, queue_server.info_addr, timeout_s=40.0)

    def send() -> None:
        try:
            send_approved(folder, uid, RescanQueue(connect=connect))
        except RefusedError as error:
            late.append(str(error))

    late: list[str] = []
    rivals = [threading.Thread(target=send) for _ in range(3)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join(200)
    assert states(folder, uid) == ["denied", "queued", "proposed", "queued"]
    assert len(queue_server.client.queue_get(reload=True)["items"]) == 2
    queue_server.client.queue_start()
    queue_server.wait_until_idle(300)
    deadline = time.monotonic() + 60
    while states(folder, uid).count("rescanned") < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert states(folder, uid) == ["denied", "rescanned", "proposed", "rescanned"]
    fine = starts(queue_server.documents, uid, "fine")
    assert len(fine) == 2
    assert {one["xrf_sr"]["region"]["approval"]["via"] for one in fine} == {"page"}
