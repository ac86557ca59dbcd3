"""bluesky's 0MQ proxy on loopback: a RunEngine publishes, `xrf-sr listen` analyses and answers."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - what is refused
from collections.abc import Iterator
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

from support.buses import Listener, ZmqEars, joined_publisher, listening, zmq_proxy
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.intake.serializers import to_json, to_msgpack
from xrf_sr_plans.plans.survey import coarse_survey_with_sr

pytestmark = pytest.mark.e2e
GRID = small_grid(6, 8)
AREA = {"x_center_um": 10, "y_center_um": 0, "width_um": 20, "height_um": 12, "step_um": 2}


@pytest.fixture
def proxy() -> Iterator[tuple[int, int]]:
    with zmq_proxy() as ports:
        yield ports


@pytest.fixture
def ears(proxy: tuple[int, int]) -> Iterator[ZmqEars]:
    ears = ZmqEars(proxy[1])
    yield ears
    ears.close()


@pytest.fixture
def listener(proxy: tuple[int, int], ears: ZmqEars) -> Iterator[Listener]:
    """One listener behind the proxy, which sends results back through it."""
    with listening(*addresses(proxy), "--patience-s", "0.5") as listener:
        listener.wait_for("connected to 0mq")
        yield listener


def addresses(proxy: tuple[int, int]) -> tuple[str, ...]:
    into, out = proxy
    return (f"0mq://127.0.0.1:{out}", "--publish", f"0mq://127.0.0.1:{into}/results")


def publisher(proxy: tuple[int, int], ears: ZmqEars, **options: Any) -> Publisher:
    return joined_publisher(Publisher(f"127.0.0.1:{proxy[0]}", **options), ears)


def test_a_survey_that_is_published_has_the_digest_of_the_live_one(
    proxy, ears, listener, bicubic_model
) -> None:
    documents: list[tuple[str, dict[str, Any]]] = []
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    speaker = publisher(proxy, ears, serializer=to_msgpack)
    engine.subscribe(speaker)
    engine(coarse_survey_with_sr(make_beamline(), **AREA, dwell_ms=10, find="K"))
    speaker.close()
    expected = replay(documents)
    source = expected.summary.source_uid
    assert listener.digest_of(source) == expected.digest

    uid = expected.summary.result_uid
    ears.wait_for(lambda: any(doc.get("run_start") == uid for doc in stops(ears)))
    run = ears.documents("results")
    of_result = run[: next(at for at, (name, _) in enumerate(run) if name == "stop") + 1]
    assert of_result[0][1]["original_run_uid"] == source
    assert digest(of_result) == expected.digest
    assert listener.end() == 0


def test_what_goes_wrong_on_a_bus_is_told_and_harms_no_other_run(
    proxy, ears, listener, bicubic_model
) -> None:
    # The default serializer of bluesky's publisher is a pickle, here one that would end us.
    evil = publisher(proxy, ears, prefix=b"evil", serializer=_as_evil_pickle)
    for _ in range(20):
        evil("start", {"uid": "evil"})
    speaker = publisher(proxy, ears, serializer=to_json)
    lossy = list(map_run(GRID, truth(GRID), "lossy"))
    whole = list(map_run(GRID, truth(GRID), "whole"))
    for (name, doc), (_, other) in zip(lossy, whole, strict=True):
        if name == "event_page" and doc["seq_num"] == [3]:
            speaker(name, other)
            continue
        speaker(name, doc)
        speaker(name, other)
        speaker(name, other)

    assert listener.digest_of("whole") == replay(whole).digest
    missing = "documents are missing: stream 'primary' lacks 1 of 6 events: 3"
    assert missing in listener.wait_for("run lossy: done")
    ears.wait_for(lambda: _start_of("lossy", ears) is not None)
    start = _start_of("lossy", ears)
    assert start is not None
    assert start["rows_used"] == [0, 1, 3, 4, 5]
    assert missing in start["notes"]
    told = [line for line in listener.said if "evil" in line]
    assert len(told) == 1
    assert "is a pickle" in told[0]
    assert "serializer=" in told[0]
    for one in (evil, speaker):
        one.close()


def test_a_killed_listener_says_of_which_run_it_missed_the_start(
    proxy, ears, listener, bicubic_model
) -> None:
    speaker = publisher(proxy, ears, serializer=to_msgpack)
    half = list(map_run(GRID, truth(GRID), "half"))
    for name, doc in half[:4]:
        speaker(name, doc)
    listener.wait_for("run half has begun")
    listener.kill()
    with listening(*addresses(proxy), "--patience-s", "0.5") as second:
        second.wait_for("connected to 0mq")
        after = list(map_run(GRID, truth(GRID), "after"))
        for name, doc in [*half[4:], *after]:
            speaker(name, doc)
        assert second.digest_of("after") == replay(after).digest
        assert "nothing of the run is analysed" in second.wait_for("run half: ")
        speaker("start", half[0][1])
        second.wait_for("run half has begun")
        assert second.end() == 0
        assert any("run half is not over" in line for line in second.said)
    speaker.close()


def test_a_proxy_that_comes_back_is_listened_to_and_published_at_again() -> None:
    with zmq_proxy() as ports:
        pass
    # There is none when the listener starts, and then another one in the place of the first.
    with listening(*addresses(ports)) as listener:
        listener.wait_for("listening to")
        with zmq_proxy(*ports):
            listener.wait_for("connected to")
        listener.wait_for("is lost")
        with zmq_proxy(*ports):
            ears = ZmqEars(ports[1])
            speaker = publisher(ports, ears, serializer=to_msgpack)
            listener.wait_for("connected to", times=2)
            for name, doc in map_run(GRID, truth(GRID), "later"):
                speaker(name, doc)
            ears.wait_for(lambda: _start_of("later", ears) is not None)
            speaker.close()
            ears.close()


def stops(ears: ZmqEars) -> list[dict[str, Any]]:
    return [doc for name, doc in ears.documents("results") if name == "stop"]


def _start_of(run: str, ears: ZmqEars) -> dict[str, Any] | None:
    starts = [doc for name, doc in ears.documents("results") if name == "start"]
    return next((doc for doc in starts if doc.get("original_run_uid") == run), None)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (66,)


def _as_evil_pickle(doc: Any) -> bytes:
    return to_msgpack(doc) if not doc else pickle.dumps(_Evil())
