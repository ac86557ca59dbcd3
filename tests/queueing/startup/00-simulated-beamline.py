"""What a RE Manager of a beamline loads: RunEngine, devices, bound plans (used by the tests)."""

import os

from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings, PageSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.queueing.client import connect_zmq
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.jsonl import JsonlWriter

RE = RunEngine({})
rescan_queue = RescanQueue(
    connect=connect_zmq(os.environ["TEST_CONTROL_ADDR"], os.environ["TEST_INFO_ADDR"])
)
clock = os.environ.get("TEST_CLOCK", "instant")
beamline = make_beamline("zagami", rescan_queue=rescan_queue, clock=clock)
session = start_session(
    RE,
    beamline,
    settings=AnalysisSettings(),
    in_process=True,
    page=PageSettings(surveys=os.environ["TEST_SURVEYS"]),
)
samx, samy = beamline.fast, beamline.slow
RE.subscribe(JsonlWriter(os.environ["TEST_DOCUMENTS"]))
globals().update(session.plans)
