"""Regions of a survey are chosen on all of its tiles as one map."""

from __future__ import annotations

import sys

import event_model
import numpy as np
import pytest

from support.row_documents import ELEMENTS, map_run
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.tiles import split_into_tiles
from xrf_sr_plans.schema import AnalysisRequest, RescanModel, TileIndex, kind_of_run

WHOLE = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=48, height_um=16, step_um=1)
TILES = split_into_tiles(WHOLE, (24.0, 16.0))
RESCANS = RescanModel(step_um=0.5, dwell_ms=10, row_overhead_s=0.1)
REQUEST = AnalysisRequest(find="Fe", rescans=RESCANS)
SURVEY = "survey-1"


def counts() -> np.ndarray:
    """Return photons (element, y, x): a grain on the border of the tiles, and a weaker one."""
    planes = np.full((len(ELEMENTS), *WHOLE.shape), 3.0)
    planes[0, 6:10, 22:26] = 300.0
    planes[0, 2:5, 36:39] = 120.0
    return planes


def tile_runs(request: AnalysisRequest = REQUEST, **changes) -> list[list]:
    """Return the documents of the survey's tiles; the last one names those before it."""
    runs, planes = [], counts()
    for index, tile in enumerate(TILES):
        rows, columns = tile.grid.shape
        window = np.s_[:, :rows, tile.first_column : tile.first_column + columns]
        earlier = [f"tile-{number}" for number in range(index)] if index == len(TILES) - 1 else []
        runs.append(
            list(
                map_run(
                    tile.grid,
                    planes[window],
                    run=f"tile-{index}",
                    purpose="coarse",
                    survey_uid=SURVEY,
                    tile=TileIndex(index=index, of=len(TILES), earlier=earlier),
                    analysis=request,
                    **changes,
                )
            )
        )
    return runs


def analysed(runs, **kwargs):
    documents, summaries = [], []
    chain = AnalysisChain(
        emit=lambda name, doc: documents.append((name, doc)), finished=summaries.append, **kwargs
    )
    for run in runs:
        for name, doc in run:
            chain(name, doc)
    return {summary.source_uid: summary for summary in summaries}, documents


def kind_of(name, doc) -> str:
    return (kind_of_run(doc) or "") if name == "start" else ""


def choice_of(documents) -> list:
    """Return the documents of the run of the choice."""
    (start,) = [d for n, d in documents if n == "start" and kind_of_run(d) == "choice"]
    streams = [d["uid"] for n, d in documents if d.get("run_start") == start["uid"]]
    return [
        (n, d)
        for n, d in documents
        if d.get("uid") == start["uid"]
        or d.get("run_start") == start["uid"]
        or d.get("descriptor") in streams
    ]


def test_an_object_on_the_border_of_two_tiles_is_one_region(bicubic_model):
    summaries, documents = analysed(tile_runs())
    summary = summaries[SURVEY]
    assert summary.status == "done"
    grain = [region for region in summary.regions if region.x_low_um < 0 < region.x_high_um]
    assert len(grain) == 1
    assert grain[0].x_low_um <= -2.0
    assert grain[0].x_high_um >= 2.0
    assert len(summary.regions) == 2
    # Each region names the tile that holds most of it, for its verification.
    weaker = next(region for region in summary.regions if region is not grain[0])
    assert weaker.source_uid == "tile-1"
    run = choice_of(documents)
    for name, doc in run:
        names = event_model.DocumentNames
        event_model.schema_validators[getattr(names, name)].validate(as_lists(doc))
    start = run[0][1]
    assert start["survey_uid"] == SURVEY
    assert start["tiles"] == ["tile-0", "tile-1"]
    assert summary.result_uid == start["uid"]
    assert 0.5 < start["forecast"]["share_found"] <= 1.0
    assert [name for name, _ in run] == ["start", "descriptor", "event", "event", "stop"]


def test_a_replay_of_the_tiles_gives_the_same_choice(bicubic_model):
    first, _ = analysed(tile_runs())
    again, _ = analysed(tile_runs())
    assert first[SURVEY].digest == again[SURVEY].digest


