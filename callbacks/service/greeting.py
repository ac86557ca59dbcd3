"""The first line that either side of a worker's pipes says, before any frame.

The worker greets as soon as it runs: who it is and which versions it has. A login script on the
way may print before it, which is passed over. The session greets with the variables that the
worker's libraries read when they are loaded, since ssh passes no environment on. So this module
imports neither numpy nor anything that does.
"""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import BinaryIO

from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.sr.process_environment import THREAD_VARIABLES, process_environment

PROTOCOL = 1
"""Which frames and messages are understood. Another number stands for others."""
LOG_VARIABLES = ("XRF_SR_LOG_LEVEL", "XRF_SR_LOG_FORMAT")
"""How the worker logs; as in `config.logs`, which can't be imported here."""
_FROM_WORKER = b"xrf-sr-worker "
_FROM_SESSION = b"xrf-sr-session "
_MOST_NOISE = 2**16
"""Bytes before the worker's greeting, and length of either greeting, that are read at most."""


@dataclass(frozen=True)
class Greeting:
    """Who a worker is, and what it has."""

    protocol: int
    version: str
    """Version of this package."""
    python: str
    numpy: str
    torch: str
    """Version of torch; empty: it is not installed."""
    host: str
    pid: int

    @classmethod
    def of_this_process(cls) -> Greeting:
        """Return the greeting of the process that asks."""
        versions = (_installed(name) for name in ("xrf-sr-plans", "numpy", "torch"))
        own, numpy, torch = versions
        host = socket.gethostname()
        return cls(PROTOCOL, own, platform.python_version(), numpy, torch, host, os.getpid())

    def line(self) -> bytes:
        """Return the line that the worker says."""
        return _FROM_WORKER + json.dumps(asdict(self)).encode() + b"\n"

    def __str__(self) -> str:
        torch = f"torch {self.torch}" if self.torch else "no torch"
        return (
            f"process {self.pid} on {self.host}: xrf-sr-plans {self.version}, "
            f"Python {self.python}, numpy {self.numpy}, {torch}"
        )


def mismatch(worker: Greeting, session: Greeting) -> str:
    """Return the sentence that refuses a worker of another version, or "".

    Python, numpy and torch may differ. Results name the versions that they were made with.
    """
    if worker.version != session.version:
        what, theirs, ours = "xrf-sr-plans", worker.version, session.version
    elif worker.protocol != session.protocol:
        what, theirs, ours = "the protocol", str(worker.protocol), str(session.protocol)
    else:
        return ""
    return (
        f"the worker on {worker.host} has {what} {theirs}, this session {ours}: both must have "
        "the same; install it there and start the session again"
    )


def read_greeting(stream: BinaryIO) -> tuple[Greeting | None, str]:
    """Return a worker's greeting, or None where it ended without a word, and what came before it.

    Raises
    ------
    WorkerError
        The other side said something else, and then nothing or too much.
    """
    noise = b""
    while len(noise) < _MOST_NOISE:
        line = stream.readline(_MOST_NOISE)
        before, mark, rest = line.partition(_FROM_WORKER)
        noise += before
        if mark:
            return _greeting(rest), _shown(noise)
        if not line:
            break
    if not noise.strip():
        return None, ""
    raise WorkerError(f"instead of a worker's greeting it said {_shown(noise)!r}")


def session_line(variables: Mapping[str, str]) -> bytes:
    """Return the line that a session says first, with variables for the worker's environment."""
    return _FROM_SESSION + json.dumps(dict(variables)).encode() + b"\n"


def read_session_line(stream: BinaryIO) -> dict[str, str]:
    """Return the variables that a session gives; {} where it has closed before it said a word.

    Raises
    ------
    WorkerError
        What came is no session's line.
    """
    # The mark alone at first: what is no line may have no end either.
    mark = b""
    while mark != _FROM_SESSION and _FROM_SESSION.startswith(mark):
        more = stream.read(len(_FROM_SESSION) - len(mark))
        if not more:
            break
        mark += more
    if not mark:
        return {}
    try:
        if mark != _FROM_SESSION:
            raise ValueError(f"it begins with {mark!r}")
        variables = json.loads(stream.readline(_MOST_NOISE))
        return {str(name): str(value) for name, value in variables.items()}
    except (ValueError, AttributeError) as error:
        raise WorkerError(
            f"the input is not what a session says: {error}; the worker is started by a session, "
            "and nothing on the way, such as a login script, may read its input"
        ) from error


def take_over(given: Mapping[str, str], environment: MutableMapping[str, str]) -> None:
    """Put what a session gives into the environment, of the few variables that it may set.

    What is set there about caches is kept.
    """
    for name in (*THREAD_VARIABLES, *LOG_VARIABLES):
        if name in given:
            environment[name] = given[name]
    for name in process_environment(1, {}):
        if name in given:
            environment.setdefault(name, given[name])


def _greeting(text: bytes) -> Greeting:
    try:
        told = json.loads(text)
        # A later version may say more, and an earlier one less.
        values = {one.name: told.get(one.name, "") for one in fields(Greeting)}
        return Greeting(**{**values, "protocol": int(told["protocol"]), "pid": int(told["pid"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WorkerError(f"the worker's greeting is damaged: {text[:200]!r}") from error


def _shown(noise: bytes) -> str:
    return " ".join(noise.decode(errors="replace").split())[:200]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a source tree on PYTHONPATH, or an extra that isn't there
        return "0+unknown" if name == "xrf-sr-plans" else ""


OWN = Greeting.of_this_process()
"""As this process was started: what is installed may be replaced while it runs."""
