"""A survey: tiles, analysis per tile, decisions as documents, rescans now, queued or proposed."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.status import Status

from support.plan_support import (
    QUICK,
    Interrupting,
    Lookup,
    Recorder,
    is_safe,
    pause,
    region,
    small_beamline,
    small_survey,
)
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.faults import HungFlyer
from xrf_sr_plans.errors import FlightError, GridError, RefusedError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.fine_grid import fine_grid
from xrf_sr_plans.plans.rescan import rescan_regions

BOX = (-4.0, -2.0, -1.5, 0.5)


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def dispositions(recorder) -> list[tuple[str, str]]:
    return [
        (event["data"]["region_disposition"], event["data"]["region_reason"])
        for event in recorder.events("regions")
    ]


def test_tiles_rescans_and_summary_are_one_family_of_runs(run_engine, recorder):
    outcome = run_engine(small_survey(small_beamline(), find="Fe")).plan_result
    purposes = [start["xrf_sr"]["purpose"] for start in recorder.starts]
    assert purposes == ["coarse", "coarse", "proposals", "fine", "outcomes"]
    assert {start["xrf_sr"]["survey_uid"] for start in recorder.starts} == {outcome.survey_uid}
    first, second, proposals, fine, outcomes = recorder.starts
    assert outcome.tile_uids == (first["uid"], second["uid"])
    assert outcome.proposals_uid == proposals["uid"]
    assert outcome.outcomes_uid == outcomes["uid"]
    assert outcomes["xrf_sr"]["proposals_uid"] == proposals["uid"]
    assert outcome.rescan_uids == (fine["uid"],)
    assert first["xrf_sr"]["tile"] == {"index": 0, "of": 2, "earlier": []}
    assert second["xrf_sr"]["tile"] == {"index": 1, "of": 2, "earlier": [first["uid"]]}
    assert first["xrf_sr"]["analysis"]["find"] == "Fe"
    assert proposals["plan_name"] == "xrf_survey_proposals"
    assert outcomes["plan_name"] == "xrf_survey_outcomes"
    for decisions in (proposals, outcomes):
        assert decisions["xrf_sr"]["tiles"] == list(outcome.tile_uids)
        assert decisions["xrf_sr"].get("analysis") is None
    assert fine["xrf_sr"]["parent_uid"] == first["uid"]
    assert fine["xrf_sr"]["region"]["x_low_um"] == -4.0
    assert fine["xrf_sr"]["analysis"]["enhance"] is False
    for start in recorder.starts:
        assert recorder.stop_of(start["uid"])["exit_status"] == "success"
        assert json.loads(json.dumps(start, allow_nan=False)) == start


def test_the_decisions_record_each_tiles_analysis_and_every_change_of_a_region(
    run_engine, recorder
):
    outcome = run_engine(small_survey(small_beamline())).plan_result
    looked_at = [event["data"]["analysis_source_uid"] for event in recorder.events("analysis")]
    # The last one is about all tiles as one map.
    assert looked_at == [*outcome.tile_uids, outcome.survey_uid]
    changes = [change for change, _ in dispositions(recorder)]
    assert changes == ["proposed", "rescanned"]
    assert recorder.events("regions")[-1]["data"]["region_run_uid"] == outcome.rescan_uids[0]


def test_fine_pixels_nest_in_the_coarse_ones(run_engine, recorder):
    run_engine(small_survey(small_beamline(), factor=4))
    coarse, _, _, fine, _ = recorder.starts
    edge = ScanGrid.from_dict(coarse["xrf_sr"]["grid"]).fast.low_um
    fine_axis = fine["xrf_sr"]["grid"]["fast"]
    assert fine_axis["step_um"] == 0.25
    assert (fine_axis["start_um"] - 0.125 - edge) / 0.25 == pytest.approx(0.0)
    assert recorder.builder(fine).maps().counts.shape[1:] == (8, 8)


def test_no_region_is_a_normal_outcome(run_engine, recorder):
    outcome = run_engine(small_survey(small_beamline([[]]))).plan_result
    assert outcome.regions == ()
    assert [start["xrf_sr"]["purpose"] for start in recorder.starts][-2:] == [
        "proposals",
        "outcomes",
    ]
    assert {stop["exit_status"] for stop in recorder.of("stop")} == {"success"}


def test_without_an_analysis_device_the_survey_is_flown_and_says_so(run_engine, recorder):
    outcome = run_engine(small_survey(make_beamline(time_model=QUICK))).plan_result
    assert outcome.analyses == ()
    assert recorder.starts[-1]["xrf_sr"]["analysed_by"] == ""


class Silent(Lookup):
    """Never answers; falls back to one region when asked to."""

    def request(self, source_uid: str) -> Future:
        self.asked.append(source_uid)
        return Future()


def test_a_late_analysis_falls_back_and_the_record_says_why(run_engine, recorder):
    device = AnalysisDevice(source=Silent([[BOX]]))
    beamline = make_beamline(analysis=device, time_model=QUICK)
    outcome = run_engine(small_survey(beamline, analysis_timeout_s=0.05, tile_um=None)).plan_result
    assert [one.status for one in outcome.analyses] == ["fallback"]
    assert "no result within" in recorder.events("analysis")[0]["data"]["analysis_reason"]


class Dead:
    """A results device that hangs for ever."""

    name = "dead"
    parent = None
    fallback_timeout_s = -15.0

    def set(self, value: Any) -> Status:
        status = Status()
        status.set_finished()
        return status

    def trigger(self) -> Status:
        return Status()


def test_even_a_results_device_that_hangs_does_not_take_the_survey_along(run_engine, recorder):
    beamline = make_beamline(analysis=Dead(), time_model=QUICK)
    outcome = run_engine(small_survey(beamline, analysis_timeout_s=0.1, tile_um=None)).plan_result
    assert [one.status for one in outcome.analyses] == ["failed"]
    assert {stop["exit_status"] for stop in recorder.of("stop")} == {"success"}


def test_propose_moves_nothing(run_engine, recorder):
    outcome = run_engine(small_survey(small_beamline(), rescan="propose")).plan_result
    assert [one.disposition for one in outcome.regions] == ["proposed"]
    assert len(recorder.map_starts()) == 2


class Sink:
    """A rescan sink that takes the first item only."""

    name = "sink"
    parent = None

    def __init__(self) -> None:
        self.items: list[dict] = []

    def set(self, value: Any) -> Status:
        json.dumps(value, allow_nan=False)
        self.items = value["items"]
        status = Status()
        status.set_finished()
        return status

    def read(self) -> dict:
        answers = [
            {"key": Region.from_dict(item["kwargs"]["regions"][0]).key, "disposition": "queued"}
            for item in self.items[:1]
        ]
        return {"sink_dispositions": {"value": json.dumps(answers), "timestamp": 0.0}}

    def describe(self) -> dict:
        return {"sink_dispositions": {"source": "sink", "dtype": "string", "shape": []}}

    def read_configuration(self) -> dict:
        return {}

    def describe_configuration(self) -> dict:
        return {}


def test_queued_regions_are_handed_over_as_json_plan_calls(run_engine, recorder):
    boxes = [[BOX, (2.0, 3.0, -1.0, 1.0)]]
    sink = Sink()
    beamline = small_beamline(boxes, rescan_queue=sink)
    outcome = run_engine(small_survey(beamline, tile_um=None, rescan="queue")).plan_result
    assert [one.disposition for one in outcome.regions] == ["queued", "failed"]
    assert len(recorder.map_starts()) == 1, "nothing is flown here"
    assert {item["name"] for item in sink.items} == {"rescan_regions"}
    kwargs = sink.items[0]["kwargs"]
    assert kwargs["survey_uid"] == outcome.survey_uid
    assert kwargs["parent_uid"] == outcome.tile_uids[0]
    flown = run_engine(rescan_regions(small_beamline(), **kwargs)).plan_result
    assert [one.disposition for one in flown] == ["rescanned"]


def test_regions_beyond_the_limits_are_shrunk_or_refused_and_the_rest_is_flown(
    run_engine, recorder
):
    boxes = [[BOX, (14.0, 20.0, -1.0, 1.0), (40.0, 44.0, 0.0, 1.0)]]
    beamline = small_beamline(boxes, limits_um=((-20, 20), (-20, 20)))
    outcome = run_engine(small_survey(beamline, tile_um=None)).plan_result
    by_place = {one.region.x_low_um: one for one in outcome.regions}
    assert by_place[-4.0].disposition == "rescanned"
    assert by_place[14.0].disposition == "rescanned"
    assert "shrunk to 14..17.5 um" in by_place[14.0].reason
    assert by_place[40.0].disposition == "refused"
    assert "'samx'" in by_place[40.0].reason
    assert len(recorder.map_starts()) == 3


def test_limits_are_looked_at_again_when_a_region_is_executed(run_engine, recorder):
    beamline = small_beamline([[BOX, (2.0, 3.0, -1.0, 1.0)]])

    def tighten(name, doc):
        if name == "event" and doc["data"].get("region_disposition") == "proposed":
            beamline.fast.axis.limits_um = (-30.0, 0.0)

    run_engine.subscribe(tighten)
    outcome = run_engine(small_survey(beamline, tile_um=None)).plan_result
    found = {one.region.x_low_um: one.disposition for one in outcome.regions}
    assert found == {-4.0: "rescanned", 2.0: "refused"}


def test_a_rescan_that_fails_does_not_take_the_others_along(run_engine, recorder):
    boxes = [[BOX, (2.0, 3.0, -1.0, 1.0)]]
    beamline = small_beamline(boxes, faults=[HungFlyer(maps=(1,), attempts=None)])
    outcome = run_engine(small_survey(beamline, tile_um=None, row_attempts=1)).plan_result
    assert sorted(one.disposition for one in outcome.regions) == ["failed", "rescanned"]
    is_safe(beamline)


@pytest.mark.parametrize("ending", ["abort", "stop"])
def test_the_last_word_on_an_interrupted_rescan_and_on_those_not_begun_is_failed(
    run_engine, recorder, ending
):
    boxes = [[BOX, (2.0, 3.0, -1.0, 1.0)]]
    survey = small_survey(small_beamline(boxes), tile_um=None)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(survey, lambda: len(recorder.events("primary")) == 5, pause)))
    getattr(run_engine, ending)()
    proposed, last = dispositions(recorder)[:2], dispositions(recorder)[2:]
    assert [word for word, _ in proposed] == ["proposed", "proposed"]
    assert last == [
        ("failed", f"interrupted after 2 of 4 rows: RE.{ending}"),
        ("failed", f"not begun: RE.{ending}"),
    ]
    _, proposals, fine, outcomes = recorder.starts
    for decisions in (proposals, outcomes):
        assert recorder.stop_of(decisions["uid"])["num_events"]["regions"] == 2
    assert outcomes["xrf_sr"]["ended_by"] == f"RE.{ending}"
    assert recorder.events("regions")[2]["data"]["region_run_uid"] == fine["uid"]
    assert recorder.builder(fine).rows_used == [0, 1]


def test_a_survey_that_only_proposes_leaves_its_proposals_when_it_is_stopped(run_engine, recorder):
    survey = small_survey(small_beamline(), rescan="propose")
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(survey, lambda: recorder.events("regions"), pause)))
    run_engine.stop()
    assert {word for word, _ in dispositions(recorder)} == {"proposed"}


def test_a_survey_stopped_while_it_hands_over_says_that_it_is_not_known(run_engine, recorder):
    class Slow(Sink):
        def set(self, value: Any) -> Status:
            super().set(value)
            return Status()

    sink = Slow()
    survey = small_survey(small_beamline(rescan_queue=sink), rescan="queue")
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(survey, lambda: sink.items, pause)))
    run_engine.stop()
    assert dispositions(recorder)[-1] == ("failed", "not known to be queued: RE.stop")


def test_an_unforeseen_error_in_a_rescan_is_its_last_word_too(run_engine, recorder):
    beamline = small_beamline([[BOX, (2.0, 3.0, -1.0, 1.0)]])

    def break_it(name, doc):
        if doc.get("xrf_sr", {}).get("purpose") == "fine":
            beamline.flyer.complete = lambda: 1 / 0

    run_engine.subscribe(break_it, "start")
    with pytest.raises(ZeroDivisionError):
        run_engine(small_survey(beamline, tile_um=None))
    assert [reason.split(": ", 1) for _, reason in dispositions(recorder)[2:]] == [
        ["interrupted after 0 of 4 rows", "ZeroDivisionError: division by zero"],
        ["not begun", "ZeroDivisionError: division by zero"],
    ]


def test_the_budget_is_for_everything_and_the_coarse_part_comes_first(run_engine, recorder):
    boxes = [[BOX, (2.0, 3.0, -1.0, 1.0)]]
    # Coarse: 3 rows of 0.28 s. The rescans: 4 rows of 0.24 and of 0.22 s.
    outcome = run_engine(
        small_survey(small_beamline(boxes), tile_um=None, budget_s=2.0)
    ).plan_result
    assert sorted(one.disposition for one in outcome.regions) == ["refused", "rescanned"]
    assert any("left" in reason for _, reason in dispositions(recorder))


def test_coarse_and_fine_dose_add_up(run_engine):
    # Coarse 1e7, fine 4e7 photons/um^2.
    for max_dose, expected in ((4.5e7, "refused"), (5.5e7, "rescanned")):
        outcome = run_engine(small_survey(small_beamline(), max_dose=max_dose)).plan_result
        assert [one.disposition for one in outcome.regions] == [expected]


def test_a_hardware_failure_in_a_tile_ends_the_survey_with_what_it_has(run_engine, recorder):
    beamline = small_beamline(faults=[HungFlyer(maps=(1,), attempts=None)])
    with pytest.raises(FlightError):
        run_engine(small_survey(beamline, row_attempts=1))
    assert [stop["exit_status"] for stop in recorder.of("stop")] == ["success", "fail"]
    is_safe(beamline)


def test_regions_as_json_are_rescanned_with_their_parents_named(run_engine, recorder):
    plain = json.loads(json.dumps(region(*BOX, source_uid="coarse-uid").to_dict()))
    outcomes = run_engine(
        rescan_regions(
            small_beamline(),
            [plain, {"x_low_um": 2, "x_high_um": 4, "y_low_um": 0, "y_high_um": 1}],
            fine_step_um=0.5,
            dwell_ms=10,
            survey_uid="survey-uid",
            parent_uid="typed-uid",
        )
    ).plan_result
    assert {one.disposition for one in outcomes} == {"rescanned"}
    facts = [start["xrf_sr"] for start in recorder.starts]
    assert {one["survey_uid"] for one in facts} == {"survey-uid"}
    assert {one["parent_uid"] for one in facts} == {"coarse-uid", "typed-uid"}
    assert {one["purpose"] for one in facts} == {"fine"}


@pytest.mark.parametrize(
    ("regions", "kind", "word"),
    [
        ([], RefusedError, "none of 0"),
        ([{"x_low_um": 0}], GridError, "not a Region"),
        ([{"x_low_um": 1, "x_high_um": 0, "y_low_um": 0, "y_high_um": 1}], GridError, "below"),
        (
            [{"x_low_um": 900, "x_high_um": 901, "y_low_um": 0, "y_high_um": 1}],
            RefusedError,
            "samx",
        ),
    ],
)
def test_regions_of_which_none_can_be_flown_are_refused(run_engine, recorder, regions, kind, word):
    with pytest.raises(kind, match=word):
        run_engine(rescan_regions(small_beamline(), regions, fine_step_um=0.5, dwell_ms=10))
    assert recorder.docs == []


@pytest.mark.parametrize("low", np.linspace(-25, 25, 11))
@pytest.mark.parametrize("width", [0.3, 1.0, 7.7])
def test_a_fitted_grid_is_always_within_the_limits_and_covers_the_region_where_it_can(low, width):
    beamline = make_beamline(limits_um=((-20, 20), (-20, 20)), run_up_um=1.0)
    wanted = region(low, low + width, 0.0, 2.0)
    try:
        grid = fine_grid(beamline, wanted, fine_step_um=0.5, dwell_ms=10)
    except RefusedError:
        assert min(low + width, 19.0) - max(low, -19.0) < 1.0
        return
    assert grid.fast.low_um >= -19.0 - 1e-9
    assert grid.fast.high_um <= 19.0 + 1e-9
    assert (grid.fast.low_um - low) / 0.5 == pytest.approx(round((grid.fast.low_um - low) / 0.5))
    if low >= -19 and low + width <= 18.5:
        assert grid.fast.low_um <= low
        assert grid.fast.high_um >= low + width - 1e-9
