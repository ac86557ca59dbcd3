"""bluesky's 0MQ proxy: ``prefix name document`` in one frame, over publish and subscribe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xrf_sr_plans.errors import BusError, ConfigError, MissingExtraError, in_words
from xrf_sr_plans.intake.addresses import BusAddress, check_options
from xrf_sr_plans.intake.bus import Told
from xrf_sr_plans.intake.messages import Message, Place
from xrf_sr_plans.intake.serializers import to_msgpack

if TYPE_CHECKING:
    import zmq

_HIGH_WATER = 100_000
"""Number of messages that wait in memory before 0MQ drops any."""
_MAX_MESSAGE_BYTES = 2**30
_CONNECT_S = 10.0
"""So long 0MQ, which tries on without a word, may take to connect before that is told."""
_CURVE = ("secret_path", "server_public_key")
"""What bluesky's ``ClientCurve`` is made of, with paths."""


class ZmqIntake:
    """The documents that a proxy sends out; an `xrf_sr_plans.intake.bus.Intake`.

    Parameters
    ----------
    address
        The out-address of the proxy and the prefix of the publishers to listen to; without a
        prefix, to all.
    told
        Called with a sentence when the connection is made or lost.

    Raises
    ------
    ConfigError
        The keys of CURVE can't be read, or another option is given.
    MissingExtraError
        pyzmq is not installed.
    """

    def __init__(self, address: BusAddress, told: Told) -> None:
        zmq = _imported_zmq()
        self._address = address
        self._told = told
        self._socket = _socket(zmq.SUB, address)
        self._socket.setsockopt(zmq.RCVHWM, _HIGH_WATER)
        prefix = f"{address.topics[0]} " if address.topics else ""
        self._socket.setsockopt_string(zmq.SUBSCRIBE, prefix)
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
        )
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._told_by: float | None = time.monotonic() + _CONNECT_S
        """When it is told that there is no connection; None: there is one, or it was told."""
        self._socket.connect(f"tcp://{address.servers}")

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message; None where none has come within the time."""
        ready = dict(self._poller.poll(timeout_s * 1000))
        if self._monitor in ready:
            self._tell()
        elif self._told_by is not None and time.monotonic() > self._told_by:
            self._told_by = None
            self._told(
                f"no connection to {self._address} for {_CONNECT_S:g} s: no proxy listens there, or"
                " its keys are others; it is tried again and again"
            )
        if self._socket not in ready:
            return None
        prefix, name, body = _parts(self._socket.recv())
        return Message(body, prefix or str(self._address), name)

    def hold(self, timeout_s: float) -> bool:
        """Return False, as 0MQ keeps no messages."""
        return False

    def settle(self, places: Sequence[Place]) -> None:
        """Do nothing, as 0MQ keeps no messages."""

    def close(self) -> None:
        """End the connection."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(0)

    def _tell(self) -> None:
        from zmq.utils.monitor import recv_monitor_message

        event = int(recv_monitor_message(self._monitor)["event"])
        if event == _imported_zmq().EVENT_DISCONNECTED:
            self._told_by = self._told_by or time.monotonic() + _CONNECT_S
            self._told(
                f"the connection to {self._address} is lost and is made again; "
                "what is sent meanwhile does not come"
            )
        else:
            self._told_by = None
            self._told(f"connected to {self._address}")


