"""What is read from a bus, what is refused, and what a user is told for it."""

from __future__ import annotations

import math
import pickle  # noqa: TID251 - what is refused
from typing import Any

import msgpack
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from xrf_sr_plans.cli.program import app
from xrf_sr_plans.config import Settings
from xrf_sr_plans.errors import ConfigError, MessageError, PickleRefusedError
from xrf_sr_plans.intake.addresses import BusAddress, Clients
from xrf_sr_plans.intake.messages import Message, document_in
from xrf_sr_plans.intake.serializers import from_bytes, to_json, to_msgpack
from xrf_sr_plans.intake.service import Listening, monitor_of

_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.text(), one, max_size=4),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    return repr(one) == repr(other)


@given(st.dictionaries(st.text(), _PLAIN, max_size=4))
def test_documents_come_back_from_msgpack_as_they_were(doc) -> None:
    assert same(from_bytes(to_msgpack(doc)), doc)


@given(st.binary(max_size=60))
def test_bytes_of_any_kind_are_read_or_refused(body) -> None:
    try:
        document_in(Message(body, "somebody", "event"))
    except MessageError:
        return


@pytest.mark.parametrize("kind", ["u1", "i8", "<f4", ">f8", "bool"])
def test_arrays_cross_as_bluesky_kafka_reads_and_writes_them(kind) -> None:
    numpy_codec = pytest.importorskip("msgpack_numpy")
    array = np.arange(6).reshape(2, 3).astype(kind)
    theirs = msgpack.packb({"data": array, "one": array[1, 1]}, default=numpy_codec.encode)
    read = from_bytes(theirs)
    assert read["data"].dtype == array.dtype
    assert np.array_equal(read["data"], array)
    assert read["one"] == array[1, 1]
    ours = msgpack.unpackb(to_msgpack({"data": array}), object_hook=numpy_codec.decode)
    assert np.array_equal(ours["data"], array)
    assert ours["data"].dtype == array.dtype


def test_an_array_of_objects_is_refused_as_it_would_be_a_pickle() -> None:
    numpy_codec = pytest.importorskip("msgpack_numpy")
    theirs = msgpack.packb({"data": np.array([{}, "x"], object)}, default=numpy_codec.encode)
    with pytest.raises(MessageError, match="no type of numbers"):
        from_bytes(theirs)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_recognised_and_not_read(protocol) -> None:
    with pytest.raises(PickleRefusedError, match="is a pickle"):
        from_bytes(pickle.dumps({"uid": "x"}, protocol))


@pytest.mark.parametrize("protocol", [0, 1])
def test_an_old_pickle_is_not_read_either(protocol) -> None:
    with pytest.raises(MessageError, match="neither msgpack nor JSON"):
        from_bytes(pickle.dumps({"uid": "x"}, protocol))


def test_what_no_serializer_holds_crosses_as_text_and_ends_no_scan() -> None:
    doc = {"large": 2**70, "odd": object, "set": {2, 1}, "time": np.float64(1.5)}
    read = from_bytes(to_msgpack(doc))
    assert read == {"large": str(2**70), "odd": repr(object), "set": [1, 2], "time": 1.5}


def test_json_has_the_same_numbers_and_null_where_nothing_was_measured() -> None:
    array = np.array([[0.1, math.nan]], dtype="f4")
    body = to_json({"data": array, "n": np.int64(3)})
    assert orjson.loads(body) == {"data": [[float(array[0, 0]), None]], "n": 3}


def test_messages_of_each_bus_hold_the_document() -> None:
    doc = {"uid": "x"}
    assert document_in(Message(to_msgpack(doc), "0mq", "start")) == ("start", doc)
    assert document_in(Message(to_msgpack(["start", doc]), "kafka")) == ("start", doc)
    of_blueapi = orjson.dumps({"name": "start", "doc": doc, "taskId": "1"})
    assert document_in(Message(of_blueapi, "stomp")) == ("start", doc)
    assert document_in(Message(b'{"state": "IDLE", "taskStatus": null}', "stomp")) is None
    for odd in (b'["start", 3]', b"[1]", b"", b"start", b'{"name": 1, "doc": {}}'):
        with pytest.raises(MessageError):
            document_in(Message(odd, "anybody"))


