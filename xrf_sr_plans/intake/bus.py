"""`Intake` and `Outlet`: what a listener needs of a bus, whichever it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.messages import Message, Place

Told = Callable[[str], None]
"""Takes a sentence on what happens."""
TELL_AGAIN_S = 60.0
"""Seconds in which the same is told of the same only once."""


class Intake(Protocol):
    """Where messages come from."""

    def receive(self, timeout_s: float) -> Message | None:
        """Return the next message; None where none has come within the time.

        A lost connection is told and made again meanwhile; nothing is raised for it.

        Raises
        ------
        BusError
            It can't be made again.
        """
        ...

    def hold(self, timeout_s: float) -> bool:
        """Wait for that time and take nothing, where the bus keeps what comes meanwhile.

        Returns
        -------
        bool
            Whether it does; else nothing was waited for.
        """
        ...

    def settle(self, places: Sequence[Place]) -> None:
        """Let the bus forget messages up to these places, as nothing before them is needed."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class Outlet(Protocol):
    """Where results go."""

    max_bytes: int | None
    """Size of the largest message that the bus takes; None: the client knows no limit."""
    how_to_raise: str
    """What to set where that is too small, in words."""

    def pack(self, name: str, doc: dict[str, Any]) -> bytes:
        """Return the message of a document."""
        ...

    def send(self, run: str, messages: Sequence[bytes], timeout_s: float) -> None:
        """Send the messages of a run in their order, and wait until the bus has them.

        Raises
        ------
        BusError
            It did not take all of them within the time. Some may have been sent.
        """
        ...

    def close(self, timeout_s: float) -> None:
        """Let what is under way leave within the time, then end the connection."""
        ...


def open_intake(address: BusAddress, told: Told) -> Intake:
    """Connect to a bus that messages come from; return at once, also where it isn't there yet.

    Raises
    ------
    ConfigError
        The client does not take its options.
    MissingExtraError
        The client is not installed.
    """
    match address.kind:
        case "0mq":
            from xrf_sr_plans.intake.zmq_bus import ZmqIntake

            return ZmqIntake(address, told)
        case "kafka":
            from xrf_sr_plans.intake.kafka_bus import KafkaIntake

            return KafkaIntake(address, told)
        case "stomp":
            from xrf_sr_plans.intake.stomp_bus import StompIntake

            return StompIntake(address, told)


def open_outlet(address: BusAddress, told: Told) -> Outlet:
    """Connect to a bus that results go to; return at once, also where it isn't there yet.

    Raises
    ------
    ConfigError
        The client does not take its options, or the address names several topics.
    MissingExtraError
        The client is not installed.
    """
    match address.kind:
        case "0mq":
            from xrf_sr_plans.intake.zmq_bus import ZmqOutlet

            return ZmqOutlet(address, told)
        case "kafka":
            from xrf_sr_plans.intake.kafka_bus import KafkaOutlet

            return KafkaOutlet(address, told)
        case "stomp":
            from xrf_sr_plans.intake.stomp_bus import StompOutlet

            return StompOutlet(address, told)
