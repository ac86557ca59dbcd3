"""Kafka, as bluesky-kafka uses it: each message is a pair of name and document in msgpack."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xrf_sr_plans.errors import BusError, ConfigError, MissingExtraError, in_words
from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.bus import TELL_AGAIN_S, Told
from xrf_sr_plans.intake.messages import Message, Place
from xrf_sr_plans.intake.serializers import to_msgpack

_MESSAGE_MAX_BYTES = 1_000_000
"""The limit of the client, unless its option message.max.bytes says otherwise."""
_ROOM_BYTES = 1000
"""What key and header of a message take of that."""
_POLL_S = 0.1


class KafkaIntake:
    """The documents of topics; an `xrf_sr_plans.intake.bus.Intake`.

    What has been read is committed only by `settle`, so that whoever takes over gets the runs again
    that were not finished. Without an earlier commit, it begins with what comes from now on.

    Parameters
    ----------
    address
        Brokers and topics. Its client options go to the client as they are, such as
        ``security.protocol``; ``group.id`` is ``xrf-sr-`` and the topics unless given.
    told
        Called with a sentence on what happens to the connection.

    Raises
    ------
    ConfigError
        The client refuses its options.
    MissingExtraError
        confluent-kafka is not installed.
    """

    def __init__(self, address: BusAddress, told: Told) -> None:
        kafka = _imported_kafka()
        self._address = address
        self._told = told
        self._say = _rarely(address, told)
        options = {
            "group.id": f"xrf-sr-{'-'.join(address.topics)}",
            "auto.offset.reset": "latest",
            **_options(address, self._say),
            "enable.auto.commit": False,
            "enable.partition.eof": False,
        }
        self._consumer = _made(kafka.Consumer, options, address)
        self._is_held = False
        self._early: deque[Any] = deque()
        self._consumer.subscribe(list(address.topics), on_assign=self._assigned)

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message; None where none has come within the time.

        Raises
        ------
        BusError
            The client has given up.
        """
        if self._is_held:
            self._is_held = False
            self._consumer.resume(self._consumer.assignment())
        message = self._early.popleft() if self._early else self._polled(timeout_s)
        if message is None:
            return None
        if message.error() is not None:
            self._say(message.error())
            return None
        place = Place(message.topic(), message.partition(), message.offset())
        return Message(message.value() or b"", message.topic(), place=place)

    def hold(self, timeout_s: float) -> bool:
        """Wait for that time and take nothing; the brokers keep it.

        The client is asked all the same, as a member of the group that asks for nothing counts as
        gone after a while.

        Raises
        ------
        BusError
            The client has given up.
        """
        # Each time, as partitions may have come from another member of the group.
        self._is_held = True
        self._consumer.pause(self._consumer.assignment())
        message = self._polled(timeout_s)
        if message is not None:
            self._early.append(message)
        return True

    def settle(self, places: Sequence[Place]) -> None:
        """Commit the places, so that whoever takes over goes on behind them."""
        kafka = _imported_kafka()
        offsets = [
            kafka.TopicPartition(place.topic, place.partition, place.offset + 1) for place in places
        ]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except kafka.KafkaException as error:
            # Another member of the group may have the partition now. It reads from there again.
            self._told(f"{self._address}: where we are can't be committed: {in_words(error)}")

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()

    def _polled(self, timeout_s: float) -> Any:
        try:
            return self._consumer.poll(timeout_s)
        except _imported_kafka().KafkaException as error:
            raise BusError(f"{self._address} can't be read any more: {in_words(error)}") from error

    def _assigned(self, _consumer: Any, partitions: Sequence[Any]) -> None:
        topics = sorted({partition.topic for partition in partitions})
        self._told(f"connected to {self._address}, reading {', '.join(topics) or 'nothing'}")


