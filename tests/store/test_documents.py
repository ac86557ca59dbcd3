from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from event_model import DocumentNames, schema_validators

from support.stored_runs import Document, assert_same_run, databroker_or_skip, fly
from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.store.documents import _read, documents
from xrf_sr_plans.store.jsonl import JsonlWriter


def rows(docs: list[Document]) -> list[tuple[int, int]]:
    events = [doc["data"] for name, doc in docs if name == "event"]
    return [(data["xrf_row"], data["xrf_attempt"]) for data in events]


def validate(docs: list[Document]) -> None:
    for name, doc in docs:
        schema_validators[DocumentNames[name]].validate(doc)


@pytest.mark.parametrize("pause_after", [None, 2], ids=["short row", "re-flown row"])
def test_a_run_comes_back_from_json_lines(tmp_path: Any, pause_after: int | None) -> None:
    writer = JsonlWriter(tmp_path)
    live = fly(writer, pause_after=pause_after)
    (path,) = tmp_path.iterdir()
    assert path == writer.path(live[0][1]["uid"])
    read = list(documents(path))
    assert_same_run(read, live)
    assert read[0][1] == live[0][1]


@pytest.mark.parametrize("pause_after", [None, 2], ids=["short row", "re-flown row"])
def test_a_run_comes_back_from_tiled(catalog: Any, pause_after: int | None) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    live = fly(tiled_writer(catalog), pause_after=pause_after)
    read = list(documents(catalog[live[0][1]["uid"]]))
    assert_same_run(read, live)
    validate(read)
    if pause_after is not None:
        assert rows(read) == [(0, 0), (1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]
    uids = [doc["uid"] for _, doc in read]
    assert len(set(uids)) == len(uids)
    again = list(documents(catalog[live[0][1]["uid"]]))
    assert json.dumps(again) == json.dumps(read)


class Locked:
    """A part of a stream whose table is locked at first, as SQLite's driver says it."""

    def __init__(self, *problems: Exception) -> None:
        self._problems = list(problems)

    def read(self) -> str:
        if self._problems:
            raise self._problems.pop(0)
        return "the table"


def test_a_table_that_another_process_writes_to_is_waited_for() -> None:
    locked = OSError("IO: Failed to step query: database is locked")
    part = Locked(locked, ExceptionGroup("unhandled errors", [locked]))
    assert _read({"internal": part}, "internal") == "the table"
    with pytest.raises(OSError, match="disk I/O error"):
        _read({"internal": Locked(OSError("disk I/O error"))}, "internal")


def test_a_plain_container_client_does_as_well(catalog: Any) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    live = fly(tiled_writer(catalog))
    assert_same_run(list(documents(catalog[live[0][1]["uid"]].base)), live)


def test_several_streams_and_a_change_of_configuration_come_back_in_order(catalog: Any) -> None:
    import bluesky.plan_stubs as bps
    import bluesky.preprocessors as bpp
    from bluesky import RunEngine
    from ophyd.sim import hw

    from support.stored_runs import as_events
    from xrf_sr_plans.store.tiled import tiled_writer

    devices = hw()

    @bpp.baseline_decorator([devices.motor2])
    @bpp.run_decorator()
    def plan() -> Any:
        yield from bps.mv(devices.motor, 1)
        yield from bps.trigger_and_read([devices.det, devices.motor])
        yield from bps.configure(devices.det, {})
        yield from bps.trigger_and_read([devices.det, devices.motor])

    live: list[Document] = []
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: live.append((name, doc)))
    engine.subscribe(tiled_writer(catalog))
    engine(plan())
    read = list(documents(catalog[live[0][1]["uid"]]))
    validate(read)

    def told(docs: list[Document]) -> list[tuple[str, str, Any]]:
        names = {doc["uid"]: doc["name"] for name, doc in docs if name == "descriptor"}
        return [
            (name, doc.get("name") or names.get(doc.get("descriptor", ""), ""), doc.get("data"))
            for name, doc in docs
        ]

    assert told(read) == told(as_events(live))
    assert [doc["descriptor"] for name, doc in read if name == "event"] == [
        doc["descriptor"] for name, doc in as_events(live) if name == "event"
    ]


@pytest.fixture(scope="module")
def broker() -> Any:
    """A temporary databroker, of whichever version is installed."""
    return databroker_or_skip().temp()


@pytest.mark.parametrize("pause_after", [None, 2], ids=["short row", "re-flown row"])
def test_a_run_comes_back_from_databroker_by_both_of_its_interfaces(
    broker: Any, pause_after: int | None
) -> None:
    live = fly(broker.v1.insert, pause_after=pause_after)
    uid = live[0][1]["uid"]
    for run in (broker.v1[uid], broker.v2[uid]):
        read = list(documents(run))
        assert [name for name, _ in read] == [name for name, _ in live]
        assert_same_run(_in_live_order(read, live), live)


def _in_live_order(read: list[Document], live: list[Document]) -> list[Document]:
    """Databroker sorts events by seq_num or time; of two with one seq_num either may be first."""
    order = [doc["uid"] for _, doc in live]
    return sorted(read, key=lambda item: order.index(item[1]["uid"]))


def test_pairs_pass_through_and_pages_become_events() -> None:
    live = fly()
    page = {
        **{key: [live[2][1][key]] for key in ("uid", "time", "seq_num")},
        "descriptor": live[2][1]["descriptor"],
        "data": {key: [value] for key, value in live[2][1]["data"].items()},
        "timestamps": {key: [value] for key, value in live[2][1]["timestamps"].items()},
        "filled": {},
    }
    (event,) = documents([("event_page", page)])
    assert event[0] == "event"
    assert_same_run([event], [live[2]])


@pytest.mark.parametrize("what", [None, 3, {"start": {}}])
def test_what_is_no_run_is_refused(what: Any) -> None:
    with pytest.raises(FileFormatError, match="is no run"):
        list(documents(what))


def test_columns_that_were_cut_off_give_the_rows_that_all_have(
    catalog: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from xrf_sr_plans.store.tiled import tiled_writer

    live = fly(tiled_writer(catalog))
    counts = catalog[live[0][1]["uid"]]["primary"].base["xrf_counts"]
    counts.patch(np.zeros((1, 3, 9)), offset=(5,), extend=True)
    read = list(documents(catalog[live[0][1]["uid"]]))
    assert_same_run(read, live)
    assert "columns differ in length" in caplog.text
