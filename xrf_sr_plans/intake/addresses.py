"""Addresses of buses, such as ``0mq://localhost:5578``, ``kafka://host:9092/topic``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from xrf_sr_plans.errors import ConfigError, in_words

Kind = Literal["0mq", "kafka", "stomp"]
ClientOptions = Mapping[str, str | int | float | bool]
"""What the client of a bus is told besides the address: keys, passwords, limits."""

FORMS = (
    "0mq://HOST:PORT[/PREFIX], kafka://HOST:PORT[,HOST:PORT]/TOPIC[,TOPIC] "
    "or stomp://HOST:PORT/DESTINATION"
)
_ADDRESS = re.compile(r"(?P<kind>[a-z0-9]+)://(?P<hosts>[^/]+)(?:/(?P<rest>.*))?")
_HOST = re.compile(r"(?P<host>[^\s:@]+|\[[0-9a-fA-F:]+\]):(?P<port>\d{1,5})")
_KINDS: Mapping[str, Kind] = {"0mq": "0mq", "zmq": "0mq", "kafka": "kafka", "stomp": "stomp"}


@dataclass(frozen=True)
class BusAddress:
    """Where a bus is, and what is read or written there."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    """Host and port of each server; only Kafka has several."""
    topics: tuple[str, ...] = ()
    """Prefix (0MQ), topics (Kafka) or destination (STOMP)."""
    client: ClientOptions = field(default_factory=dict, repr=False)
    """What the client is told besides; it may hold a password."""

    @classmethod
    def parse(cls, text: str, client: ClientOptions | None = None) -> BusAddress:
        """Read an address.

        Raises
        ------
        ConfigError
            It has another form than `FORMS`. Passwords are refused in it, as others see them in
            the list of processes.
        """
        found = _ADDRESS.fullmatch(text)
        kind = _KINDS.get(found["kind"]) if found else None
        hosts = [_HOST.fullmatch(host) for host in found["hosts"].split(",")] if found else []
        rest = (found["rest"] or "") if found else ""
        if kind is None or not all(hosts) or (len(hosts) > 1 and kind != "kafka"):
            shown = re.sub(r"//[^/]*@", "//…@", text)
            raise ConfigError(f"bus is {shown!r}; it must be {FORMS}")
        if kind == "stomp":
            # ActiveMQ and RabbitMQ have destinations such as /topic/public.worker.event.
            topics: tuple[str, ...] = (f"/{rest}",) if rest else ()
        else:
            topics = tuple(topic for topic in rest.split(",") if topic)
        places = tuple((one["host"].strip("[]"), int(one["port"])) for one in hosts if one)
        address = cls(kind, places, topics, dict(client or {}))
        address._check(text)
        return address

    def _check(self, text: str) -> None:
        if self.kind != "0mq" and not self.topics:
            what = "a topic" if self.kind == "kafka" else "a destination such as /topic/NAME"
            raise ConfigError(f"bus {text!r} names no {what.removeprefix('a ')}; it needs {what}")
        if self.kind == "0mq" and (len(self.topics) > 1 or any(" " in one for one in self.topics)):
            raise ConfigError(f"bus {text!r}: a prefix of 0MQ is one word")
        for host, port in self.hosts:
            if not 0 < port < 2**16:
                raise ConfigError(f"bus {text!r}: port {port} of {host} is not from 1 to 65535")

    @property
    def servers(self) -> str:
        """The servers as ``host:port``, separated by commas."""
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts
        )

    def __str__(self) -> str:
        rest = ",".join(self.topics).removeprefix("/")
        return f"{self.kind}://{self.servers}" + (f"/{rest}" if rest else "")


@dataclass(frozen=True)
class Clients:
    """What the clients of both buses are told, from one file."""

    intake: ClientOptions = field(default_factory=dict, repr=False)
    publish: ClientOptions = field(default_factory=dict, repr=False)

    @classmethod
    def load(cls, path: Path | None) -> Clients:
        """Read a TOML file with the tables ``intake`` and ``publish``; None: there is none.

        Raises
        ------
        ConfigError
            The file can't be read, or holds anything else.
        """
        if path is None:
            return cls()
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"client file {path} can't be read: {in_words(error)}") from error
        if odd := sorted(tables.keys() - {"intake", "publish"}):
            raise ConfigError(
                f"client file {path} has {', '.join(odd)}; only the tables intake and publish count"
            )
        return cls(
            _options(path, "intake", tables.get("intake", {})),
            _options(path, "publish", tables.get("publish", {})),
        )


def check_options(kind: str, options: ClientOptions, known: tuple[str, ...]) -> None:
    """Refuse options of a client that nobody reads.

    Raises
    ------
    ConfigError
        There is one.
    """
    if odd := sorted(options.keys() - set(known)):
        raise ConfigError(f"client of {kind}: {', '.join(odd)}: it takes {', '.join(known)}")


def _options(path: Path, name: str, table: Any) -> ClientOptions:
    if isinstance(table, dict) and all(
        isinstance(value, str | int | float | bool) for value in table.values()
    ):
        return table
    raise ConfigError(f"client file {path}: {name} must be a table of texts and numbers")
