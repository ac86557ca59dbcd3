from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bluesky import RunEngine

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.config import AnalysisSettings, PageSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.session import start_session

SURVEY = {
    "width_um": 40,
    "height_um": 24,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 10,
    "y_center_um": 0,
    "find": "K",
    "max_regions": 3,
    "analysis_timeout_s": 600,
    "rescan": "propose",
}


@pytest.fixture(scope="session")
def proposed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a survey whose regions wait for approval."""
    root = tmp_path_factory.mktemp("watched")
    with start_session(
        RunEngine({}),
        make_beamline(),
        settings=AnalysisSettings(),
        in_process=True,
        approvals=str(root / "approvals"),
        page=PageSettings(surveys=str(root / "surveys")),
    ) as session:
        assert session.run_engine is not None
        plan = session.plans["coarse_survey_with_sr"]
        session.run_engine(plan(**SURVEY), sample="<i>leaf</i>")
        assert session.link.flush(60)
    return root


@pytest.fixture
def root(proposed: Path, tmp_path: Path) -> Path:
    """Return a copy of that folder, in which a test may decide what it likes."""
    shutil.copytree(proposed, tmp_path / "root")
    return tmp_path / "root"


@pytest.fixture
def approvals(root: Path) -> ApprovalFolder:
    return ApprovalFolder(root / "approvals")


@pytest.fixture
def uid(approvals: ApprovalFolder) -> str:
    (uid,) = approvals.surveys()
    return uid
