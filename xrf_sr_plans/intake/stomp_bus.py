"""STOMP, as blueapi uses it: each message is an object with name and document in JSON."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xrf_sr_plans.errors import BusError, MissingExtraError, in_words
from xrf_sr_plans.intake.addresses import BusAddress, check_options
from xrf_sr_plans.intake.bus import Told
from xrf_sr_plans.intake.messages import Message, Place
from xrf_sr_plans.intake.serializers import to_json

if TYPE_CHECKING:
    import stomp

_HEARTBEAT_MS = 10_000
_CONNECT_S = 5.0
"""Longest wait for the broker to accept a connection."""
_STUCK_S = 1.0
"""Longest wait for a socket that neither takes nor gives anything."""
_AGAIN_S = 2.0
"""Time between two attempts to connect."""
_MAX_WAITING = 10_000
"""Number of messages that wait here; more of them wait with the broker."""
_OPTIONS = ("user", "password", "ca_file")


class _Connection:
    """A connection to a broker that is made again when it is lost."""

    def __init__(self, address: BusAddress, told: Told) -> None:
        check_options("STOMP", address.client, _OPTIONS)
        self.address = address
        self.told = told
        self.receipts: set[str] = set()
        self.errors: list[str] = []
        self.messages: queue.Queue[bytes] = queue.Queue(_MAX_WAITING)
        self.changed = threading.Condition()
        """Notified, under its lock, of receipts, errors and what becomes of the connection."""
        self.closed = False
        self._problem = ""
        self._next_attempt_s = 0.0
        self._is_up = False
        self.client = self._made()

    def connect(self, subscribe_to: str = "") -> bool:
        """Make the connection where there is none; return whether there is one."""
        if self.client.is_connected():
            return True
        now = time.monotonic()
        if now < self._next_attempt_s:
            return False
        self._next_attempt_s = now + _AGAIN_S
        problem = self._attempt(subscribe_to)
        if problem and problem != self._problem:
            self.told(f"no connection to {self.address} ({problem}); it is tried again")
        self._problem = problem
        if problem:
            return False
        self.told(f"connected to {self.address}")
        return True

    def close(self) -> None:
        """End the connection."""
        self.closed = True
        self._drop(self.client)

    def lost(self, client: stomp.Connection11) -> None:
        """Take note that a connection is lost; called by the client's thread."""
        if client is not self.client or self.closed or not self._is_up:
            return
        self._is_up = False
        with self.changed:
            self.changed.notify_all()
        self.told(
            f"the connection to {self.address} is lost and is made again; "
            "what is sent meanwhile does not come"
        )

    def _attempt(self, subscribe_to: str) -> str:
        """Try once to connect; return why that failed, or ""."""
        stomp = _imported_stomp()
        options = self.address.client
        login = {}
        if "user" in options:
            login = {"username": options["user"], "passcode": options.get("password", "")}
        self.errors.clear()
        client = self.client = self._made()
        try:
            # Its own wait has no end where a broker accepts the connection and says nothing.
            client.connect(wait=False, with_connect_command=True, **login)
            _bound(client, _STUCK_S)
            with self.changed:
                self.changed.wait_for(lambda: client.is_connected() or self.errors, _CONNECT_S)
            if not client.is_connected():
                self._drop(client)
                return self.errors[0] if self.errors else f"no answer in {_CONNECT_S:g} s"
            if subscribe_to:
                client.subscribe(subscribe_to, id="xrf-sr", ack="auto")
        except (stomp.exception.StompException, OSError) as error:
            self._drop(client)
            return in_words(error)
        self._is_up = True
        return ""

    def drop(self) -> None:
        """End the connection as it is, so that it is made again."""
        self._drop(self.client)

    @staticmethod
    def _drop(client: stomp.Connection11) -> None:
        _bound(client, _STUCK_S)
        with contextlib.suppress(_imported_stomp().exception.StompException, OSError):
            client.disconnect()
        client.transport.disconnect_socket()

    def _made(self) -> stomp.Connection11:
        stomp = _imported_stomp()
        client = stomp.Connection11(
            list(self.address.hosts),
            heartbeats=(_HEARTBEAT_MS, _HEARTBEAT_MS),
            auto_decode=False,
            reconnect_attempts_max=1,
            timeout=_CONNECT_S,
        )
        if ca_file := self.address.client.get("ca_file"):
            client.set_ssl(for_hosts=list(self.address.hosts), ca_certs=str(ca_file))
        client.set_listener("xrf-sr", _listener(self, client))
        return client


