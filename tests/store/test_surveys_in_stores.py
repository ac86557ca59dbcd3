"""A survey with rescans is whole in each store: its maps, its proposals and its outcomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.preprocessors import SupplementalData
from bluesky.utils import RunEngineInterrupted
from ophyd import Signal

from support.plan_support import Interrupting, Recorder, pause, small_beamline, small_survey
from support.stored_runs import Document, as_events, assert_same_run, databroker_or_skip
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.review.record import SurveyRecord, read_survey
from xrf_sr_plans.store.documents import documents

pytestmark = pytest.mark.slow
Stored = Callable[[str], Any]


def fly(
    sink: Callable[[str, Any], Any], *, stop_in_fine: bool = False, wide: bool = False
) -> list[Document]:
    """Fly a survey of two tiles with a rescan and a baseline; return its documents."""
    run_engine = RunEngine({})
    recorder = Recorder(run_engine)
    run_engine.subscribe(sink)
    company = SupplementalData(baseline=[Signal(name="ring", value=400.0)])
    run_engine.preprocessors.append(company)
    boxes, area = ([[(-18.0, -8.0, -1.5, 0.5)], []], {"width_um": 40, "tile_um": 20})
    survey = small_survey(small_beamline(boxes), **area) if wide else small_survey(small_beamline())
    if not stop_in_fine:
        run_engine(survey)
        return recorder.docs
    # After 6 rows of the two tiles and 2 of the 4 of the fine map.
    with pytest.raises(RunEngineInterrupted):
        run_engine(iter(Interrupting(survey, lambda: len(recorder.events("primary")) == 8, pause)))
    run_engine.stop()
    return recorder.docs


def is_whole(live: list[Document], stored: Stored) -> None:
    """Fail unless every run is stored as it was, and the survey reads back as it was."""
    index, runs = RunIndex(), {}
    for name, doc in live:
        runs.setdefault(index.run_of(name, doc), []).append((name, doc))
    assert len(runs) == 5
    again: list[Document] = []
    for uid, flown in runs.items():
        read = list(documents(stored(uid)))
        again += read
        for stream in streams(flown):
            assert_same_run(of_stream(read, stream), of_stream(as_events(flown), stream))
    same_record(read_survey(again), read_survey(live))


def streams(docs: list[Document]) -> list[str]:
    return [doc["name"] for name, doc in docs if name == "descriptor"]


def of_stream(docs: list[Document], stream: str) -> list[Document]:
    """Return start, stop, and what belongs to one stream: stores put streams in their own order."""
    (uid,) = (doc["uid"] for name, doc in docs if name == "descriptor" and doc["name"] == stream)
    return [
        (name, doc)
        for name, doc in docs
        if name in ("start", "stop") or uid in (doc["uid"], doc.get("descriptor"))
    ]


def same_record(read: SurveyRecord, live: SurveyRecord) -> None:
    assert [dict(row) for row in read.regions] == [dict(row) for row in live.regions]
    assert read.run_uids == live.run_uids
    assert read.parents == live.parents
    for uid, maps in {**live.coarse, **live.fine}.items():
        assert {**read.coarse, **read.fine}[uid].dataset.identical(maps.dataset)


@pytest.mark.parametrize("stop_in_fine", [False, True], ids=["complete", "stopped"])
def test_in_tiled(catalog: Any, stop_in_fine: bool) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    live = fly(tiled_writer(catalog), stop_in_fine=stop_in_fine)
    is_whole(live, lambda uid: catalog[uid])


def test_in_tiled_with_the_writer_as_others_subscribe_it(catalog: Any) -> None:
    plugins = pytest.importorskip("bluesky_tiled_plugins")
    # It puts arrays of up to 16 numbers into SQL columns, which SQLite can't hold.
    live = fly(plugins.TiledWriter(catalog), wide=True)
    is_whole(live, lambda uid: catalog[uid])


@pytest.mark.parametrize("stop_in_fine", [False, True], ids=["complete", "stopped"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_in_databroker(version: str, stop_in_fine: bool) -> None:
    broker = databroker_or_skip().temp()
    live = fly(broker.v1.insert, stop_in_fine=stop_in_fine)
    is_whole(live, lambda uid: getattr(broker, version)[uid])
