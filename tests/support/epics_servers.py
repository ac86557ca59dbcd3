"""The simulated IOC for tests, on ports where nobody else hears it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """Return a port that is free for TCP and UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]


def ca_environment() -> dict[str, str]:
    """Return an environment in which nobody but our own two processes is heard."""
    server, repeater = str(free_port()), str(free_port())
    others = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    return {
        **others,
        "OMP_NUM_THREADS": "1",
        "EPICS_CA_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_SERVER_PORT": server,
        "EPICS_CAS_SERVER_PORT": server,
        "EPICS_CA_REPEATER_PORT": repeater,
        "EPICS_CAS_BEACON_PORT": repeater,
    }


@contextmanager
def simulated_ioc(
    log_path: Path, environment: dict[str, str], *options: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Serve the PVs ``xrfsim:`` in a process, and end it afterwards."""
    with log_path.open("wb") as log:
        ioc = subprocess.Popen(
            [sys.executable, "-m", "xrf_sr_plans.devices.ioc", "--prefix", "xrfsim:", *options],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        yield ioc
    finally:
        ioc.kill()
        ioc.wait(10)
