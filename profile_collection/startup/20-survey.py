"""Start the analysis process, the console, and bind the plans to the beamline."""

import os
from dataclasses import replace

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.run_store import default_place

rescan_queue = RescanQueue(name="rescan_queue")
# Every setting can be given as an environment variable, such as XRF_SR_MODEL, XRF_SR_DEVICE or
# XRF_SR_PAIR_DIR.
xrf_session = start_session(
    RE,
    replace(beamline, rescan_queue=rescan_queue),
    settings=AnalysisSettings.load(os.environ.get("XRF_SR_SETTINGS") or None),
    # Everything is kept: in a folder, or where XRF_SR_STORE says, such as http://host:8000,
    # databroker:NAME or another folder; XRF_SR_STORE=off keeps nothing.
    store=os.environ.get("XRF_SR_STORE") or default_place(),
    # Progress, news and refusals in one line each; preview, approve, latest_survey and others.
    console=True,
)
analysis = xrf_session.analysis
globals().update(xrf_session.names)
