"""What is typed while a survey waits is understood, or refused with what can be typed."""

from __future__ import annotations

import os
import pty
import threading

import pytest

from xrf_sr_plans.console.answers import Answer, AnswerReader, parsed
from xrf_sr_plans.errors import RefusedError


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("approve(1, 3)", Answer("approve", (1, 3))),
        ("approve 1 3\n", Answer("approve", (1, 3))),
        ("1,3", Answer("approve", (1, 3))),
        ("all", Answer("approve")),
        ("none", Answer("deny")),
        ("deny(2, why='too hot')", Answer("deny", (2,), why="too hot")),
        ("deny 2 why=too hot", Answer("deny", (2,), why="too hot")),
        ("edit(1, pad_um=2)", Answer("edit", (1,), {"pad_um": 2.0})),
        ("edit 1 x_low_um=-3.5", Answer("edit", (1,), {"x_low_um": -3.5})),
        (
            "add x_low_um=0 x_high_um=1 y_low_um=0 y_high_um=1",
            Answer("add", (), {"x_low_um": 0, "x_high_um": 1, "y_low_um": 0, "y_high_um": 1}),
        ),
    ],
)
def test_answers_are_typed_as_calls_or_as_words(line, answer):
    assert parsed(line) == answer


@pytest.mark.parametrize(
    "line", ["hello", "approve one", "approve 1 pad_um=2", "(", "1.5", "edit 1 x=a"]
)
def test_what_is_no_answer_is_refused_with_what_can_be_typed(line):
    with pytest.raises(RefusedError, match="is no answer; type approve 1 3 / deny 2"):
        parsed(line)


def test_lines_are_read_only_while_something_waits_and_the_terminal_is_nobody_elses():
    main, terminal = pty.openpty()
    got, read, may = [], threading.Event(), threading.Event()

    def take(line: str) -> None:
        got.append(line.strip())
        read.set()

    with os.fdopen(terminal, "r") as stream:
        reader = AnswerReader(take, may.is_set, stream)
        reader.begin()
        os.write(main, b"early\n")
        assert not read.wait(0.6)
        may.set()
        assert read.wait(10)
        reader.end()
        read.clear()
        os.write(main, b"late\n")
        assert not read.wait(1.0)
    os.close(main)
    assert got == ["early"]
