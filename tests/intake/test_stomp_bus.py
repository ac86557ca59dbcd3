"""STOMP with a real broker on loopback, in the messages of blueapi."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from support.buses import WAIT_S, Listener, listening, stomp_broker
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.errors import BusError
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.stomp_bus import StompIntake, StompOutlet

stomp = pytest.importorskip("stomp")
pytest.importorskip("coilmq")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
GRID = small_grid(4, 5)
EVENTS = "/topic/public.worker.event"


class Client(stomp.ConnectionListener):
    """Sends as blueapi does, and hears results."""

    def __init__(self, port: int) -> None:
        self.heard: list[dict[str, Any]] = []
        self.changed = threading.Condition()
        self.connection = stomp.Connection11([("127.0.0.1", port)], auto_content_length=False)
        self.connection.set_listener("", self)
        self.connection.connect(wait=True)
        self.connection.subscribe("/topic/results", id="1")

    def on_message(self, frame: Any) -> None:
        with self.changed:
            self.heard.append(orjson.loads(frame.body))
            self.changed.notify_all()

    def send(self, message: Any) -> None:
        body = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
        self.connection.send(EVENTS, body, headers={"JMSType": "TextMessage"})

    def wait_for_stops(self, number: int) -> list[tuple[str, dict[str, Any]]]:
        def stops() -> int:
            return sum(one["name"] == "stop" for one in self.heard)

        with self.changed:
            assert self.changed.wait_for(lambda: stops() >= number, WAIT_S)
        return [(one["name"], one["doc"]) for one in self.heard]

    def fly(self, run: str) -> list[tuple[str, Any]]:
        """Publish a run, and what else blueapi says meanwhile, to the same topic."""
        documents = list(map_run(GRID, truth(GRID), run))
        self.send({"state": "RUNNING", "taskStatus": {"taskId": "1"}, "errors": [], "warnings": []})
        for name, doc in documents:
            self.send({"name": name, "doc": doc, "taskId": "1"})
            self.send({"taskId": "1", "statuses": {"x": {"displayName": "rows", "percentage": 50}}})
        return documents


def connected(listener: Listener, times: int) -> None:
    # The intake connects on its own, and the outlet with the first result.
    listener.wait_for("connected to stomp", "worker.event", times=times)


def test_maps_that_blueapi_publishes_are_analysed_also_after_the_broker_was_away(
    bicubic_model,
) -> None:
    with stomp_broker() as port:
        pass
    results = f"stomp://127.0.0.1:{port}/topic/results"
    with listening(f"stomp://127.0.0.1:{port}{EVENTS}", "--publish", results) as listener:
        listener.wait_for("no connection to stomp")
        with stomp_broker(port):
            connected(listener, 1)
        listener.wait_for("is lost")
        with stomp_broker(port):
            connected(listener, 2)
            client = Client(port)
            documents = client.fly("later")
            expected = replay(documents).digest
            assert listener.digest_of("later") == expected
            assert digest(client.wait_for_stops(1)) == expected
            client.connection.disconnect()
            assert listener.end() == 0


@contextlib.contextmanager
def hanging_broker(says: bytes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Take connections, say that much, and neither read nor say anything more."""
    taken: list[socket.socket] = []

    def take() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                taken.append(tls.wrap_socket(connection, True) if tls else connection)
                taken[-1].recv(4096)
                taken[-1].sendall(says)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=take, daemon=True).start()
        yield f"stomp://127.0.0.1:{server.getsockname()[1]}/topic/results"
        server.shutdown(socket.SHUT_RDWR)
    for one in taken:
        one.close()


def ends_within(seconds: float, call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call, daemon=True)
    began = time.monotonic()
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"hangs after {time.monotonic() - began:.1f} s"


def test_a_broker_that_hangs_keeps_neither_a_result_nor_the_end(tmp_path: Path) -> None:
    with hanging_broker(b"CONNECTED\nversion:1.1\nheart-beat:1000,1000\n\n\x00") as address:
        outlet = StompOutlet(BusAddress.parse(address), lambda words: None)

        def send() -> None:
            with pytest.raises(BusError, match="it takes no more within 1 s"):
                outlet.send("run", [bytes(10_000_000)], 1.0)

        ends_within(10.0, send)
        ends_within(5.0, lambda: outlet.close(1.0))
    pytest.importorskip("cryptography")
    from xrf_sr_plans.cluster.keys import make_keys

    (keys,) = make_keys(tmp_path / "keys", hosts=["127.0.0.1"])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    told: list[str] = []
    with hanging_broker(b"", tls) as address:
        known = BusAddress.parse(address, {"ca_file": str(keys / "ca.pem")})
        intake = StompIntake(known, told.append)
        ends_within(12.0, lambda: intake.receive(0.1))
        ends_within(5.0, intake.close)
    assert "no answer in 5 s" in told[0]
