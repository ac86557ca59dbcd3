"""A Dask cluster on this machine for other benchmarks, whose parts can be killed one by one.

The scheduler and the workers are those that `xrf-sr cluster` starts, each in a process group of its
own. Clients reach the scheduler through a `Relay`, so that their connections can be cut or stopped
while scheduler and workers go on.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

XRF_SR = [sys.executable, "-P", "-m", "xrf_sr_plans.cli"]
START_S = 90.0
"""Longest time for a cluster to start, in seconds."""


def free_port() -> int:
    """Return a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Relay:
    """Pass bytes between clients and one port of this machine, until told not to."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> int:
        """Close all connections, and return how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        return len(pairs)

    def stop(self, seconds: float) -> None:
        """Keep everything back for a while, as a network does that has stopped answering."""
        self._open.clear()
        threading.Timer(seconds, self._open.set).start()

    def close(self) -> None:
        """Take no connections any more and close those that there are."""
        self._open.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._to), timeout=5.0)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket) -> None:
        other = {client: server, server: client}
        try:
            with selectors.DefaultSelector() as ready:
                for end in other:
                    ready.register(end, selectors.EVENT_READ)
                while True:
                    for key, _ in ready.select():
                        end = key.fileobj
                        assert isinstance(end, socket.socket)
                        data = end.recv(2**18)
                        if not data:
                            return
                        self._open.wait()
                        other[end].sendall(data)
        except (OSError, ValueError):
            pass
        finally:
            for end in other:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()


class Cluster:
    """A scheduler and pairs of workers, which are started again when they are gone.

    Parameters
    ----------
    workers
        Number of pairs of workers, one for live maps and one for what can wait.
    log
        File that all their output goes to.
    """

    def __init__(self, workers: int, log: Path) -> None:
        self._workers = workers
        self._log = log.open("ab")
        self._port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._tend()
        self.relay = Relay(self._port)
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    @property
    def address(self) -> str:
        """The address for clients, which leads through the relay."""
        return f"tcp://127.0.0.1:{self.relay.port}"

    def wait(self) -> None:
        """Wait until all workers are there.

        Raises
        ------
        TimeoutError
            They are not in time.
        """
        from distributed import Client

        with Client(
            f"tcp://127.0.0.1:{self._port}", set_as_default=False, timeout=START_S
        ) as client:
            client.wait_for_workers(2 * self._workers, timeout=START_S)

    def pids(self, role: str) -> list[int]:
        """Return the processes of the scheduler or of the workers, those that they started too."""
        import psutil

        found = []
        for name, process in self._processes.items():
            if name.startswith(role) and process.poll() is None:
                with suppress(psutil.NoSuchProcess):
                    found += [child.pid for child in psutil.Process(process.pid).children(True)]
                found.append(process.pid)
        return found

    def close(self) -> None:
        """End everything."""
        self._over.set()
        self._keeper.join(5.0)
        self.relay.close()
        for process in self._processes.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10.0
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        self._log.close()

    def _keep(self) -> None:
        while not self._over.wait(0.5):
            self._tend()

    def _tend(self) -> None:
        commands = {"scheduler": ["scheduler", "--host", "127.0.0.1", "--port", str(self._port)]}
        for number in range(self._workers):
            commands[f"worker {number}"] = [
                "worker",
                f"tcp://127.0.0.1:{self._port}",
                "--workers",
                "1",
                "--name",
                f"host{number}",
            ]
        for name, command in commands.items():
            process = self._processes.get(name)
            if process is None or process.poll() is not None:
                self._processes[name] = subprocess.Popen(
                    [*XRF_SR, "cluster", *command],
                    stdout=self._log,
                    stderr=self._log,
                    start_new_session=True,
                )


def wait_until(true: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether something became true in time."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
