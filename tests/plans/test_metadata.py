"""A user's metadata: what is theirs is kept everywhere, what is the plan's own is refused."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import GOOD_CALLS, Recorder, small_beamline, small_survey
from xrf_sr_plans import schema
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.timing import RowProgress
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.review.record import read_survey
from xrf_sr_plans.session import start_session

OWN_NAMES = ["align_then_survey", schema.PLAN_RESULT, schema.PLAN_VERIFICATION, ""]


def refusal(plan: str, md: Any) -> str:
    """Return why a plan is refused with `md`; fail if it isn't, or if anything has happened."""
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    bound = bind_plans(small_beamline())[plan]
    with pytest.raises(ConfigError) as refused:
        run_engine(bound(**GOOD_CALLS[plan], md=md))
    assert recorder.docs == []
    seen = preview(bound, **GOOD_CALLS[plan], md=md)
    assert "; ".join(seen.problems) == str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("plan", GOOD_CALLS)
@pytest.mark.parametrize("key", sorted(schema.RESERVED_KEYS))
def test_a_key_that_is_the_plans_own_is_refused_by_name(plan: str, key: str) -> None:
    assert refusal(plan, {"sample": "x", key: "y"}) == (
        f"md has {key!r}, which the plan writes itself; other keys are the user's own"
    )


def test_the_start_document_of_another_run_is_refused_with_all_of_its_keys() -> None:
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    run_engine(bind_plans(small_beamline())["xrf_map"](**GOOD_CALLS["xrf_map"]))
    text = refusal("coarse_survey_with_sr", recorder.starts[0])
    for key in ("uid", "time", "xrf_sr", "shape", "hints", "scan"):
        assert repr(key) in text


@pytest.mark.parametrize("plan", GOOD_CALLS)
@pytest.mark.parametrize(
    ("md", "word"),
    [
        ({"proposal.number": 3}, "'proposal.number'"),
        ({"when": datetime.datetime(2026, 1, 1)}, "'when'"),
        ({"tags": {"a", "b"}}, "'tags'"),
        ({"sample": 3}, "'sample'"),
        ({"nested": {"a.b": 1}}, "'nested'"),
        ({"scan_id": "seven"}, "'scan_id'"),
    ],
)
def test_what_can_be_in_no_start_document_is_refused(plan: str, md: Any, word: str) -> None:
    assert word in refusal(plan, md)


@pytest.mark.parametrize("plan", GOOD_CALLS)
def test_metadata_of_ones_own_are_in_every_run(plan: str) -> None:
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    md = {"sample": {"name": "x"}, "survey_name": "mine", "purpose": "preview", "scale": np.ones(2)}
    run_engine(bind_plans(small_beamline())[plan](**GOOD_CALLS[plan], md=md))
    assert recorder.starts
    for start in recorder.starts:
        assert start["sample"] == {"name": "x"}
        assert start["purpose"] == "preview"


@pytest.mark.parametrize("name", OWN_NAMES)
@pytest.mark.parametrize("where", ["md", "RunEngine"])
def test_a_survey_under_another_plan_name_is_read_back_as_under_its_own(
    name: str, where: str
) -> None:
    def survey(**changes: Any) -> list[str]:
        run_engine = RunEngine({})
        recorder, latest = Recorder(run_engine), LatestSurvey()
        lines: list[str] = []
        progress = RowProgress(show=lines.append)
        for callback in (progress, lambda *_: progress.waiting_hook(None), latest):
            run_engine.subscribe(callback)
        given = {"md": changes} if where == "md" and changes else {}
        run_engine(small_survey(small_beamline(), **given), **({} if given else changes))
        record = read_survey(recorder.docs)
        assert len(latest.record.coarse) == len(record.coarse)
        return [
            str(lines),
            str({plan: len(uids) for plan, uids in record.run_uids.items()}),
            *(str(maps.counts.shape) for maps in (*record.coarse.values(), *record.fine.values())),
            *(f"{row['disposition']} {row['reason']}" for row in record.regions),
        ]

    assert survey(plan_name=name) == survey()


def test_the_enhanced_map_of_a_survey_under_another_name_is_seen() -> None:
    run_engine, latest = RunEngine({}), LatestSurvey()
    run_engine.subscribe(latest)
    area = {"x_center_um": 10, "y_center_um": 0, "width_um": 8, "height_um": 6, "step_um": 1}
    with start_session(
        run_engine, make_beamline(), in_process=True, result_sinks=[latest]
    ) as session:
        plan = session.plans["coarse_survey_with_sr"]
        md = {"plan_name": "align_then_survey", "purpose": "preview"}
        run_engine(plan(**area, dwell_ms=10, rescan="propose", preview_every_rows=2, md=md))
    assert len(latest.record.coarse) == len(latest.record.enhanced) == 1


def test_what_a_run_is_follows_from_what_is_in_it() -> None:
    assert schema.kind_of_run({"uid": "a", "plan_name": schema.PLAN_MAP}) == ""
    assert schema.kind_of_run({"uid": "a", "plan_name": "scan", "survey_uid": "x"}) == ""
    assert schema.kind_of_run({"uid": "a", "xrf_sr": {"note": "mine"}}) == ""
    assert schema.kind_of_run({"uid": "a", "xrf_sr": None}) == ""
