"""What became of each region, read back from documents, also where no outcome was recorded."""

from __future__ import annotations

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Interrupting, Recorder, pause, small_beamline, small_survey
from xrf_sr_plans.devices.sim.faults import HungFlyer
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.plans.rescan import rescan_regions
from xrf_sr_plans.review.record import read_survey
from xrf_sr_plans.schema import kind_of_run

FIRST, SECOND = (-4.0, -2.0, -1.5, 0.5), (2.0, 3.0, -1.0, 1.0)


@pytest.fixture
def run_engine():
    return RunEngine({}, call_returns_result=True)


@pytest.fixture
def recorder(run_engine):
    return Recorder(run_engine)


def what_became(recorder: Recorder) -> list[tuple[str, str, str]]:
    """Return disposition, reason and run uid of each region."""
    rows = read_survey(recorder.docs).regions
    return [(row["disposition"], row["reason"], row["run_uid"]) for row in rows]


def rescan_again(recorder: Recorder, beamline, which: int, **changes):
    """Fly one of the regions that a survey proposed, as somebody does later on."""
    record = read_survey(recorder.docs)
    survey_uid = recorder.starts[0]["xrf_sr"]["survey_uid"]
    request = {"fine_step_um": 0.5, "dwell_ms": 10, "survey_uid": survey_uid, **changes}
    return rescan_regions(beamline, [dict(record.regions[which]["region"])], **request)


def test_after_a_halt_the_fine_maps_say_what_became_of_their_regions(run_engine, recorder):
    survey = small_survey(small_beamline([[FIRST, SECOND]]), tile_um=None)
    # In the second of the two fine maps: 3 coarse rows, 4 fine ones, and 1 of 4 more.
    interrupted = Interrupting(survey, lambda: len(recorder.events("primary")) == 8, pause)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(interrupted))
    run_engine.halt()
    assert [start["xrf_sr"]["purpose"] for start in recorder.starts] == [
        "coarse", "proposals", "fine", "fine",
    ]  # fmt: skip
    fine = [start["uid"] for start in recorder.starts[2:]]
    assert what_became(recorder) == [
        ("rescanned", "Fe stands out", fine[0]),
        ("failed", "interrupted after 1 of 4 rows: abort", fine[1]),
    ]


def test_after_a_halt_before_any_fine_map_the_regions_are_no_more_than_proposed(
    run_engine, recorder
):
    survey = small_survey(small_beamline([[FIRST]]), tile_um=None)
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(survey, lambda: recorder.events("regions"), pause)))
    run_engine.halt()
    assert what_became(recorder) == [("proposed", "Fe stands out", "")]


def test_a_proposed_region_that_is_flown_later_on_is_rescanned(run_engine, recorder):
    beamline = small_beamline([[FIRST, SECOND]])
    run_engine(small_survey(beamline, tile_um=None, rescan="propose"))
    run_engine(rescan_again(recorder, beamline, 1))
    assert what_became(recorder) == [
        ("proposed", "Fe stands out", ""),
        ("rescanned", "Fe stands out", recorder.starts[-1]["uid"]),
    ]


@pytest.mark.parametrize("ending", ["stop", "abort", "halt"])
def test_a_proposed_region_whose_later_map_was_ended_by_hand_failed(run_engine, recorder, ending):
    beamline = small_beamline([[FIRST]])
    run_engine(small_survey(beamline, tile_um=None, rescan="propose"))
    rows = len(recorder.events("primary"))
    plan = rescan_again(recorder, beamline, 0)
    with pytest.raises(RunEngineInterrupted):
        run_engine(
            iter(Interrupting(plan, lambda: len(recorder.events("primary")) == rows + 2, pause))
        )
    getattr(run_engine, ending)()
    # RE.stop calls an incomplete run a success.
    status = "success" if ending == "stop" else "abort"
    assert what_became(recorder) == [
        ("failed", f"interrupted after 2 of 4 rows: {status}", recorder.starts[-1]["uid"])
    ]


def test_a_region_whose_rescan_failed_is_made_good_by_a_later_one(run_engine, recorder):
    beamline = small_beamline([[FIRST]], faults=[HungFlyer(maps=(1,), attempts=None)])
    run_engine(small_survey(beamline, tile_um=None, row_attempts=1))
    ((disposition, reason, first_uid),) = what_became(recorder)
    assert disposition == "failed"
    run_engine(rescan_again(recorder, small_beamline(), 0))
    (again,) = what_became(recorder)
    assert again[0] == "rescanned"
    assert again[1] == f"flown later on; before that: {reason}"
    assert again[2] not in ("", first_uid)


def test_rows_that_a_later_rescan_lost_are_named(run_engine, recorder):
    run_engine(small_survey(small_beamline([[FIRST]]), tile_um=None, rescan="propose"))
    broken = small_beamline(faults=[HungFlyer(rows=(2,), attempts=None)])
    run_engine(rescan_again(recorder, broken, 0, row_attempts=1))
    ((disposition, reason, _),) = what_became(recorder)
    assert (disposition, reason) == ("rescanned", "rows [2] lost")


def test_a_record_of_decisions_without_a_time_is_told_by_its_uid(run_engine, recorder):
    run_engine(small_survey(small_beamline()))
    damaged = [
        (name, {key: value for key, value in doc.items() if key != "time"})
        if name == "start" and kind_of_run(doc) == "proposals"
        else (name, doc)
        for name, doc in recorder.docs
    ]
    (uid,) = (
        doc["uid"] for name, doc in damaged if name == "start" and kind_of_run(doc) == "proposals"
    )
    with pytest.raises(AssemblyError, match=f"run {uid}.*time"):
        read_survey(damaged)
