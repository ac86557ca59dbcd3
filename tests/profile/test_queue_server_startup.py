"""The shipped profile, loaded as the queue server's manager loads a startup folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.binding import bind_plans

STARTUP = Path(__file__).resolve().parents[2] / "profile_collection" / "startup"


@pytest.mark.timeout(120)
def test_the_manager_finds_the_plans_and_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    manager = pytest.importorskip("bluesky_queueserver.manager.profile_ops")
    monkeypatch.setenv("XRF_SIM_CLOCK", "instant")
    # It runs the files with a stand-in for IPython's shell that has next to no methods.
    names = manager.load_profile_collection(str(STARTUP), patch_profiles=True)
    try:
        plans = manager.plans_from_nspace(names)
        assert set(bind_plans(make_beamline())) <= set(plans)
        assert {"samx", "samy", "xrf", "shutter"} <= set(manager.devices_from_nspace(names))
    finally:
        names["xrf_session"].close()
