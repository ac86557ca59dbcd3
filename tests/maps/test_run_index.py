"""Every document is told its run by one index: for the analysis, the stores and the review."""

from __future__ import annotations

import pytest

from xrf_sr_plans.maps.run_index import MAX_OPEN_RUNS, RunIndex, wants_analysis

ASKING = {"xrf_sr": {"analysis": {}}}


def started(uid: str = "r", **facts: object) -> RunIndex:
    index = RunIndex()
    assert index.run_of("start", {"uid": uid, **facts}) == uid
    assert index.run_of("descriptor", {"uid": "d", "run_start": uid}) == uid
    return index


def test_events_and_external_assets_belong_to_their_run() -> None:
    index = started()
    assert index.run_of("event", {"uid": "e", "descriptor": "d"}) == "r"
    assert index.run_of("event_page", {"uid": ["e"], "descriptor": "d"}) == "r"
    assert index.run_of("stream_resource", {"uid": "s", "run_start": "r"}) == "r"
    assert index.run_of("stream_datum", {"stream_resource": "s", "descriptor": "d"}) == "r"
    assert index.run_of("resource", {"uid": "f", "run_start": "r"}) == "r"
    assert index.run_of("datum", {"resource": "f"}) == "r"
    assert index.run_of("datum_page", {"resource": "f"}) == "r"
    assert index.open_runs == ["r"]


def test_a_run_is_forgotten_at_its_stop_and_others_are_not() -> None:
    index = started()
    assert index.run_of("start", {"uid": "other"}) == "other"
    assert index.run_of("stop", {"run_start": "r"}) == "r"
    assert index.run_of("event", {"descriptor": "d"}) is None
    assert index.open_runs == ["other"]


def test_documents_that_nobody_started_belong_to_no_run() -> None:
    index = started()
    for name in ("descriptor", "event", "event_page", "datum", "stop", "bulk_datum", "new kind"):
        assert index.run_of(name, {}) is None
        assert index.run_of(name, {"run_start": "x", "descriptor": "x", "resource": "x"}) is None


@pytest.mark.parametrize(
    ("start", "wanted"),
    [({}, False), ({"xrf_sr": None}, False), ({"xrf_sr": {"analysis": None}}, False),
     (ASKING, True)],
)  # fmt: skip
def test_only_wanted_runs_are_followed(start: dict[str, object], wanted: bool) -> None:
    index = RunIndex(wants_analysis)
    assert index.run_of("start", {"uid": "r", **start}) == ("r" if wanted else None)
    assert index.run_of("stop", {"run_start": "r"}) == ("r" if wanted else None)


def test_runs_that_never_stop_do_not_pile_up_where_there_is_a_limit() -> None:
    limited, unlimited = RunIndex(most_open=MAX_OPEN_RUNS), RunIndex()
    for number in range(10 * MAX_OPEN_RUNS):
        for index in (limited, unlimited):
            index.run_of("start", {"uid": f"run {number}"})
    assert len(limited.open_runs) == MAX_OPEN_RUNS
    assert limited.run_of("stop", {"run_start": "run 0"}) is None
    assert unlimited.run_of("stop", {"run_start": "run 0"}) == "run 0"
