"""bluesky's 0MQ proxy on loopback: a RunEngine publishes, `xrf-sr listen` analyses and answers."""

from __future__ import annotations

import os
import pickle  # noqa: TID251 - what is refused
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine
from bluesky.callbacks.zmq import Publisher

from support.buses import WAIT_S, Listener, ZmqEars, joined_publisher, listening, zmq_proxy
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.intake import zmq_bus
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.messages import document_in
from xrf_sr_plans.intake.serializers import to_json, to_msgpack
from xrf_sr_plans.intake.zmq_bus import ZmqIntake
from xrf_sr_plans.plans.survey import coarse_survey_with_sr

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
GRID = small_grid(6, 8)
AREA = {"x_center_um": 10, "y_center_um": 0, "width_um": 20, "height_um": 12, "step_um": 2}


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[int, int]]:
    with zmq_proxy() as ports:
        yield ports


@pytest.fixture(scope="module")
def ears(proxy: tuple[int, int]) -> Iterator[ZmqEars]:
    ears = ZmqEars(proxy[1])
    yield ears
    ears.close()


@pytest.fixture(scope="module")
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
    ears.wait_for(lambda: bool(run_of("lossy", ears)))
    start = run_of("lossy", ears)[0][1]
    assert start["rows_used"] == [0, 1, 3, 4, 5]
    assert missing in start["notes"]
    told = [line for line in listener.said if "evil" in line]
    assert len(told) == 1
    assert "is a pickle" in told[0]
    assert "serializer=" in told[0]
    for one in (evil, speaker):
        one.close()


def test_a_survey_that_is_published_has_the_digest_of_the_live_one_also_at_the_end(
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
    # It is asked to end before the result is there, as by systemd, and finishes it.
    listener.wait_for(f"run {source} is over")
    assert listener.end() == 0
    assert listener.digest_of(source) == expected.digest

    uid = expected.summary.result_uid
    ears.wait_for(lambda: any(doc.get("run_start") == uid for doc in stops(ears)))
    assert digest(run_of(source, ears)) == expected.digest


def test_a_listener_outlives_its_proxy_and_the_next_one_says_what_a_killed_one_had_begun(
    bicubic_model,
) -> None:
    with zmq_proxy() as ports:
        pass
    half = list(map_run(GRID, truth(GRID), "half"))
    after = list(map_run(GRID, truth(GRID), "after"))
    # There is none when the listener starts, and then another one in the place of the first.
    with listening(*addresses(ports)) as first:
        first.wait_for("listening to")
        with zmq_proxy(*ports):
            first.wait_for("connected to")
        first.wait_for("is lost")
        with zmq_proxy(*ports):
            ears = ZmqEars(ports[1])
            speaker = publisher(ports, ears, serializer=to_msgpack)
            first.wait_for("connected to", times=2)
            for name, doc in half[:4]:
                speaker(name, doc)
            first.wait_for("run half has begun")
            first.kill()
            with listening(*addresses(ports), "--patience-s", "0.5") as second:
                second.wait_for("connected to 0mq")
                for name, doc in [*half[4:], *after]:
                    speaker(name, doc)
                assert second.digest_of("after") == replay(after).digest
                assert "nothing of the run is analysed" in second.wait_for("run half: ")
                ears.wait_for(lambda: bool(run_of("after", ears)))
                speaker(*half[0])
                second.wait_for("run half has begun")
                assert second.end() == 0
                assert any("run half is not over" in line for line in second.said)
            speaker.close()
            ears.close()


def stops(ears: ZmqEars) -> list[dict[str, Any]]:
    return [doc for name, doc in ears.documents("results") if name == "stop"]


def run_of(source: str, ears: ZmqEars) -> list[tuple[str, dict[str, Any]]]:
    """The documents that were heard of the result of a run, up to its stop document."""
    heard = ears.documents("results")
    for at, (name, doc) in enumerate(heard):
        if name == "start" and doc.get("original_run_uid") == source:
            names = [one for one, _ in heard[at:]]
            return heard[at : at + names.index("stop") + 1] if "stop" in names else heard[at:]
    return []


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (66,)


def _as_evil_pickle(doc: Any) -> bytes:
    return to_msgpack(doc) if not doc else pickle.dumps(_Evil())


def test_an_address_at_which_no_proxy_listens_is_told_once(monkeypatch) -> None:
    monkeypatch.setattr(zmq_bus, "_CONNECT_S", 0.2)
    said: list[str] = []
    intake = ZmqIntake(BusAddress.parse("0mq://127.0.0.1:1"), said.append)
    try:
        for _ in range(8):
            assert intake.receive(0.1) is None
    finally:
        intake.close()
    assert len(said) == 1
    assert said[0].startswith("no connection to 0mq://127.0.0.1:1 for 0.2 s: no proxy listens")


def test_keys_of_curve_let_us_in_and_wrong_ones_are_refused_in_words(tmp_path) -> None:
    import zmq
    import zmq.auth

    keys = {}
    for who in ("server", "client", "stranger"):
        keys[who] = [Path(file) for file in zmq.auth.create_certificates(tmp_path, who)]
    server = zmq.Context.instance().socket(zmq.PUB)
    public, secret = zmq.auth.load_certificate(keys["server"][1])
    assert secret is not None
    server.curve_publickey, server.curve_secretkey, server.curve_server = public, secret, True
    port = server.bind_to_random_port("tcp://127.0.0.1")
    text = f"0mq://127.0.0.1:{port}"

    def address(**options: Path) -> BusAddress:
        return BusAddress.parse(text, {key: str(path) for key, path in options.items()})

    said: dict[str, list[str]] = {"right": [], "wrong": []}
    options = {"secret_path": keys["client"][1], "server_public_key": keys["server"][0]}
    right = ZmqIntake(address(**options), said["right"].append)
    options["server_public_key"] = keys["stranger"][0]
    wrong = ZmqIntake(address(**options), said["wrong"].append)
    deadline = time.monotonic() + WAIT_S
    message = None
    while message is None:
        assert time.monotonic() < deadline
        server.send(b" start " + to_msgpack({"uid": "x"}))
        message = right.receive(0.1)
    assert document_in(message) == ("start", {"uid": "x"})
    assert said["right"] == [f"connected to {text}"]
    assert wrong.receive(0.2) is None
    assert f"connected to {text}" not in said["wrong"]
    for one in (right, wrong):
        one.close()
    server.close(0)
    for odd, why in (
        ({"secret_path": keys["client"][0], "server_public_key": keys["server"][0]}, "no secret"),
        ({"secret_path": tmp_path / "none", "server_public_key": keys["server"][0]}, "can't be"),
        ({"secret_path": keys["client"][1]}, "can't be used"),
        ({"secret": keys["client"][1]}, "it takes secret_path, server_public_key"),
    ):
        with pytest.raises(ConfigError, match=why):
            ZmqIntake(address(**odd), lambda words: None)
