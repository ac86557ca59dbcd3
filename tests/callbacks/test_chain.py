"""The analysis chain: always an answer, valid documents, the same ones every time."""

from __future__ import annotations

import json

import event_model
import numpy as np
import pytest

from support.row_documents import KEYS, as_page, map_run, row_event, small_grid, truth
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.schema import AnalysisRequest

GRID = small_grid(16, 20)
COUNTS = truth(GRID)


def analysed(run, **kwargs):
    documents, summaries = [], []
    chain = AnalysisChain(
        emit=lambda name, doc: documents.append((name, doc)), finished=summaries.append, **kwargs
    )
    for name, doc in run:
        chain(name, doc)
    return summaries, documents


def plain(documents):
    return [(name, as_lists(doc)) for name, doc in documents]


def validate(documents):
    names = event_model.DocumentNames
    for name, doc in documents:
        event_model.schema_validators[getattr(names, name)].validate(doc)


def test_a_map_becomes_a_valid_result_run_and_a_summary(bicubic_model):
    (summary,), documents = analysed(map_run(GRID, COUNTS, survey_uid="survey-1"))
    validate(plain(documents))
    start = documents[0][1]
    assert summary.status == "done"
    assert summary.source_uid == start["original_run_uid"] == "source-run"
    assert summary.result_uid == start["uid"]
    assert start["survey_uid"] == "survey-1"
    assert start["model"]["sha256"] == "ab" * 32
    assert start["rows_used"] == list(range(16))
    assert start["complete"] is True
    assert documents[-1][1]["exit_status"] == "success"
    maps = [doc["data"] for name, doc in documents if name == "event" and "element" in doc["data"]]
    assert [data["element"] for data in maps] == ["Fe", "Zn", "Ca"]
    assert maps[0]["estimate"].shape == (32, 40)


def test_regions_are_proposed_as_events(bicubic_model):
    (summary,), documents = analysed(map_run(GRID, COUNTS))
    assert summary.regions
    rows = [doc["data"] for name, doc in documents if name == "event" and "score" in doc["data"]]
    assert [row["key"] for row in rows] == [region.key for region in summary.regions]
    assert {row["disposition"] for row in rows} == {"proposed"}


def test_live_and_repeated_results_are_equal_to_the_bit(bicubic_model):
    (first,), one = analysed(map_run(GRID, COUNTS))
    (second,), two = analysed(map_run(GRID, COUNTS))
    assert first.digest == second.digest == digest(one) == digest(plain(two))
    through_json = json.loads(json.dumps(plain(one)))
    assert digest((name, doc) for name, doc in through_json) == first.digest


def test_documents_read_back_give_the_enhanced_map(bicubic_model):
    _, documents = analysed(map_run(GRID, COUNTS))
    enhanced = enhanced_from_documents(plain(documents))
    assert enhanced.elements == ["Fe", "Zn", "Ca"]
    assert enhanced.grid == GRID.refined(2)
    assert enhanced.factor == 2


def test_a_model_that_raises_costs_the_model_not_the_result(bicubic_model, monkeypatch):
    from xrf_sr_plans.sr import predict

    def broken(*_args, **_kwargs):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(predict, "enhance_maps", broken)
    (summary,), documents = analysed(map_run(GRID, COUNTS))
    assert summary.status == "fallback"
    assert "out of memory" in summary.reason
    assert "out of memory" in documents[0][1]["fallback"]
    assert summary.model["name"] == "bicubic"
    assert summary.regions


def test_a_replay_warns_once_that_its_map_is_bicubic_and_why(bicubic_model, monkeypatch, caplog):
    from xrf_sr_plans.sr import predict

    def broken(*_args, **_kwargs):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(predict, "enhance_maps", broken)
    replayed = replay(list(map_run(GRID, COUNTS)))
    assert replayed.summary.regions
    assert not any("out of memory" in region.reason for region in replayed.summary.regions)
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "source-run: fallback RuntimeError: CUDA error: out of memory" in warning.message
    assert caplog.text.count("out of memory") == 1


def flown_with(key, reading, rows=range(16)):
    """The run in which one channel says something else in some of the rows."""
    for name, doc in map_run(GRID, COUNTS):
        if name == "event_page":
            for event in doc["data"][KEYS["row"]]:
                changed = {key: [reading] * 20} if event in rows else {}
                yield "event", row_event(GRID, COUNTS, event, **changed)
        else:
            yield name, doc


def test_a_channel_that_says_nothing_is_named_at_the_prompt_and_in_the_result(bicubic_model):
    (summary,), documents = analysed(flown_with("i0", 0.0))
    assert summary.status == "done"
    assert "I0 says nothing" in summary.reason
    assert "I0 says nothing" in documents[0][1]["notes"][0]
    assert documents[0][1]["complete"] is True


def test_a_map_without_a_usable_pixel_has_failed_and_says_why(bicubic_model):
    (summary,), documents = analysed(flown_with("fast_um", 0.0))
    assert summary.status == "failed"
    assert "fast encoder stands still in rows 0-15" in summary.reason
    assert documents[-1][1]["exit_status"] == "fail"


