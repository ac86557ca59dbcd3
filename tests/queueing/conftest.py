from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.queue_servers import PERMISSIONS, STARTUP, QueueServer, free_ports, wait_for_manager


@pytest.fixture(scope="module")
def redis_port() -> Iterator[int]:
    """A Redis look-alike in a thread."""
    fakeredis = pytest.importorskip("fakeredis")
    (port,) = free_ports(1)
    server = fakeredis.TcpFakeServer(("127.0.0.1", port), server_type="redis")
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield port
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture(scope="module")
def queue_server(
    redis_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[QueueServer]:
    """Start a RE Manager with the simulated beamline's plans, environment open."""
    pytest.importorskip("bluesky_queueserver")
    api = pytest.importorskip("bluesky_queueserver_api.zmq")
    folder = tmp_path_factory.mktemp("manager")
    (folder / "user_group_permissions.yaml").write_text(PERMISSIONS)
    control, info = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    log = folder / "manager.log"
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TEST_CONTROL_ADDR": control,
        "TEST_INFO_ADDR": info,
        "TEST_DOCUMENTS": str(folder / "documents"),
        "TEST_SURVEYS": str(folder / "surveys"),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("start-re-manager")),
             "--startup-dir", str(STARTUP), "--keep-re",
             "--redis-addr", f"127.0.0.1:{redis_port}", "--redis-name-prefix", "xrf_sr_test",
             "--zmq-control-addr", control, "--zmq-info-addr", info,
             "--user-group-permissions", str(folder / "user_group_permissions.yaml"),
             "--existing-plans-devices", str(folder)],
            stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True,
        )  # fmt: skip
    # Two seconds, as usual, are too few where the machine is busy with other tests.
    client = api.REManagerAPI(zmq_control_addr=control, zmq_info_addr=info, timeout_recv=30)
    server = QueueServer(client, control, info, folder / "documents", log)
    try:
        wait_for_manager(client, process, log)
        client.environment_open()
        server.wait_until_idle(90)
        yield server
    finally:
        client.close()
        # The manager's children (watchdog, worker) are in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
