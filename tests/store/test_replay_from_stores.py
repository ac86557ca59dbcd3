from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted

from support.stored_runs import Document, as_events, assert_same_run, databroker_or_skip
from xrf_sr_plans import schema
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.faults import MissingRow, ShortRow
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.jsonl import JsonlWriter

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Survey:
    """A simulated survey: its documents, and the digest of the live analysis of its map."""

    docs: list[Document]
    map_uid: str
    digest: str

    @property
    def map_docs(self) -> list[Document]:
        return [(name, doc) for name, doc in self.docs if self.map_uid in _run_of(doc, self.docs)]


def _run_of(doc: dict[str, Any], docs: list[Document]) -> str:
    owners = {one["uid"]: one["run_start"] for name, one in docs if name == "descriptor"}
    return doc.get("run_start") or owners.get(doc.get("descriptor", ""), "") or doc["uid"]


def _paused_after_collect(plan: Any, number: int) -> Any:
    """Pause once, between the `number`-th collect and its checkpoint: the row is flown again."""
    seen = 0

    def insert(msg: Any) -> tuple[None, Any]:
        nonlocal seen
        seen += msg.command == "collect"
        if msg.command == "collect" and seen == number:
            return None, bps.pause()
        return None, None

    return bpp.plan_mutator(plan, insert)


def survey(*sinks: Callable[[str, dict[str, Any]], Any]) -> Survey:
    """Fly a small survey with a short, a missing and a re-flown row, analysed as it goes."""
    faults = [ShortRow(rows=(2,), frames=9), MissingRow(rows=(5,))]
    docs: list[Document] = []
    engine = RunEngine({})
    with LocalAnalysis() as link:
        device = AnalysisDevice(name="analysis", source=link)
        beamline = replace(make_beamline("zagami", faults=faults), analysis=device)
        for sink in (lambda name, doc: docs.append((name, doc)), Tap(link), *sinks):
            engine.subscribe(sink)
        plan = coarse_survey_with_sr(
            beamline, width_um=14, height_um=12, step_um=1, dwell_ms=20, rescan="propose",
            row_attempts=1,
        )  # fmt: skip
        try:
            engine(_paused_after_collect(plan, 4))
        except RunEngineInterrupted:
            engine.resume()
        starts = [doc for name, doc in docs if name == "start"]
        (uid,) = (one["uid"] for one in starts if one["plan_name"] == schema.PLAN_MAP)
        summary = link.request(uid).result(60)
    return Survey(as_events(docs), uid, summary.digest)


def assert_stored(run: Any, made: Survey) -> None:
    read = list(documents(run))
    order = {doc["uid"]: place for place, (_, doc) in enumerate(made.map_docs)}
    if all(doc["uid"] in order for _, doc in read):
        # Databroker may give two events with one seq_num in either order.
        read.sort(key=lambda item: order[item[1]["uid"]])
    assert_same_run(read, made.map_docs)
    assert replay(run).digest == made.digest


def test_the_survey_has_the_defects_that_this_is_about() -> None:
    events = [doc["data"] for name, doc in survey().map_docs if name == "event"]
    rows = [(data["xrf_row"], data["xrf_n_frames"]) for data in events if "xrf_row" in data]
    assert (2, 9) in rows
    assert 5 not in dict(rows)
    assert len(rows) == 12
    assert len(set(rows)) == 11


def test_a_simulated_map_replays_from_json_lines_with_the_digest_it_had_live(
    tmp_path: Path,
) -> None:
    writer = JsonlWriter(tmp_path)
    made = survey(writer)
    assert_stored(writer.path(made.map_uid), made)


def test_a_simulated_map_replays_from_tiled_with_the_digest_it_had_live(catalog: Any) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    made = survey(tiled_writer(catalog))
    assert_stored(catalog[made.map_uid], made)


def test_a_simulated_map_replays_from_databroker_with_the_digest_it_had_live() -> None:
    broker = databroker_or_skip().temp()
    made = survey(broker.v1.insert)
    assert_stored(broker.v1[made.map_uid], made)
    assert_stored(broker.v2[made.map_uid], made)


def test_a_result_run_is_stored_and_read_back_like_any_other(catalog: Any) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    made = survey()
    result = replay(made.map_docs)
    write = tiled_writer(catalog)
    for name, doc in result.documents:
        write(name, doc)
    read = list(documents(catalog[result.summary.result_uid]))
    want = as_events(result.documents)
    assert [name for name, _ in read] == [name for name, _ in want]
    for (_, got), (_, expected) in zip(read, want, strict=True):
        assert json.dumps(got.get("data"), sort_keys=True) == json.dumps(
            expected.get("data"), sort_keys=True
        )


def test_somebody_elses_grid_scan_can_be_analysed_too(tmp_path: Path) -> None:
    from bluesky.plans import grid_scan
    from ophyd.sim import SynAxis, SynSignal

    from xrf_sr_plans.maps.adapters import adapt_grid_scan

    slow, fast = SynAxis(name="samy"), SynAxis(name="samx")
    iron = SynSignal(name="iron", func=lambda: 50 + 10 * fast.readback.get())
    writer = JsonlWriter(tmp_path)
    docs: list[Document] = []
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: (docs.append((name, doc)), writer(name, doc)))
    engine(grid_scan([iron], slow, 0, 7, 8, fast, 0, 9, 10, True))

    def adapted() -> Any:
        stored = documents(writer.path(docs[0][1]["uid"]))
        return adapt_grid_scan(stored, {"Fe": "iron"}, dwell_ms=100, um_per_unit=1.0)

    first, second = replay(adapted()), replay(adapted())
    assert first.summary.source_uid == docs[0][1]["uid"]
    assert first.summary.status in ("done", "fallback")
    assert first.digest == second.digest
