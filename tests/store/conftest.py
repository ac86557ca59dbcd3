from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.stored_runs import Document, fly


@pytest.fixture
def flown() -> list[Document]:
    """A run with a short row and a missing row."""
    return fly()


@pytest.fixture
def reflown() -> list[Document]:
    """The same, and row 2 twice, with one seq_num: paused between collect and checkpoint."""
    return fly(pause_after=2)


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An embedded Tiled catalog."""
    pytest.importorskip("tiled.server.app")
    pytest.importorskip("bluesky_tiled_plugins")
    from xrf_sr_plans.store.tiled import embedded_catalog

    with embedded_catalog(tmp_path_factory.mktemp("catalog")) as client:
        yield client


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """A real Tiled server on loopback, and a client of it."""
    pytest.importorskip("tiled.server.app")
    from tiled.client import from_uri

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tiled", "serve", "catalog", "--temp", "--api-key", "secret",
         "--host", "127.0.0.1", "--port", str(port)],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                client = from_uri(f"http://127.0.0.1:{port}", api_key="secret")
                break
            except Exception:  # noqa: BLE001 - whatever it says while it starts up
                assert process.poll() is None, "the server didn't start"
                assert time.monotonic() < deadline, "the server isn't up after 60 s"
                time.sleep(0.3)
        yield process, client
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
