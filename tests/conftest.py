"""Shared by all tests: no test leaves the event loop of a RunEngine behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

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