class StompIntake:
    """The documents of a destination; an `xrf_sr_plans.intake.bus.Intake`.

    Parameters
    ----------
    address
        Broker and destination, such as ``/topic/public.worker.event`` of blueapi. Its client
        options are ``user``, ``password`` and ``ca_file``, which turns on TLS.
    told
        Called with a sentence when the connection is made or lost.

    Raises
    ------
    ConfigError
        Another option is given.
    MissingExtraError
        stomp.py is not installed.
    """

    def __init__(self, address: BusAddress, told: Told) -> None:
        self._connection = _Connection(address, told)
        self._destination = address.topics[0]

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message; None where none has come within the time."""
        connected = self._connection.connect(self._destination)
        messages = self._connection.messages
        try:
            body = messages.get(timeout=timeout_s if connected else min(timeout_s, _AGAIN_S))
        except queue.Empty:
            return None
        return Message(body, self._destination)

    def hold(self, timeout_s: float) -> bool:
        """Return False, as a topic of STOMP keeps no messages."""
        return False

    def settle(self, places: Sequence[Place]) -> None:
        """Do nothing, as a topic of STOMP keeps no messages."""

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


class StompOutlet:
    """Results to a destination; an `xrf_sr_plans.intake.bus.Outlet`.

    Parameters
    ----------
    address
        Broker and destination.
    told
        Called with a sentence when the connection is made or lost.

    Raises
    ------
    ConfigError
        An option of the client is none of ``user``, ``password``, ``ca_file``.
    MissingExtraError
        stomp.py or orjson is not installed.
    """

    max_bytes: int | None = None
    how_to_raise = ""

    def __init__(self, address: BusAddress, told: Told) -> None:
        to_json({})
        self._connection = _Connection(address, told)
        self._destination = address.topics[0]

    def pack(self, name: str, doc: dict[str, Any]) -> bytes:
        """Return the message of a document."""
        return to_json({"name": name, "doc": doc})

    def send(self, run: str, messages: Sequence[bytes], timeout_s: float) -> None:
        """Send the messages of a run, and wait until the broker says that it has the last one.

        Raises
        ------
        BusError
            It did not, within the time.
        """
        connection = self._connection
        deadline = time.monotonic() + timeout_s
        while not connection.connect():
            if time.monotonic() > deadline:
                raise BusError(f"no connection to {connection.address}")
            time.sleep(0.1)
        receipt = uuid.uuid4().hex
        connection.errors.clear()
        stomp = _imported_stomp()
        try:
            for number, message in enumerate(messages, start=1):
                last = {"receipt": receipt} if number == len(messages) else {}
                headers = {"correlation-id": run, **last}
                _bound(connection.client, max(deadline - time.monotonic(), _STUCK_S))
                connection.client.send(
                    self._destination, message, content_type="application/json", headers=headers
                )
        except (stomp.exception.StompException, OSError) as error:
            # A part of a message may be out, behind which nothing else would be understood.
            connection.drop()
            stuck = isinstance(error, BlockingIOError)
            why = f"it takes no more within {timeout_s:g} s" if stuck else in_words(error)
            raise BusError(f"{connection.address}: {why}") from error
        with connection.changed:
            connection.changed.wait_for(
                lambda: (
                    receipt in connection.receipts
                    or bool(connection.errors)
                    or not connection.client.is_connected()
                ),
                max(deadline - time.monotonic(), 0.0),
            )
            arrived = receipt in connection.receipts
            connection.receipts.discard(receipt)
        if not arrived:
            why = connection.errors[0] if connection.errors else "it has not confirmed them"
            raise BusError(f"{connection.address}: {why}")

    def close(self, timeout_s: float) -> None:
        """End the connection, as `send` waits until all has left."""
        self._connection.close()


def _imported_stomp() -> Any:
    try:
        import stomp
    except ImportError as error:
        raise MissingExtraError("STOMP", "stomp") from error
    return stomp


def _bound(client: stomp.Connection11, timeout_s: float) -> None:
    """Let a socket wait for the broker no longer than that, which its client never bounds.

    It has no timeout while it reads and writes, nor while it ends TLS. A broker that hangs would
    keep the client, and whoever closes it, for ever.
    """
    connected = client.transport.socket
    timeval = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    if connected is not None:
        with contextlib.suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)


def _listener(connection: _Connection, client: stomp.Connection11) -> Any:
    """Return what the client calls from its own thread."""
    stomp = _imported_stomp()

    class Listener(stomp.ConnectionListener):
        def on_connected(self, frame: Any) -> None:
            with connection.changed:
                connection.changed.notify_all()

        def on_message(self, frame: Any) -> None:
            body = frame.body.encode() if isinstance(frame.body, str) else bytes(frame.body)
            # It waits where too many do, and so does the broker.
            while not connection.closed:
                with contextlib.suppress(queue.Full):
                    connection.messages.put(body, timeout=1.0)
                    return

        def on_receipt(self, frame: Any) -> None:
            with connection.changed:
                connection.receipts.add(frame.headers.get("receipt-id", ""))
                connection.changed.notify_all()

        def on_error(self, frame: Any) -> None:
            words = f"{frame.headers.get('message', '')} {frame.body!r:.200}".strip()
            with connection.changed:
                connection.errors.append(words)
                connection.changed.notify_all()
            if client.is_connected():
                connection.told(f"{connection.address} says: {words}")

        def on_disconnected(self) -> None:
            connection.lost(client)

    return Listener()
