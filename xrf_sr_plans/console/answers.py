"""Answers typed while a survey waits for approval, when the RunEngine has the prompt."""

from __future__ import annotations

import re
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from xrf_sr_plans.errors import RefusedError

Verb = Literal["approve", "deny", "edit", "add"]
_VERBS: dict[str, Verb] = {
    **dict.fromkeys(("approve", "yes", "y", "all"), "approve"),
    **dict.fromkeys(("deny", "no", "n", "none"), "deny"),
    "edit": "edit",
    "add": "add",
}
USAGE = "approve 1 3 / deny 2 / edit 1 pad_um=2 / all / none; Ctrl-C twice pauses"
_LOOK_S = 0.3


@dataclass(frozen=True)
class Answer:
    """What was typed: what to do with which regions."""

    verb: Verb
    numbers: tuple[int, ...] = ()
    values: dict[str, float] = field(default_factory=dict)
    why: str = ""


def parsed(line: str) -> Answer:
    """Return what a line says, such as ``approve 1 3``, ``deny(2, why="hot")`` or just ``1 3``.

    Raises
    ------
    RefusedError
        It says nothing of that kind; the message tells what can be typed.
    """
    why = ""
    if match := re.search(r"why\s*=\s*(\"[^\"]*\"|'[^']*'|.+)", line):
        why = match[1].strip().rstrip(")").strip().strip("\"'")
        line = line[: match.start()]
    words = [word for word in re.split(r"[\s,()]+", line) if word]
    verb: Verb | None = "approve"
    if words and not words[0].isdigit():
        verb = _VERBS.get(words.pop(0).lower())
    elif not words:
        verb = None
    numbers: list[int] = []
    values: dict[str, float] = {}
    for word in words:
        name, equals, value = word.partition("=")
        try:
            if equals and not name.endswith("_um"):
                raise ValueError(name)
            if equals:
                values[name] = float(value)
            else:
                numbers.append(int(word))
        except ValueError:
            verb = None
    if verb is None or (values and verb in ("approve", "deny")):
        raise RefusedError(f"{line.strip()!r:.60} is no answer; type {USAGE}")
    return Answer(verb, tuple(numbers), values, why)


class AnswerReader:
    """Read lines from the terminal as long as something is waited for.

    Parameters
    ----------
    take
        Called with each line.
    may_read
        Whether the terminal is not somebody else's, such as IPython's while the RunEngine is
        paused.
    stream
        Where lines are typed; None: the standard input. Nothing is read unless it is a terminal.
    """

    def __init__(
        self, take: Callable[[str], None], may_read: Callable[[], bool], stream: Any = None
    ) -> None:
        self._take = take
        self._may_read = may_read
        self._stream = stream
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to read, in a thread of its own."""
        stream = self._stream or sys.stdin
        if self._thread is not None or not hasattr(stream, "fileno") or not stream.isatty():
            return
        self._over.clear()
        self._thread = threading.Thread(
            target=self._read, args=(stream,), name="xrf-sr-answers", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Read no more."""
        self._over.set()
        self._thread = None

    def _read(self, stream: Any) -> None:
        over = self._over
        while not over.wait(0.0):
            if not self._may_read():
                over.wait(_LOOK_S)
                continue
            ready, _, _ = select.select([stream], [], [], _LOOK_S)
            if not ready or over.is_set() or not self._may_read():
                continue
            line = stream.readline()
            if not line:
                return
            if line.strip():
                self._take(line)
