"""The survey just flown, as listed and drawn at the prompt."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.session import Session, start_session

SURVEY = {
    "width_um": 24,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 10,
    "y_center_um": 0,
    "find": "K",
    "max_regions": 2,
}


@pytest.fixture
def latest_and_session(request: pytest.FixtureRequest):
    run_engine = RunEngine({})
    latest = LatestSurvey()
    run_engine.subscribe(latest)
    settings = AnalysisSettings(model=getattr(request, "param", None))
    beamline = make_beamline()
    with start_session(
        run_engine, beamline, settings=settings, in_process=True, result_sinks=[latest]
    ) as session:
        yield latest, session


def fly(session: Session, **changed: object) -> None:
    session.run_engine(session.plans["coarse_survey_with_sr"](**{**SURVEY, **changed}))
    assert session.link.flush(30)


def test_the_regions_of_a_survey_are_listed_and_it_is_drawn(latest_and_session, tmp_path: Path):
    latest, session = latest_and_session
    fly(session)
    assert "1. K x" in str(latest)
    assert "rescanned: " in str(latest)
    assert "matches of 'K' expected" in str(latest)
    assert "expected targets lie in the regions" in str(latest)
    picture = latest.picture(tmp_path / "survey.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_forecasts_say_which_map_they_are_of_and_need_regions(latest_and_session):
    latest, session = latest_and_session
    fly(session, rescan="propose", tile_um=12, x_center_um=8)
    runs = {uid: kind_of_run(doc) for uid, name, doc in latest._documents if name == "start"}

    def without(*kinds: str) -> str:
        """Return what is listed of the survey without some of its runs."""
        again = LatestSurvey()
        for uid, name, doc in latest._documents:
            if runs[uid] not in kinds:
                again(name, doc)
        return str(again)

    assert str(latest).count("expected targets") == 1
    # Where there was no choice among all tiles, each of them has its own.
    assert "map 2 of 4: " in without("choice")
    # As after an abort during the choice.
    assert "0 regions" in without("proposals", "outcomes")
    assert "expected targets" not in without("proposals", "outcomes")


def test_a_survey_is_taken_home_as_one_map(latest_and_session, tmp_path: Path):
    latest, session = latest_and_session
    fly(session)
    record = latest.record
    (made,) = record.composites.values()
    composite = latest.composite()
    assert composite is not made  # A new record was read, with the same map in it.
    np.testing.assert_array_equal(composite.value.values, made.value.values)
    assert composite.rescan_uids == list(record.fine)
    assert composite.measured.values.any()
    # Without the run of the analysis, as where it died, the record makes the same map.
    again = replace(record, composites={}).composite()
    for name in ("value", "sigma"):
        np.testing.assert_allclose(
            again.dataset[name].values, made.dataset[name].values, rtol=1e-5, atol=1e-5
        )
    np.testing.assert_array_equal(again.source.values, made.source.values)
    assert again.placements == made.placements
    path = latest.export(tmp_path / "survey.h5")
    with h5py.File(path) as file:
        entry = file[file.attrs["default"]]
        plot = entry[entry.attrs["default"]]
        np.testing.assert_array_equal(plot[plot.attrs["signal"]][:], made.value.values[0])
        group = entry["composite"]
        assert group.attrs["NX_class"] == "NXdata"
        assert list(group.attrs["axes"]) == ["element_index", "y", "x"]
        signal = group[group.attrs["signal"]]
        assert signal.attrs["units"] == "photons"
        np.testing.assert_array_equal(signal[:], made.value.values)
        np.testing.assert_array_equal(group["value_errors"][:], made.sigma.values)
        np.testing.assert_array_equal(group["measured"][:], made.measured.values)
        np.testing.assert_allclose(group["x"][:], made.grid.fast.centers_um)
        assert group["x"].attrs["units"] == "um"
        assert [uid.decode() for uid in group["rescan_uids"]] == composite.rescan_uids
        assert json.loads(group.attrs["attributes_json"])["placements"]
        verified = {uid.decode() for uid in entry["verification/fine_uid"]}
        assert verified == set(composite.rescan_uids)
        assert np.isfinite(entry["verification/coverage_90"][:]).all()


def test_a_fine_map_that_comes_later_is_in_the_map_too(latest_and_session):
    latest, session = latest_and_session
    fly(session, rescan="propose")
    before = latest.composite()
    assert not before.measured.values.any()
    regions = [dict(row["region"]) for row in latest.record.regions]
    survey_uid = before.dataset.attrs["survey_uid"]
    rescans = session.plans["rescan_regions"]
    session.run_engine(rescans(regions, fine_step_um=1, dwell_ms=10, survey_uid=survey_uid))
    assert session.link.flush(30)
    record = latest.record
    # Only the newest composite map is kept.
    assert [len(one.rescan_uids) for one in record.composites.values()] == [len(regions)]
    assert latest.composite().rescan_uids == list(record.fine)
    assert latest.composite().measured.values.any()


def test_a_fine_map_of_an_earlier_survey_leaves_the_latest_one_as_it_is(latest_and_session):
    latest, session = latest_and_session
    fly(session, rescan="propose")
    regions = [dict(row["region"]) for row in latest.record.regions][:1]
    earlier = latest.composite().dataset.attrs["survey_uid"]
    fly(session, rescan="propose")
    before, listed = set(latest.record.coarse), str(latest)
    rescans = session.plans["rescan_regions"]
    session.run_engine(rescans(regions, fine_step_um=1, dwell_ms=10, survey_uid=earlier))
    assert session.link.flush(30)
    assert set(latest.record.coarse) == before
    assert not latest.record.fine
    assert str(latest) == listed


def test_while_rows_come_in_the_preview_is_drawn_and_the_result_replaces_it(tmp_path: Path):
    run_engine, latest, seen = RunEngine({}), LatestSurvey(), []

    def look(name: str, doc: dict) -> None:
        if name == "stop" and doc["run_start"] in latest.record.enhanced:
            record = latest.record
            seen.append(record.enhanced[doc["run_start"]])
            latest.picture(tmp_path / "preview.png")

    run_engine.subscribe(latest)
    run_engine.subscribe(look)
    settings = AnalysisSettings(model="bicubic-please")
    # In real time: a preview is only made where it delays nothing.
    beamline = make_beamline(clock=4.0)
    with start_session(
        run_engine, beamline, settings=settings, in_process=True, result_sinks=[latest]
    ) as session:
        fly(session, preview_every_rows=2, rescan="propose")
    assert (tmp_path / "preview.png").exists()
    assert seen[0].dataset.attrs["complete"] is False
    (final,) = latest.record.enhanced.values()
    assert final.dataset.attrs["complete"] is True
    previews = [doc for _, name, doc in latest._documents if doc.get("purpose") == "preview"]
    assert len(previews) <= 1


def test_only_the_latest_survey_is_kept_and_other_maps_are_not_part_of_it(latest_and_session):
    latest, session = latest_and_session
    fly(session)
    first = set(latest.record.coarse)
    fly(session, rescan="propose")
    session.run_engine(session.plans["xrf_map"](width_um=4, height_um=4, step_um=1, dwell_ms=5))
    record = latest.record
    assert len(record.coarse) == 1
    assert not first & set(record.coarse)
    assert not record.fine
    assert {row["disposition"] for row in record.regions} == {"proposed"}


def test_before_any_survey_it_says_so(tmp_path: Path):
    assert "no survey" in str(LatestSurvey())
    with pytest.raises(RefusedError, match="no survey was flown"):
        LatestSurvey().picture(tmp_path / "survey.png")
    with pytest.raises(RefusedError, match="no survey was flown"):
        LatestSurvey().export(tmp_path / "survey.h5")


def test_documents_that_make_no_sense_reach_nobody(caplog: pytest.LogCaptureFixture):
    latest = LatestSurvey()
    # Nothing of ours.
    latest("start", {"uid": "u", "xrf_sr": 3})
    assert not caplog.text
    # A map of ours, but for its uid.
    latest("start", {"xrf_sr": {"purpose": "coarse", "survey_uid": "s", "grid": {}}})
    assert "no usable uid" in caplog.text


@pytest.mark.parametrize("latest_and_session", ["no-such-model"], indirect=True)
def test_a_survey_without_its_model_says_so_at_the_prompt(latest_and_session, caplog):
    latest, session = latest_and_session
    caplog.set_level(logging.INFO, logger="xrf_sr_plans")
    fly(session, rescan="propose")
    assert "no-such-model" in str(latest)
    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert any("fallback ModelError" in message for message in warnings)
    assert "matches of 'K' expected" in caplog.text


@pytest.mark.parametrize(
    ("in_process", "tile_um", "maps"), [(True, None, 1), (False, None, 1), (True, 30, 4)]
)
def test_why_a_map_is_bicubic_is_told_once_per_map_and_not_by_its_regions(
    caplog: pytest.LogCaptureFixture, in_process: bool, tile_um: float | None, maps: int
):
    run_engine, latest = RunEngine({}, call_returns_result=True), LatestSurvey()
    run_engine.subscribe(latest)
    # As the profile shows logs at the prompt.
    caplog.set_level(logging.WARNING)
    caplog.set_level(logging.INFO, logger="xrf_sr_plans.plans")
    area = {"width_um": 60, "height_um": 40, "x_center_um": 0, "tile_um": tile_um}
    with start_session(
        run_engine,
        make_beamline(),
        settings=AnalysisSettings(model="no-such-model"),
        in_process=in_process,
        result_sinks=[latest],
    ) as session:
        survey = session.plans["coarse_survey_with_sr"]
        outcome = run_engine(survey(**{**SURVEY, **area})).plan_result
        assert session.link.flush(30)
    assert [one.status for one in outcome.analyses] == ["fallback"] * maps
    assert len(outcome.regions) >= 2
    reason = outcome.analyses[0].reason
    assert reason.startswith("ModelError: model 'no-such-model'")
    # Each map warns once, when its analysis comes in.
    assert caplog.text.count(reason) == caplog.text.count("no-such-model'") == maps
    # Its regions are told of twice, as proposed and as rescanned.
    assert caplog.text.count("from the bicubic map") == 2 * len(outcome.regions)
    assert not any("no-such-model" in one.reason for one in outcome.regions)
    # The list tells it once for all maps.
    assert str(latest).count("no-such-model'") == 1
    why, _, _ = reason.partition("; ")
    assert f"{maps} of {maps} enhanced maps bicubic only, no model: {why}" in str(latest)
    assert "trusted" not in caplog.text + str(latest)