class ZmqOutlet:
    """Results to a proxy, as bluesky's publisher sends documents; an `intake.bus.Outlet`.

    A publisher of 0MQ drops what nobody has subscribed to. This one waits for a subscriber, which
    is the proxy, so that nothing is lost while there is none.

    Parameters
    ----------
    address
        The in-address of the proxy, and the prefix that results get.
    told
        Called with a sentence on what happens to the connection.

    Raises
    ------
    ConfigError
        The keys of CURVE can't be read, or another option is given.
    MissingExtraError
        pyzmq is not installed.
    """

    max_bytes: int | None = None
    how_to_raise = ""

    def __init__(self, address: BusAddress, told: Told) -> None:
        zmq = _imported_zmq()
        self._address = address
        self._told = told
        self._prefix = address.topics[0].encode() if address.topics else b""
        self._subscriptions: set[bytes] = set()
        self._socket = _socket(zmq.XPUB, address)
        self._socket.setsockopt(zmq.SNDHWM, _HIGH_WATER)
        # It waits where the proxy is slow, instead of dropping messages.
        self._socket.setsockopt(zmq.XPUB_NODROP, 1)
        self._socket.connect(f"tcp://{address.servers}")

    def pack(self, name: str, doc: dict[str, Any]) -> bytes:
        """Return the message of a document."""
        return b" ".join([self._prefix, name.encode(), to_msgpack(doc)])

    def send(self, run: str, messages: Sequence[bytes], timeout_s: float) -> None:
        """Send the messages of a run.

        Raises
        ------
        BusError
            Nobody takes them, or not fast enough.
        """
        zmq = _imported_zmq()
        deadline = time.monotonic() + timeout_s
        sent = 0
        while sent < len(messages):
            left_ms = max(int((deadline - time.monotonic()) * 1000), 0)
            if not self._is_wanted(messages[sent]):
                if not left_ms or not self._socket.poll(left_ms):
                    raise BusError(f"nobody takes results at {self._address}")
                # Another proxy knows nothing of what the one before it was sent.
                sent = 0
                continue
            self._socket.setsockopt(zmq.SNDTIMEO, left_ms)
            try:
                self._socket.send(messages[sent])
            except zmq.ZMQError as error:
                raise BusError(f"{self._address} is too slow: {in_words(error)}") from error
            sent += 1

    def close(self, timeout_s: float) -> None:
        """Let what is under way leave within the time, then end the connection."""
        self._socket.close(int(timeout_s * 1000))

    def _is_wanted(self, message: bytes) -> bool:
        """Return whether somebody has subscribed to a message."""
        while self._socket.poll(0):
            change = self._socket.recv()
            if change[:1] == b"\x01":
                self._subscriptions.add(change[1:])
            elif change[:1] == b"\x00":
                self._subscriptions.discard(change[1:])
        return any(message.startswith(wanted) for wanted in self._subscriptions)


def _imported_zmq() -> Any:
    try:
        import zmq
    except ImportError as error:
        raise MissingExtraError("0MQ", "zmq") from error
    return zmq


def _socket(kind: int, address: BusAddress) -> zmq.Socket[bytes]:
    zmq = _imported_zmq()
    check_options("0MQ", address.client, _CURVE)
    socket = zmq.Context.instance().socket(kind)
    socket.setsockopt(zmq.MAXMSGSIZE, _MAX_MESSAGE_BYTES)
    socket.setsockopt(zmq.IPV6, 1)
    if address.client:
        try:
            _use_curve(socket, address)
        except (OSError, ValueError, KeyError, zmq.ZMQError) as error:
            socket.close(0)
            raise ConfigError(f"the keys for {address} can't be used: {in_words(error)}") from error
    return socket


def _use_curve(socket: zmq.Socket[bytes], address: BusAddress) -> None:
    """Encrypt, and show who we are, as bluesky's ``ClientCurve`` does."""
    import zmq.auth

    public, secret = zmq.auth.load_certificate(str(address.client["secret_path"]))
    server, _ = zmq.auth.load_certificate(str(address.client["server_public_key"]))
    if secret is None:
        raise ValueError(f"{address.client['secret_path']} holds no secret key")
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.CURVE_SERVERKEY, server)


def _parts(frame: bytes) -> tuple[str, str, bytes]:
    """Return prefix, name of the document, and its bytes; a frame of another kind has no name."""
    parts = frame.split(b" ", 2)
    if len(parts) < 3:
        return "", "", frame
    prefix, name, body = parts
    return prefix.decode(errors="replace"), name.decode(errors="replace"), body
