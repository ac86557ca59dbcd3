"""Shared by all tests: no test leaves the event loop of a RunEngine behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from bluesky import RunEngine
from hypothesis import settings

# How long an example takes is a matter of the machine: each test has a limit of its own.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# The shipped profile, which some tests start in processes of their own, must not keep their runs
# in the home of whoever tests.
os.environ.setdefault("XRF_SR_STORE", "off")
os.environ.setdefault("XRF_SR_SURVEYS", "off")
# Nor may the proposals of their surveys.
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="xrf-sr-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take long, so that none of them is left for the end.

    Files are shared out to processes whole; the one that gets the longest file last is waited for.
    """
    patience: dict[Path, float] = {}
    for item in items:
        limit = item.get_closest_marker("timeout")
        is_slow = any(item.get_closest_marker(name) for name in ("slow", "e2e"))
        longest = float(limit.args[0]) if limit else float(is_slow)
        patience[item.path] = max(longest, patience.get(item.path, 0.0))
    items.sort(key=lambda item: -patience[item.path])


@pytest.fixture(autouse=True)
def closed_run_engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """End the thread and the event loop of every RunEngine that the test itself has made.

    bluesky never ends them: three file descriptors and a thread for each RunEngine. A thousand
    descriptors are too many for `select`, by which pexpect and redis wait.
    """
    made: list[RunEngine] = []
    make = RunEngine.__init__

    def noted(engine: RunEngine, *args: object, **kwargs: object) -> None:
        make(engine, *args, **kwargs)  # type: ignore[arg-type]
        made.append(engine)

    monkeypatch.setattr(RunEngine, "__init__", noted)
    yield
    for engine in made:
        engine.loop.call_soon_threadsafe(engine.loop.stop)
        engine._th.join(10)
        if not engine._th.is_alive():
            engine.loop.close()