def test_a_map_of_which_little_was_measured_says_so(bicubic_model):
    (summary,), documents = analysed(flown_with("fast_um", 0.0, rows=range(2, 16)))
    assert summary.status == "done"
    assert "only 12% of the pixels were measured" in summary.reason
    assert documents[0][1]["complete"] is False


def test_without_any_row_the_result_says_failed(bicubic_model):
    run = [(name, doc) for name, doc in map_run(GRID, COUNTS) if name != "event_page"]
    (summary,), documents = analysed(run)
    assert summary.status == "failed"
    assert "no pixel" in summary.reason
    validate(documents)
    assert documents[-1][1]["exit_status"] == "fail"


def test_a_partial_map_is_analysed_and_marked(bicubic_model):
    run = list(map_run(GRID, COUNTS))
    del run[5:9]
    (summary,), documents = analysed(run)
    assert summary.status == "done"
    assert documents[0][1]["complete"] is False
    assert len(documents[0][1]["rows_used"]) == 12
    validate(plain(documents))


def test_an_unreadable_query_fails_by_name_and_keeps_the_enhanced_map(bicubic_model):
    request = AnalysisRequest(find="Fe and and")
    (summary,), documents = analysed(map_run(GRID, COUNTS, analysis=request))
    assert summary.status == "failed"
    assert "QueryError" in summary.reason
    assert enhanced_from_documents(documents).elements == ["Fe", "Zn", "Ca"]


def test_assembly_only_gives_no_result_run(bicubic_model):
    request = AnalysisRequest(enhance=False)
    (summary,), documents = analysed(map_run(GRID, COUNTS, analysis=request))
    assert (summary.status, summary.result_uid, documents) == ("done", "", [])


def test_runs_that_ask_for_nothing_are_left_alone():
    summaries, documents = analysed(
        [
            *map_run(GRID, COUNTS, analysis=None),
            ("start", {"uid": "x", "time": 0}),
            ("stop", {"uid": "y", "run_start": "x", "time": 1, "exit_status": "success"}),
        ]
    )
    assert (summaries, documents) == ([], [])


def test_garbage_among_the_documents_costs_only_itself(bicubic_model):
    run = list(map_run(GRID, COUNTS))
    run[2:2] = [("event", {"descriptor": "source-run-rows"}), ("event_page", {}), ("bulk", {})]
    (summary,), _ = analysed(run)
    assert summary.status == "done"


def test_a_start_document_that_describes_no_map_fails_by_name():
    start = {"uid": "odd", "time": 1.0, "xrf_sr": {"schema": 1, "analysis": {}}}
    stop = {"uid": "s", "run_start": "odd", "time": 2.0, "exit_status": "success"}
    (summary,), _ = analysed([("start", start), ("stop", stop)])
    assert (summary.source_uid, summary.status) == ("odd", "failed")
    assert "AssemblyError" in summary.reason


def test_interleaved_runs_are_kept_apart(bicubic_model):
    one, two = list(map_run(GRID, COUNTS, "one")), list(map_run(GRID, COUNTS[:, ::-1], "two"))
    mixed = [entry for pair in zip(one, two, strict=True) for entry in pair]
    alone = {run[0][1]["uid"]: analysed(run)[0][0].digest for run in (one, two)}
    summaries, _ = analysed(mixed)
    assert {summary.source_uid: summary.digest for summary in summaries} == alone


def test_a_router_that_raises_concerns_nobody(bicubic_model):
    seen, summaries = [], []
    chain = AnalysisChain(finished=summaries.append)
    chain.consumers += [lambda _: 1 / 0, seen.append]
    for name, doc in map_run(GRID, COUNTS):
        chain(name, doc)
    assert summaries[0].status == "done"
    assert seen[0].maps.counts.shape == (3, 16, 20)


def test_previews_come_while_rows_come_and_change_nothing(bicubic_model):
    request = AnalysisRequest(preview_every_rows=4)
    previews = []
    (quiet,), _ = analysed(map_run(GRID, COUNTS, analysis=request))
    (summary,), documents = analysed(
        map_run(GRID, COUNTS, analysis=request), preview=previews.append
    )
    assert previews
    for preview in previews:
        validate(plain(preview))
        assert preview[0][1]["purpose"] == "preview"
        assert preview[0][1]["uid"] != summary.result_uid
    assert digest(documents) == summary.digest == quiet.digest


def test_previews_are_left_out_while_documents_wait(bicubic_model):
    request = AnalysisRequest(preview_every_rows=4)
    previews = []
    analysed(map_run(GRID, COUNTS, analysis=request), preview=previews.append, backlog=lambda: 1)
    assert previews == []


