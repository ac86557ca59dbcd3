"""A fine stage that isn't where it is said to be: measured from the overlap, told, allowed for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder
from xrf_sr_plans.composite.compose import FineMap, compose
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import SimFineStage, make_beamline
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.metrics.agreement import compare
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.ledger import Entry
from xrf_sr_plans.store.verdict import stage_offset

SURVEY = {
    "width_um": 60,
    "height_um": 50,
    "step_um": 1,
    "dwell_ms": 20,
    "x_center_um": 0,
    "y_center_um": 0,
    "find": "Fe > p90",
    "min_size_um": 10,
    "max_regions": 4,
}


def flown(fine_stage, offset_um=(0.0, 0.0)):
    """Fly a survey with its rescans; return a recorder of the runs, and the results."""
    run_engine = RunEngine({}, call_returns_result=True)
    recorder, results = Recorder(run_engine), []
    beamline = make_beamline(fine_stage=fine_stage, flux_ph_s=None)
    if beamline.fine is not None:
        beamline = replace(beamline, fine=replace(beamline.fine, offset_um=offset_um))
    with start_session(
        run_engine,
        beamline,
        settings=AnalysisSettings(threads=1),
        in_process=True,
        result_sinks=[lambda name, doc: results.append((name, doc))],
    ) as session:
        run_engine(session.plans["coarse_survey_with_sr"](**SURVEY))
        assert session.link.flush(100)
    return recorder, results


def verified(results):
    """Return start documents and rows of the verification runs."""
    starts = [doc for _, doc in results if doc.get("plan_name") == "xrf_verification"]
    rows = [doc["data"] for name, doc in results if name == "event" and "bias" in doc["data"]]
    return starts, rows


@pytest.fixture(scope="module")
def off():
    return flown(SimFineStage(sign=(-1, 1), offset_error_um=(0.6, -0.4)))


@pytest.mark.timeout(240)
def test_an_offset_between_the_stages_is_measured_and_told(off):
    starts, _ = verified(off[1])
    assert len(starts) >= 3
    told = 0
    for start in starts:
        offset = start["offset"]
        if offset["problem"]:
            continue
        told += 1
        assert offset["dx_um"] == pytest.approx(0.6, abs=4 * offset["error_x_um"])
        assert offset["dy_um"] == pytest.approx(-0.4, abs=4 * offset["error_y_um"])
        assert "the fine stage was 0." in start["notes"][0]
        assert "towards higher samx" in start["notes"][0]
        assert "towards lower samy" in start["notes"][0]
    assert told >= 3
    assert "add that to its offset_um" in starts[-1]["notes"][-1]
    assert "fine maps of this survey the fine stage was off by +0." in starts[-1]["notes"][-1]


@pytest.mark.timeout(240)
def test_regions_carry_where_the_other_axes_were(off):
    recorder, results = off
    regions = [doc["data"] for _, doc in results if "predicted_sigma" in doc.get("data", {})]
    assert len(regions) == 4
    assert {row["stage"] for row in regions} == {'{"finex": 0.0, "finey": 0.0}'}
    for start in recorder.map_starts()[1:]:
        assert set(start["xrf_sr"]["region"]["stage"]) == {"finex", "finey", "samx", "samy"}


@pytest.mark.timeout(240)
def test_the_offset_is_not_counted_against_the_model(off):
    _, rows = verified(off[1])
    tile, fine = maps_of(*off)
    uncorrected = [
        agreement.psnr_enhanced_db
        for fine_map in fine
        for agreement in compare(tile, fine_map.maps).values()
    ]
    allowed_for = [row["psnr_enhanced_db"] for row in rows]
    assert len(allowed_for) == len(uncorrected)
    assert np.mean(allowed_for) > np.mean(uncorrected) + 0.5


@pytest.mark.timeout(240)
def test_a_fine_stage_that_is_where_it_should_be_is_not_mentioned():
    starts, _ = verified(flown(SimFineStage())[1])
    assert [start["notes"] for start in starts] == [[]] * len(starts)
    assert len(starts) >= 3


@pytest.mark.timeout(240)
def test_an_offset_that_the_beamline_names_is_allowed_for(off):
    fine_stage = SimFineStage(sign=(-1, 1), offset_error_um=(0.6, -0.4))
    starts, _ = verified(flown(fine_stage, offset_um=(0.6, -0.4))[1])
    assert [start["notes"] for start in starts] == [[]] * len(starts)
    assert len(starts) >= 3


@pytest.mark.timeout(240)
def test_the_composite_map_has_the_rescans_where_they_belong(off):
    tile, fine = maps_of(*off)
    placements = compose([tile], fine).dataset.attrs["placements"]
    moved = [(placed["corrected_x_um"], placed["corrected_y_um"]) for placed in placements]
    assert np.median(moved, axis=0) == pytest.approx([0.6, -0.4], abs=0.1)


def maps_of(recorder, results):
    """Return the enhanced tile and the fine maps of a survey."""
    starts = recorder.map_starts()
    tile = enhanced_from_documents(
        [(name, doc) for name, doc in results if _is_of(results, doc, starts[0]["uid"])]
    )
    return tile, [FineMap(start["uid"], recorder.builder(start).maps()) for start in starts[1:]]


def _is_of(results, doc, source_uid):
    (start,) = [
        d
        for n, d in results
        if n == "start"
        and d.get("original_run_uid") == source_uid
        and d["plan_name"] == "xrf_super_resolution"
    ]
    streams = {d["uid"] for n, d in results if n == "descriptor" and d["run_start"] == start["uid"]}
    uids = {doc.get("uid"), doc.get("run_start"), doc.get("descriptor")}
    return bool(uids & {start["uid"], *streams})


def entry(number: int, dx_um: float | None, stage: str = "finex", survey_uid: str = "s") -> Entry:
    return Entry(
        time=1e9 + number,
        fine_uid=f"fine-{number}",
        parent_uid="coarse",
        survey_uid=survey_uid,
        element="Fe",
        factor=2,
        model="m",
        model_sha256="",
        calibration="",
        pixels=100,
        effective_pixels=20.0,
        coverage_90=0.9,
        psnr_enhanced_db=30.0,
        psnr_baseline_db=28.0,
        bias=0.0,
        stage=stage,
        dx_um=dx_um,
        dy_um=None if dx_um is None else 0.01,
    )


def test_only_maps_of_one_survey_and_stage_that_agree_make_a_constant_offset():
    off = [entry(n, dx) for n, dx in enumerate((0.5, 0.6, 0.55))]
    found = stage_offset(off)
    assert found is not None
    assert found.dx_um == pytest.approx(0.55)
    assert found.fine_maps == 3
    assert stage_offset(off[:2]) is None
    assert stage_offset([*off[:2], entry(3, None)]) is None
    assert stage_offset([*off, entry(4, 0.5, stage="")]) is None
    assert stage_offset([*off, entry(4, 0.5, survey_uid="other")]) is None
    assert stage_offset([entry(n, dx) for n, dx in enumerate((0.5, -0.6, 0.05))]) is None
    assert stage_offset([entry(n, 0.01) for n in range(3)]) is None
    assert stage_offset([]) is None
