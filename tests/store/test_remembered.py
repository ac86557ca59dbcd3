"""Surveys are listed and looked at after a restart, from a catalog or from files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.review import remembered
from xrf_sr_plans.review.remembered import Remembered
from xrf_sr_plans.session import Session, start_session
from xrf_sr_plans.store.run_store import RunStore

pytestmark = pytest.mark.timeout(400)
SURVEY = {
    "width_um": 36,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "budget_s": 20,
    "analysis_timeout_s": 200,
}


def session_in(folder: Path, where: str) -> Session:
    return start_session(
        RunEngine({}, call_returns_result=True),
        make_beamline("grains"),
        settings=AnalysisSettings(threads=1),
        in_process=True,
        approvals=str(folder / "approvals"),
        store=where,
        console=True,
    )


@pytest.mark.parametrize("kind", ["jsonl", "catalog"])
def test_surveys_are_listed_and_drawn_after_a_restart(tmp_path, kind):
    if kind == "catalog":
        pytest.importorskip("tiled.server.app")
    where = f"jsonl:{tmp_path / 'runs'}" if kind == "jsonl" else str(tmp_path / "runs")
    with session_in(tmp_path, where) as session:
        plan = session.plans["coarse_survey_with_sr"]
        session.run_engine(plan(**SURVEY, md={"sample": "slice 7"}))
        first = str(session.console.latest)
        session.run_engine(plan(**SURVEY, rescan="propose", find="Si", md={"sample": "b"}))
        session.names["approve"]()
        session.run_engine(session.names["rescan_approved"]())
        latest = str(session.console.latest)
    with session_in(tmp_path, where) as session:
        table = session.names["surveys"]()
        assert [one.sample for one in table] == ["slice 7", "b"]
        assert table[1].query == "Si"
        assert table[0].fine_maps == table[0].regions["rescanned"] > 0
        assert set(table[1].regions) == {"rescanned"}
        assert "inside the 90 % interval" in table[0].verdict
        lines = str(table).splitlines()
        assert lines[0].split()[0] == "-2"
        assert "slice 7" in lines[0]
        before, last = session.names["survey"](-2), session.names["survey"](-1)
        assert str(before) == first
        assert str(last) == latest
        assert before.picture(tmp_path / "before.png").stat().st_size > 10_000
        assert before.composite().measured.values.any()
        assert before.export(tmp_path / "before.h5").exists()
        with pytest.raises(RefusedError, match="there is -1 to -2"):
            session.names["survey"](-3)
        with pytest.raises(RefusedError, match="no survey is kept"):
            session.names["survey"]("zz")


def test_where_nothing_is_kept_that_is_said(tmp_path):
    with pytest.raises(RefusedError, match="no surveys are kept"):
        Remembered(None).surveys()
    assert str(Remembered(RunStore(f"jsonl:{tmp_path}")).surveys()) == "no survey is kept"


@dataclass
class HalfStored:
    """A store whose catalog has taken nothing yet."""

    backup: Path
    catalog: Any
    where: str = "here"

    def flush(self, timeout_s: float) -> bool:
        return False


def test_a_survey_that_the_catalog_takes_while_it_is_read_is_read_whole(
    tmp_path, catalog, monkeypatch
):
    from xrf_sr_plans.store.tiled import reingest

    with session_in(tmp_path, f"jsonl:{tmp_path / 'runs'}") as session:
        session.run_engine(session.plans["coarse_survey_with_sr"](**SURVEY))
        latest = str(session.console.latest)
    kept = Remembered(HalfStored(tmp_path / "runs", catalog))
    read_back, looks = remembered.read_back, []

    def taken_meanwhile(stored):
        looks.append(stored)
        if len(looks) == 1:
            assert not reingest(catalog, tmp_path / "runs").failed
            assert not list((tmp_path / "runs").iterdir())
        return read_back(stored)

    monkeypatch.setattr(remembered, "read_back", taken_meanwhile)
    assert str(kept.survey(-1)) == latest
    assert len(looks) == 2
    assert len(kept.surveys()) == 1