@pytest.mark.parametrize(
    ("text", "servers", "topics"),
    [
        ("0mq://localhost:5578", "localhost:5578", ()),
        ("zmq://[::1]:5578/hxn", "[::1]:5578", ("hxn",)),
        ("kafka://one:9092,two:9093/a,b", "one:9092,two:9093", ("a", "b")),
        ("stomp://mq:61613/topic/public.worker.event", "mq:61613", ("/topic/public.worker.event",)),
    ],
)
def test_an_address_says_where_a_bus_is(text, servers, topics) -> None:
    address = BusAddress.parse(text)
    assert (address.servers, address.topics) == (servers, topics)
    assert str(address) == text.replace("zmq:", "0mq:")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("localhost:5578", "it must be 0mq://"),
        ("amqp://localhost:5672/x", "it must be 0mq://"),
        ("0mq://one:1,two:2", "it must be 0mq://"),
        ("0mq://localhost:70000", "port 70000"),
        ("0mq://localhost:1/a,b", "one word"),
        ("kafka://localhost:9092", "needs a topic"),
        ("stomp://localhost:61613", "needs a destination"),
        ("stomp://me:secret@localhost:61613/topic/x", "…@localhost"),
    ],
)
def test_an_address_that_says_less_is_refused_and_shows_no_password(text, why) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        BusAddress.parse(text)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("[intakes]\nuser = 'x'", "has intakes"),
        ("[intake]\nuser = ['x']", "a table of texts and numbers"),
        ("intake = 3", "a table of texts and numbers"),
        ("[intake", "can't be read"),
    ],
)
def test_a_client_file_of_another_kind_is_refused(tmp_path, content, why) -> None:
    path = tmp_path / "client.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=why):
        Clients.load(path)
    with pytest.raises(ConfigError, match="can't be read"):
        Clients.load(tmp_path / "nowhere.toml")


def test_passwords_are_in_no_text_of_an_address() -> None:
    address = BusAddress.parse("stomp://mq:61613/topic/x", {"user": "me", "password": "secret"})
    assert "secret" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "results would go nowhere"),
        ({"store": "jsonl:x", "patience_s": -1.0}, "patience_s is -1"),
        ({"store": "jsonl:x", "silent_s": math.nan}, "silent_s is nan"),
        ({"publish": BusAddress.parse("kafka://h:1/a")}, "a topic of their own"),
        ({"store": "jsonl:x", "settings": Settings(analysis={"dask": "gpu1"})}, "is at 'gpu1'"),
    ],
)
def test_what_can_not_work_is_refused_before_anything_is_connected(changes, why) -> None:
    wanted = Listening(BusAddress.parse("kafka://h:1/a"), **{"settings": Settings(), **changes})
    with pytest.raises(ConfigError, match=why):
        wanted.check()


def test_the_status_of_a_listener_tells_of_its_cluster_as_that_of_a_session() -> None:
    settings = Settings(analysis={"dask": "tcp://localhost:8786"})
    health = monitor_of(Listening(BusAddress.parse("0mq://h:1"), settings=settings))
    try:
        assert "0 maps enhanced on tcp://localhost:8786" in str(health.report())
    finally:
        health.close()


def test_the_command_refuses_in_words(tmp_path) -> None:
    for arguments, why in (
        (["0mq:/localhost"], "it must be 0mq://"),
        (["0mq://localhost:1"], "results would go nowhere"),
        (["0mq://localhost:1", "--store", "jsonl:x", "--client", "no.toml"], "can't be read"),
    ):
        result = CliRunner().invoke(app, ["listen", *arguments])
        assert result.exit_code == 1
        assert why in str(result.exception)
