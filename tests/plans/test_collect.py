"""A collection of pairs: each area's pair is flown once, whatever ends the plan in between."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.plan_support import Interrupting, Recorder, is_safe, pause, small_beamline
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Claimed
from xrf_sr_plans.devices.sim import SimBeamline
from xrf_sr_plans.devices.sim.faults import HungFlyer
from xrf_sr_plans.errors import ConfigError, RefusedError
from xrf_sr_plans.maps.region_documents import regions_from_json
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.resume_collection import resume_collection
from xrf_sr_plans.review.approval_keeper import ApprovalKeeper

AREAS = [{"x_low_um": x, "x_high_um": x + 2, "y_low_um": 0, "y_high_um": 1} for x in (-6, -2, 2)]
HOW = {"fine_step_um": 0.5, "dwell_ms": 10, "order": "coarse first"}
MAPS_OF_PAIR = 2


class Bench:
    """A beamline, its folder of collections, and the documents of all that was flown."""

    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.desk = ApprovalDesk(ApprovalFolder(tmp_path / "approvals"))
        self.beamline: SimBeamline = small_beamline(approvals=self.desk, **changes)
        self.run_engine = RunEngine({}, call_returns_result=True)
        self.recorder = Recorder(self.run_engine)
        self.keeper = ApprovalKeeper(self.desk, lambda documents: None)
        self.run_engine.subscribe(self.keeper)

    @property
    def folder(self) -> ApprovalFolder:
        return self.desk.collections.folder

    def states(self) -> list[str]:
        assert self.desk.flush()
        (uid,) = self.folder.surveys()
        return [state.disposition for state in self.folder.regions(uid)]

    def complete_pairs(self) -> list[float]:
        """Return the lower edge of the area of each complete pair, in the order of flight.

        Rows say whether a map is complete, and not how its run was closed.
        """
        pairs: dict[str, list[dict[str, Any]]] = {}
        for start in self.recorder.map_starts():
            stop = self.recorder.stop_of(start["uid"])
            if stop is not None and self.recorder.builder(start).complete:
                pairs.setdefault(start["pair_uid"], []).append(start)
        whole = [starts for starts in pairs.values() if len(starts) == MAPS_OF_PAIR]
        return [starts[0]["xrf_sr"]["region"]["x_low_um"] for starts in whole]

    def recorded(self) -> list[dict[str, dict[str, Any]]]:
        """Return what each run of a collection tells of the areas, by their lower edge."""
        told = []
        for start in self.recorder.starts:
            if start["xrf_sr"]["purpose"] != "collection":
                continue
            events = [
                event["data"]
                for event in self.recorder.events("regions")
                if self.recorder.run_of(event) == start["uid"]
            ]
            told.append(
                {regions_from_json(f"[{row['region_json']}]")[0].x_low_um: row for row in events}
            )
        return told


def test_every_area_is_flown_once_and_recorded(tmp_path):
    bench = Bench(tmp_path)
    far = {**AREAS[0], "x_low_um": 900, "x_high_um": 902}
    outcomes = bench.run_engine(
        collect_pairs(bench.beamline, [*AREAS, AREAS[0], far], **HOW, md={"sample": "x"})
    ).plan_result
    assert [one.disposition for one in outcomes] == ["rescanned"] * 3 + ["refused"]
    assert bench.complete_pairs() == [-6, -2, 2]
    assert bench.states() == ["rescanned"] * 3 + ["refused"]
    (told,) = bench.recorded()
    assert [row["region_disposition"] for row in told.values()] == bench.states()
    assert "samx" in told[900]["region_reason"]
    assert {row["region_run_uid"] for row in told.values()} == {
        *(one.run_uid for one in outcomes[:3]), "",
    }  # fmt: skip
    starts = bench.recorder.starts
    assert len({start["collection_uid"] for start in starts}) == 1
    assert {start["sample"] for start in starts} == {"x"}
    assert starts[-1]["plan_name"] == "xrf_pair_collection"
    # Only what can't be flown is left of it.
    with pytest.raises(RefusedError, match="samx"):
        bench.run_engine(resume_collection(bench.beamline))


def messages_of(tmp_path: Path) -> int:
    bench = Bench(tmp_path)
    counted = Interrupting(collect_pairs(bench.beamline, AREAS, **HOW), None, pause)
    bench.run_engine(counted)
    return counted.count


@pytest.mark.parametrize("how", ["abort", "stop", "halt"])
@pytest.mark.parametrize("part", [0.02, 0.2, 0.31, 0.5, 0.66, 0.99])
def test_what_an_end_leaves_is_resumed_and_nothing_is_flown_twice(tmp_path, how, part):
    at = int(messages_of(tmp_path / "counted") * part)
    bench = Bench(tmp_path)
    with pytest.raises(RunEngineInterrupted):
        bench.run_engine(Interrupting(collect_pairs(bench.beamline, AREAS, **HOW), at, pause))
    getattr(bench.run_engine, how)()
    if bench.recorder.starts:
        is_safe(bench.beamline)
    before = bench.complete_pairs()
    assert bench.desk.flush()
    if how == "halt" and before and "rescanned" not in bench.states()[len(before) - 1 :][:1]:
        # No plan tells what became of the pair that was halted after its last row.
        before.pop()
    if not bench.folder.surveys():
        assert before == []
        return
    if len(before) < len(AREAS):
        left = preview(resume_collection, bench.beamline)
        assert len(left.maps) == MAPS_OF_PAIR * (len(AREAS) - len(before))
        bench.run_engine(resume_collection(bench.beamline))
    flown = bench.complete_pairs()
    assert sorted(set(flown)) == [-6, -2, 2]
    assert len(flown) == 3 + (how == "halt" and len(flown) > 3)
    assert bench.states() == ["rescanned"] * 3
    if len(before) < len(AREAS):
        last = bench.recorded()[-1]
        assert [row["region_disposition"] for row in last.values()] == ["rescanned"] * 3
    with pytest.raises(RefusedError, match="no collection of pairs has areas that are left"):
        bench.run_engine(resume_collection(bench.beamline))


def test_an_abort_is_recorded_with_what_was_not_begun(tmp_path):
    bench = Bench(tmp_path)
    at = lambda: len(bench.complete_pairs()) == 1  # noqa: E731
    with pytest.raises(RunEngineInterrupted):
        bench.run_engine(Interrupting(collect_pairs(bench.beamline, AREAS, **HOW), at, pause))
    bench.run_engine.abort()
    (told,) = bench.recorded()
    # The pair was complete, although its last map was not put away yet.
    assert told[-6]["region_disposition"] == "rescanned"
    assert "interrupted after its last row: RE.abort" in told[-6]["region_reason"]
    assert told[2]["region_reason"] == "not begun: RE.abort"
    (start,) = (one for one in bench.recorder.starts if one["xrf_sr"]["purpose"] == "collection")
    assert start["xrf_sr"]["ended_by"] == "RE.abort"


@pytest.mark.parametrize(
    ("rows", "disposition", "words"),
    [((1,), "rescanned", "rows [1] of run"), ((0, 1, 2, 3), "failed", "could not be measured")],
)
def test_rows_that_are_lost_are_told_with_their_area(tmp_path, rows, disposition, words):
    area = {**AREAS[0], "y_high_um": 2}
    bench = Bench(tmp_path, faults=[HungFlyer(rows=rows, attempts=None)])
    (one,) = bench.run_engine(
        collect_pairs(bench.beamline, [area], **HOW, row_attempts=1)
    ).plan_result
    assert one.disposition == disposition
    assert words in one.reason
    assert bench.states() == [disposition]
    # What failed is left, with how it failed, and what lacks a row is a pair all the same.
    assert len(bench.recorded()[0]) == 1


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[2:]
from bluesky import RunEngine
from support.plan_support import small_beamline
from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.plans.collect import collect_pairs
desk = ApprovalDesk(ApprovalFolder(sys.argv[1]))
run_engine, fine = RunEngine({}), []
def watch(name, doc):
    if name == "start" and doc["xrf_sr"]["purpose"] == "pair_fine":
        fine.append(doc)
        if len(fine) == 2:
            desk.flush()
            os.kill(os.getpid(), signal.SIGKILL)
run_engine.subscribe(watch)
areas = [{"x_low_um": x, "x_high_um": x + 2, "y_low_um": 0, "y_high_um": 1} for x in (-6, -2, 2)]
run_engine(collect_pairs(small_beamline(approvals=desk), areas, fine_step_um=0.5, dwell_ms=10,
                         order="coarse first"))
"""