class KafkaOutlet:
    """Results to a topic; an `xrf_sr_plans.intake.bus.Outlet`.

    Parameters
    ----------
    address
        Brokers and the one topic. Its client options go to the client as they are.
    told
        Called with a sentence on what happens to the connection.

    Raises
    ------
    ConfigError
        There are several topics, or the client refuses its options.
    MissingExtraError
        confluent-kafka is not installed.
    """

    how_to_raise = "message.max.bytes in the table publish of --client, and on the topic"

    def __init__(self, address: BusAddress, told: Told) -> None:
        kafka = _imported_kafka()
        if len(address.topics) != 1:
            raise ConfigError(f"results go to one topic; {address} names {len(address.topics)}")
        self._address = address
        limit = int(address.client.get("message.max.bytes", _MESSAGE_MAX_BYTES))
        self.max_bytes: int | None = limit - _ROOM_BYTES
        # In their order and once, also where a broker is away for a while.
        options = {"enable.idempotence": True, **_options(address, _rarely(address, told))}
        self._producer = _made(kafka.Producer, options, address)

    def pack(self, name: str, doc: dict[str, Any]) -> bytes:
        """Return the message of a document."""
        return to_msgpack([name, doc])

    def send(self, run: str, messages: Sequence[bytes], timeout_s: float) -> None:
        """Send the messages of a run, and wait until the broker has them.

        Raises
        ------
        BusError
            The broker did not take them, or not within the time.
        """
        kafka = _imported_kafka()
        deadline = time.monotonic() + timeout_s
        failures: list[str] = []
        arrived: list[Any] = []

        def delivered(error: Any, message: Any) -> None:
            if error is None:
                arrived.append(message.offset())
            else:
                failures.append(error.str())

        for message in messages:
            while True:
                try:
                    self._producer.produce(
                        self._address.topics[0], message, key=run, on_delivery=delivered
                    )
                    break
                except BufferError as error:
                    # What waits in the client has to leave first.
                    self._producer.poll(_POLL_S)
                    if time.monotonic() > deadline:
                        raise BusError(f"{self._address} is too slow") from error
                except kafka.KafkaException as error:
                    raise BusError(f"{self._address}: {in_words(error)}") from error
        while len(arrived) + len(failures) < len(messages) and time.monotonic() < deadline:
            self._producer.poll(_POLL_S)
        if failures:
            raise BusError(f"{self._address}: {failures[0]}")
        if len(arrived) < len(messages):
            raise BusError(
                f"{self._address} took {len(arrived)} of {len(messages)} documents in "
                f"{timeout_s:g} s; it may still take the others"
            )

    def close(self, timeout_s: float) -> None:
        """Let what is under way leave within the time."""
        self._producer.flush(timeout_s)


def _imported_kafka() -> Any:
    try:
        import confluent_kafka
    except ImportError as error:
        raise MissingExtraError("Kafka", "kafka") from error
    return confluent_kafka


def _rarely(address: BusAddress, told: Told) -> Callable[[Any], None]:
    """Return what tells of errors of the client, each kind once in `TELL_AGAIN_S`.

    It meets them again and again while a broker is away.
    """
    told_at: dict[int, float] = {}

    def say(error: Any) -> None:
        now_s = time.monotonic()
        if now_s - told_at.get(error.code(), -TELL_AGAIN_S) >= TELL_AGAIN_S:
            told_at[error.code()] = now_s
            told(f"{address}: {error.str()}")

    return say


def _options(address: BusAddress, say: Callable[[Any], None]) -> Mapping[str, Any]:
    return {
        "client.id": "xrf-sr",
        **address.client,
        "bootstrap.servers": address.servers,
        "error_cb": say,
    }


def _made(kind: Any, options: Mapping[str, Any], address: BusAddress) -> Any:
    try:
        return kind(dict(options))
    except (_imported_kafka().KafkaException, TypeError, ValueError) as error:
        raise ConfigError(f"the client of {address} can't be made: {in_words(error)}") from error
