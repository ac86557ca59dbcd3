"""Buses on loopback and a listener behind them, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xrf_sr_plans.intake.serializers import from_bytes

WAIT_S = 60.0

_PROXY = """
from bluesky.callbacks.zmq import Proxy
proxy = Proxy("127.0.0.1:%s", "127.0.0.1:%s")
print(proxy.in_port.rsplit(":", 1)[1], proxy.out_port.rsplit(":", 1)[1], flush=True)
proxy.start()
"""
_BROKER = r"""
from coilmq.queue import QueueManager
from coilmq.server.socket_server import ThreadedStompServer
from coilmq.store.memory import MemoryQueue
from coilmq.topic import TopicManager
from coilmq.util import frames

# CoilMQ 1.1 ends a connection where a frame comes in two packets.
parse_headers, frames.BodyNotTerminated = frames.parse_headers, frames.IncompleteFrame
def of_whole_headers(buffer):
    rest = buffer.getvalue()[buffer.tell():]
    begun = rest.lstrip(b"\r\n")
    if begun and b"\n\n" not in begun:
        raise frames.IncompleteFrame()
    buffer.seek(len(rest) - len(begun), 1)
    return parse_headers(buffer)
frames.parse_headers = of_whole_headers

server = ThreadedStompServer(
    ("127.0.0.1", %d), queue_manager=QueueManager(store=MemoryQueue()), topic_manager=TopicManager()
)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


class Listener:
    """The command `xrf-sr listen` in a process, and what it says."""

    def __init__(self, *arguments: str) -> None:
        program = str(Path(__file__).with_name("quick_listener.py"))
        self._process = subprocess.Popen(
            [sys.executable, program, "listen", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XRF_SR_NICE": "0", "OMP_NUM_THREADS": "1", "COLUMNS": "500"},
        )
        self.said: list[str] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, *words: str, times: int = 1) -> str:
        """Return the latest line with all these words, once there are that many."""
        with self._changed:
            found = self._changed.wait_for(lambda: len(self._with(words)) >= times, WAIT_S)
        assert found, f"not said: {words}; but: {self.said}"
        return self._with(words)[-1]

    def digest_of(self, run: str) -> str:
        return self.wait_for(run, "digest ").split("digest ")[1].split(":")[0].strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(WAIT_S)

    def end(self) -> int:
        """Ask it to end, as systemd would, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(WAIT_S)
        self._thread.join(5)
        return code

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        self._thread.join(5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _with(self, words: Sequence[str]) -> list[str]:
        return [line for line in self.said if all(word in line for word in words)]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self.said.append(line.rstrip())
                self._changed.notify_all()


@contextlib.contextmanager
def listening(*arguments: str) -> Iterator[Listener]:
    listener = Listener(*arguments)
    try:
        yield listener
    finally:
        listener.close()


@contextlib.contextmanager
def _server(script: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        ports = [int(port) for port in process.stdout.readline().split()]
        assert ports, "the server did not start"
        yield process, ports
    finally:
        process.kill()
        process.wait(WAIT_S)
        if process.stdout is not None:
            process.stdout.close()


@contextlib.contextmanager
def zmq_proxy(in_port: int | str = "*", out_port: int | str = "*") -> Iterator[tuple[int, int]]:
    """Run bluesky's proxy in a process; give the ports of publishers and of listeners."""
    with _server(_PROXY % (in_port, out_port)) as (_, ports):
        yield ports[0], ports[1]


@contextlib.contextmanager
def stomp_broker(port: int = 0) -> Iterator[int]:
    """Run CoilMQ in a process; give its port."""
    with _server(_BROKER % port) as (_, ports):
        yield ports[0]


class ZmqEars:
    """Whatever a proxy sends out."""

    def __init__(self, port: int) -> None:
        import zmq

        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt_string(zmq.SUBSCRIBE, "")
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self.heard: list[tuple[str, str, Any]] = []

    def hear(self, timeout_s: float = 0.1) -> bool:
        """Take what has come; return whether there was anything."""
        if not self._socket.poll(timeout_s * 1000):
            return False
        prefix, name, body = self._socket.recv().split(b" ", 2)
        with contextlib.suppress(Exception):
            self.heard.append((prefix.decode(), name.decode(), from_bytes(body)))
        return True

    def wait_for(self, met: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not met():
            assert time.monotonic() < deadline, "not heard"
            self.hear()

    def documents(self, prefix: str) -> list[tuple[str, Any]]:
        return [(name, doc) for sender, name, doc in self.heard if sender == prefix]

    def close(self) -> None:
        self._socket.close(0)


def joined_publisher(publisher: Any, ears: ZmqEars) -> Any:
    """Return a publisher once what it says comes through, as 0MQ drops what it says before."""
    deadline = time.monotonic() + WAIT_S
    before = len(ears.heard)
    while len(ears.heard) == before:
        assert time.monotonic() < deadline, "the proxy takes nothing"
        publisher("probe", {})
        ears.hear()
    return publisher