@pytest.mark.timeout(120)
def test_a_killed_session_is_resumed_by_the_next_one(tmp_path):
    place = tmp_path / "approvals"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(place), *sys.path], capture_output=True, timeout=100
    )
    assert killed.returncode == -9, killed.stderr.decode()
    bench = Bench(tmp_path)
    outcomes = bench.run_engine(resume_collection(bench.beamline)).plan_result
    assert [one.region.x_low_um for one in outcomes] == [-2, 2]
    assert bench.complete_pairs() == [-2, 2]
    assert bench.states() == ["rescanned"] * 3
    (told,) = bench.recorded()
    assert len(told) == 3


def test_what_another_session_flies_now_is_left_to_it(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(RunEngineInterrupted):
        bench.run_engine(Interrupting(collect_pairs(bench.beamline, AREAS, **HOW), 30, pause))
    bench.run_engine.abort()
    assert bench.desk.flush()
    (uid,) = bench.folder.surveys()
    for state in bench.folder.regions(uid):
        event = Claimed(key=state.key, attempt=state.attempt, by="another", owner="o", pid=1)
        home = bench.folder.folder / uid
        (home / f"claim-{state.key}-{state.attempt}.json").write_text(event.model_dump_json())
    with pytest.raises(RefusedError, match="no collection of pairs has areas"):
        bench.run_engine(resume_collection(bench.beamline))
    with pytest.raises(RefusedError, match="another has it"):
        bench.run_engine(resume_collection(bench.beamline, collection_uid=uid))


def test_the_budget_and_dose_of_a_collection_hold_for_what_is_left(tmp_path):
    bench = Bench(tmp_path)
    whole_s = preview(collect_pairs, bench.beamline, AREAS, **HOW).time_s
    at = lambda: len(bench.complete_pairs()) == 2  # noqa: E731
    plan = collect_pairs(bench.beamline, AREAS, **HOW, budget_s=whole_s * 0.9)
    outcomes = bench.run_engine(plan).plan_result
    assert [one.disposition for one in outcomes] == ["rescanned", "rescanned", "refused"]
    assert bench.desk.flush()
    assert at()
    seen = preview(resume_collection, bench.beamline)
    assert "budget_s" in seen.problems[0]
    assert bench.run_engine(resume_collection(bench.beamline, budget_s=whole_s)).plan_result
    assert bench.states() == ["rescanned"] * 3


def test_what_was_flown_in_vain_counts_as_dose(tmp_path):
    bench = Bench(tmp_path)
    dose = preview(collect_pairs, bench.beamline, AREAS, **HOW).dose
    plan = collect_pairs(bench.beamline, AREAS[:1], **HOW, max_dose=1.5 * dose)
    at = lambda: len(bench.recorder.map_starts()) == 2  # noqa: E731
    with pytest.raises(RunEngineInterrupted):
        bench.run_engine(Interrupting(plan, at, pause))
    bench.run_engine.abort()
    assert bench.desk.flush()
    seen = preview(resume_collection, bench.beamline)
    assert "with what was flown in vain, 1 times" in seen.problems[0]
    assert preview(resume_collection, bench.beamline, max_dose=2.1 * dose).allowed


def test_without_approvals_pairs_are_flown_and_cannot_be_resumed():
    beamline = replace(small_beamline(), approvals=None)
    run_engine = RunEngine({}, call_returns_result=True)
    outcomes = run_engine(collect_pairs(beamline, AREAS[:1], **HOW)).plan_result
    assert [one.disposition for one in outcomes] == ["rescanned"]
    with pytest.raises(ConfigError, match="no collection was written down"):
        run_engine(bind_plans(beamline)["resume_collection"]())


def test_an_area_is_refused_where_another_axis_was_moved_since_it_was_found(tmp_path):
    bench = Bench(tmp_path)
    area = {**AREAS[0], "stage": {"theta": 30.0}}
    with pytest.raises(RefusedError, match="surveyed at theta 30"):
        bench.run_engine(collect_pairs(bench.beamline, [area], **HOW))


def test_a_collection_that_nobody_began_is_no_collection(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(RefusedError, match="there is no collection 'x'"):
        bench.run_engine(resume_collection(bench.beamline, collection_uid="x"))
    assert os.listdir(tmp_path) in ([], ["approvals"])
