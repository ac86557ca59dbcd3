"""Kafka, with the brokers that are built into its client for tests: real sockets, no server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from support.buses import WAIT_S, listening
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.errors import BusError, ConfigError
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.kafka_bus import KafkaIntake, KafkaOutlet
from xrf_sr_plans.intake.messages import document_in
from xrf_sr_plans.intake.result_publisher import ResultPublisher

kafka = pytest.importorskip("confluent_kafka")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
GRID = small_grid(4, 5)


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    """The address of a broker, which ends with the producer that made it."""
    owner = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
    (one,) = owner.list_topics(timeout=WAIT_S).brokers.values()
    yield f"{one.host}:{one.port}"
    owner.flush(0)


@pytest.fixture
def publish(broker: str) -> Callable[[str, str, dict[str, Any]], None]:
    """Publish as bluesky-kafka does by default: pairs in msgpack, arrays as msgpack_numpy."""
    encode = pytest.importorskip("msgpack_numpy").encode
    producer = kafka.Producer({"bootstrap.servers": broker, "log_level": 0})

    def send(topic: str, name: str, doc: dict[str, Any]) -> None:
        producer.produce(topic, msgpack.packb([name, doc], default=encode), key="beamline")
        assert producer.flush(WAIT_S) == 0

    return send


def test_a_listener_that_is_killed_is_replaced_and_the_run_that_was_open_is_caught_up(
    broker, publish, tmp_path, bicubic_model
) -> None:
    client = tmp_path / "client.toml"
    client.write_text('[intake]\n"auto.offset.reset" = "earliest"\n"session.timeout.ms" = 6000\n')
    arguments = (
        f"kafka://{broker}/documents",
        *("--publish", f"kafka://{broker}/results", "--client", str(client)),
    )
    documents = {run: list(map_run(GRID, truth(GRID), run)) for run in ("first", "second")}
    for name, doc in documents["first"][:4]:
        publish("documents", name, as_arrays(doc))
    with listening(*arguments) as listener:
        listener.wait_for("run first has begun")
        listener.kill()
    for name, doc in [*documents["first"][4:], *documents["second"]]:
        publish("documents", name, as_arrays(doc))
    with listening(*arguments) as listener:
        for run, of_run in documents.items():
            assert listener.digest_of(run) == replay(of_run).digest
        assert listener.end() == 0
    published = results(broker)
    assert digest(published["first"]) == replay(documents["first"]).digest


def results(broker: str) -> dict[str, list[tuple[str, Any]]]:
    """The documents of two results, by the run that they are of, as a listener would read them."""
    intake = KafkaIntake(
        BusAddress.parse(
            f"kafka://{broker}/results", {"auto.offset.reset": "earliest", "log_level": 0}
        ),
        lambda words: None,
    )
    found: list[list[tuple[str, Any]]] = []
    deadline = time.monotonic() + WAIT_S
    while sum(run[-1][0] == "stop" for run in found) < 2:
        assert time.monotonic() < deadline
        message = intake.receive(0.5)
        if message is None:
            continue
        document = document_in(message)
        assert document is not None
        if document[0] == "start":
            found.append([])
        found[-1].append(document)
    intake.close()
    return {run[0][1]["original_run_uid"]: run for run in found}


def test_what_is_held_comes_later_in_its_order(broker) -> None:
    address = BusAddress.parse(
        f"kafka://{broker}/held", {"auto.offset.reset": "earliest", "log_level": 0}
    )
    outlet, intake = (
        KafkaOutlet(address, lambda words: None),
        KafkaIntake(address, lambda words: None),
    )
    numbers = [f"{number}".encode() for number in range(40)]
    came: list[bytes] = []

    def receive(upto: int) -> None:
        deadline = time.monotonic() + WAIT_S
        while len(came) < upto:
            assert time.monotonic() < deadline
            if message := intake.receive(0.1):
                came.append(message.body)

    outlet.send("run", numbers[:20], WAIT_S)
    assert intake.hold(0.1), "also before there is a connection"
    receive(10)
    assert all(intake.hold(0.1) for _ in range(5))
    outlet.send("run", numbers[20:], WAIT_S)
    receive(25)
    assert intake.hold(0.1)
    receive(40)
    assert came == numbers
    intake.close()


def test_a_result_above_the_limit_of_the_bus_is_told_and_a_run_says_so(broker) -> None:
    told: list[str] = []
    address = BusAddress.parse(f"kafka://{broker}/large", {"message.max.bytes": 50_000})
    outlet = KafkaOutlet(address, told.append)
    publisher = ResultPublisher(outlet, told.append)
    stop = {"uid": "2", "run_start": "1", "exit_status": "success", "num_events": {"enhanced": 1}}
    for name, doc in (
        ("start", {"uid": "1", "original_run_uid": "map"}),
        ("event", {"data": {"estimate": np.zeros((150, 150), "<f4")}}),
        ("stop", stop),
    ):
        publisher(name, doc)
    assert publisher.failures == 1
    assert "its event document has 0.09 MB, and the bus takes 0.05 MB" in told[0]
    assert "message.max.bytes" in told[0]
    assert "result_dir" in told[0]
    intake = KafkaIntake(
        BusAddress.parse(f"kafka://{broker}/large", {"auto.offset.reset": "earliest"}), told.append
    )
    came: list[Any] = []
    deadline = time.monotonic() + WAIT_S
    while len(came) < 2:
        assert time.monotonic() < deadline
        if message := intake.receive(0.5):
            came.append(document_in(message))
    intake.close()
    (_, start), (_, end) = came
    assert (start["result_uid"], end["run_start"]) == ("1", start["uid"])
    assert (end["exit_status"], end["num_events"]) == ("fail", {})
    assert "0.09 MB" in end["reason"]


def test_a_broker_that_is_not_there_is_told_in_time() -> None:
    told: list[str] = []
    outlet = KafkaOutlet(
        BusAddress.parse("kafka://127.0.0.1:9/results", {"log_level": 0}), told.append
    )
    with pytest.raises(BusError, match="took 0 of 1 documents in 1 s"):
        outlet.send("run", [b"one"], 1.0)
    outlet.close(0.0)


def test_an_option_that_the_client_does_not_know_is_refused() -> None:
    address = BusAddress.parse("kafka://127.0.0.1:9/topic", {"grupp.id": "x"})
    with pytest.raises(ConfigError, match=r"grupp\.id"):
        KafkaIntake(address, lambda words: None)


def as_arrays(doc: dict[str, Any]) -> dict[str, Any]:
    """The document of a detector that hands out arrays."""
    if "data" not in doc:
        return doc
    data = {key: [np.asarray(one) for one in column] for key, column in doc["data"].items()}
    return {**doc, "data": data}
