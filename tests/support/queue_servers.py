"""Starting a real RE Manager on loopback."""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STARTUP = Path(__file__).parents[1] / "queueing" / "startup"
PERMISSIONS = """
user_groups:
  root:
    allowed_plans: [null]
    allowed_devices: [null]
    allowed_functions: [null]
  primary:
    allowed_plans: [":.*"]
    allowed_devices: [":?.*:depth=3"]
    allowed_functions: []
"""


@dataclass
class QueueServer:
    """A real RE Manager on loopback."""

    client: Any
    control_addr: str
    info_addr: str
    documents: Path
    log: Path

    def wait_until_idle(self, timeout_s: float) -> None:
        try:
            self.client.wait_for_idle(timeout=timeout_s)
        except Exception as error:
            tail = self.log.read_text(errors="replace")[-4000:]
            raise AssertionError(
                f"manager not idle after {timeout_s} s: {error}\n{tail}"
            ) from error


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_for_manager(client: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.status(reload=True)
            return
        except Exception as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no manager: {log.read_text(errors='replace')}") from error
            time.sleep(0.3)