def test_another_process_takes_the_tiles_before_from_the_scratch_folder(bicubic_model, tmp_path):
    first, last = tile_runs()
    together, _ = analysed([first, last])
    analysed([first], scratch_dir=str(tmp_path))
    after, _ = analysed([last], scratch_dir=str(tmp_path))
    assert after[SURVEY].digest == together[SURVEY].digest


def test_without_the_tiles_before_there_is_no_choice_and_the_summary_says_why(bicubic_model):
    _, last = tile_runs()
    summaries, documents = analysed([last])
    assert summaries[SURVEY].status == "failed"
    assert summaries[SURVEY].reason == "1 of 2 tiles are not at hand"
    assert not [d for n, d in documents if n == "start" and kind_of_run(d) == "choice"]


def test_a_replay_of_a_tile_tells_of_that_tile_wherever_it_is_in_its_survey(bicubic_model):
    runs = tile_runs()
    live, _ = analysed(runs)
    for index, run in enumerate(runs):
        again = replay(run)
        assert again.summary.source_uid == f"tile-{index}"
        assert again.digest == live[f"tile-{index}"].digest
    whole = replay([pair for run in runs for pair in run])
    assert whole.digest == live["tile-1"].digest
    assert [doc["survey_uid"] for name, doc in whole.documents if kind_of(name, doc) == "choice"]


def test_the_last_tile_of_a_survey_falls_back_like_the_others():
    """A survey whose worker hangs has bicubic results of all tiles, and a choice among them."""
    taken = []
    hung = [sys.executable, "-c", "import time; time.sleep(600)"]
    with AnalysisProcess(sinks=[lambda name, doc: taken.append((name, doc))], command=hung) as link:
        for index, run in enumerate(tile_runs()):
            for name, doc in run:
                link.submit(f"tile-{index}", name, doc)
        summaries = [
            link.fall_back(f"tile-{index}", "late").result(60) for index in range(len(TILES))
        ]
        choice = link.request(SURVEY).result(10)
        link.sink_thread.flush(10)
        link.close(0.1)
    assert [summary.source_uid for summary in summaries] == ["tile-0", "tile-1"]
    assert {summary.status for summary in summaries} == {"fallback"}
    assert all(summary.regions for summary in summaries)
    kinds = [kind_of(name, doc) for name, doc in taken]
    assert kinds.count("result") == 2
    assert kinds.count("choice") == 1
    assert choice.status == "done"
    assert any(region.x_low_um < 0 < region.x_high_um for region in choice.regions)


def test_a_tile_without_a_map_leaves_the_others_and_is_told(bicubic_model):
    first, last = tile_runs()
    nothing = [pair for pair in first if pair[0] in ("start", "descriptor", "stop")]
    summaries, _ = analysed([nothing, last])
    assert summaries["tile-0"].status == "failed"
    assert summaries[SURVEY].status == "done"
    assert "1 of 2 tiles have no enhanced map" in summaries[SURVEY].reason
    assert {region.source_uid for region in summaries[SURVEY].regions} == {"tile-1"}


def test_a_survey_of_one_tile_has_no_choice_of_its_own(bicubic_model):
    run = map_run(
        TILES[0].grid,
        counts()[:, :, :24],
        survey_uid=SURVEY,
        tile=TileIndex(index=0, of=1),
        analysis=REQUEST,
    )
    summaries, _ = analysed([run])
    assert SURVEY not in summaries


@pytest.mark.parametrize(("step_s", "overhead_s"), [(1.24, 1.0), (0.2, 0.1)])
def test_rescans_cost_what_rows_really_took(bicubic_model, step_s, overhead_s):
    """Rows of 24 pixels of 10 ms; those that took less than that were flown without a clock."""
    chosen = []
    chain = AnalysisChain()
    chain.consumers.append(chosen.append)
    run = tile_runs(derived_input={"row_s": 0.34})[0]
    events = 0
    for name, doc in run:
        if name == "event_page":
            events += 1
            doc = {**doc, "time": [1.0e9 + events * step_s]}
        chain(name, doc)
    assert chosen[0].rescans.row_overhead_s == pytest.approx(overhead_s)