def test_the_last_attempt_at_a_row_is_what_the_result_shows(bicubic_model):
    run = list(map_run(GRID, COUNTS))
    bad = row_event(GRID, COUNTS * 0 + 5000, 3)
    again = row_event(GRID, COUNTS, 3, attempt=1)
    run[5] = ("event_page", as_page([bad, again]))
    (summary,), _ = analysed(run)
    (clean,), _ = analysed(map_run(GRID, COUNTS))
    assert summary.digest == clean.digest
    assert KEYS["attempt"] in again["data"]


def test_large_results_go_to_a_file_and_their_digest_stays(bicubic_model, tmp_path):
    import h5py

    grid = small_grid(66, 66)
    counts = truth(grid)
    request = AnalysisRequest(factor=4)
    (inside,), within = analysed(map_run(grid, counts, analysis=request))
    settings = AnalysisSettings(result_dir=str(tmp_path))
    (outside,), documents = analysed(map_run(grid, counts, analysis=request), settings=settings)
    validate(documents)
    assert inside.digest == outside.digest
    resource = next(doc for name, doc in documents if name == "stream_resource")
    with h5py.File(resource["uri"].removeprefix("file://localhost")) as file:
        stored = file["estimate"][0]
    event = next(doc for name, doc in within if name == "event")
    np.testing.assert_array_equal(stored, event["data"]["estimate"])
    assert [path.suffix for path in tmp_path.iterdir()] == [".h5"]


def test_a_full_disk_keeps_a_large_result_in_its_documents(bicubic_model, tmp_path):
    grid = small_grid(66, 66)
    request = AnalysisRequest(factor=4)
    not_a_folder = tmp_path / "file"
    not_a_folder.write_text("")
    (summary,), documents = analysed(
        map_run(grid, truth(grid), analysis=request),
        settings=AnalysisSettings(result_dir=str(not_a_folder)),
    )
    assert summary.status == "done"
    assert enhanced_from_documents(documents).grid.shape == (264, 264)


def test_replay_gives_the_live_digest_and_can_ask_for_something_else(bicubic_model):
    (live,), _ = analysed(map_run(GRID, COUNTS))
    taken = []
    again = replay(map_run(GRID, COUNTS), sinks=[lambda name, doc: taken.append(name)])
    assert again.digest == live.digest == digest(again.documents)
    assert taken[0] == "start"
    other = replay(map_run(GRID, COUNTS), request=AnalysisRequest(factor=4))
    assert other.summary.result_uid != live.result_uid
    with pytest.raises(AnalysisError, match="asks for analysis"):
        replay(map_run(GRID, COUNTS, analysis=None))


def test_a_run_without_a_stop_document_is_replayed_and_says_so(bicubic_model, caplog):
    cut = list(map_run(GRID, COUNTS))[:10]
    result = replay(cut)
    start, stop = result.documents[0][1], result.documents[-1][1]
    assert result.summary.status == "done"
    assert result.summary.regions
    assert "no stop document" in result.summary.reason
    assert "no stop document" in caplog.text
    assert "no stop document" in start["notes"][0]
    assert "no stop document" in stop["reason"]
    assert (start["complete"], start["rows_used"]) == (False, list(range(8)))
    assert replay(cut).digest == result.digest
    validate(result.documents)
    with_request = replay(cut, request=AnalysisRequest(factor=4))
    assert with_request.documents[0][1]["factor"] == 4
    with pytest.raises(AnalysisError, match="asks for analysis"):
        replay([])


def test_the_result_of_an_aborted_run_says_how_the_run_ended(bicubic_model):
    run = list(map_run(GRID, COUNTS))[:10]
    stop = {"uid": "s", "run_start": "source-run", "time": 1.0e9 + 20, "exit_status": "abort"}
    (summary,), documents = analysed([*run, ("stop", {**stop, "reason": "beam lost"})])
    assert summary.status == "done"
    assert summary.reason == "the run of the map ended as 'abort': beam lost"
    assert documents[0][1]["notes"] == [summary.reason]
    (whole,), documents = analysed(map_run(GRID, COUNTS))
    assert (whole.reason, "notes" in documents[0][1]) == ("", False)


@pytest.mark.parametrize("name", ["start", "descriptor", "event", "stop"])
def test_every_document_kind_is_written_as_plain_json(bicubic_model, name):
    _, documents = analysed(map_run(GRID, COUNTS))
    doc = next(doc for kind, doc in plain(documents) if kind == name)
    assert json.loads(json.dumps(doc)) is not None


def test_what_is_odd_about_the_values_is_in_the_result_and_in_the_summary(bicubic_model):
    counts = np.random.default_rng(0).poisson(20, COUNTS.shape).astype(float)
    counts[1, 5, 7] = 1e4
    (summary,), documents = analysed(map_run(GRID, counts))
    (note,) = documents[0][1]["notes"]
    assert note.startswith("Zn: hot pixel at row 5, column 7: 10000 photons")
    assert (summary.status, summary.reason) == ("done", note)
    # A map that is only to be assembled, such as a fine one, is looked at too.
    request = AnalysisRequest(enhance=False)
    (summary,), _ = analysed(map_run(GRID, counts, analysis=request))
    assert summary.reason == note
