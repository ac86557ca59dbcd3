"""Completion of `xrf-sr` in a shell: commands, options, and the names that options take."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from xrf_sr_plans.cli import app
from xrf_sr_plans.config.examples import names

RUNNER = CliRunner()


def completed(line: str, shell: str = "bash") -> list[str]:
    """Return what a shell is offered after a line that ends where the cursor is."""
    words = line.split()
    place = len(words) if line.endswith(" ") else len(words) - 1
    environment = {
        "_XRF_SR_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(place),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = RUNNER.invoke(app, [], prog_name="xrf-sr", env=environment)
    return done.output.split("\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_are_offered_by_how_they_begin(shell: str) -> None:
    offered = "\n".join(completed("xrf-sr en", shell))
    assert "enhance" in offered
    assert "evaluate" not in offered
    assert "check" in "\n".join(completed("xrf-sr config ", shell))


def test_options_are_offered() -> None:
    offered = completed("xrf-sr enhance --")
    assert {"--factor", "--reader", "--sampling"} <= set(offered)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("enhance x.h5 --reader ma", ["maps"]),
        ("enhance x.h5 --sampling r", ["rows"]),
        ("enhance x.h5 --format o", ["ome-tiff"]),
        ("evaluate x.h5 --model folded-sh", ["folded-shared"]),
        ("hallucinate --model folded-sh", ["folded-shared"]),
        ("replay --reader hx", ["hxn"]),
    ],
)
def test_the_names_that_options_take_are_offered(line: str, offered: list[str]) -> None:
    assert [one for one in completed(f"xrf-sr {line}") if one] == offered


def test_the_names_of_examples_are_offered() -> None:
    assert set(names()) <= set(completed("xrf-sr config example "))
    assert [one for one in completed("xrf-sr config example s") if one] == ["simulated", "srx"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_a_shell_is_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.completion._get_shell_name", lambda: shell)
    done = RUNNER.invoke(app, ["--show-completion"], prog_name="xrf-sr")
    assert done.exit_code == 0
    assert "_XRF_SR_COMPLETE" in done.output
