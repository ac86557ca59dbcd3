"""Dask clusters of real processes on loopback, which tests may stop, kill and start again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from distributed import Client

from support.waiting import until

ODD_WORKER = Path(__file__).parent / "odd_dask_worker.py"
"""Preload of workers that are slow on demand."""
_ROOT = Path(__file__).parents[2]


class DaskCluster:
    """A scheduler at a port that stays the same, and workers.

    Parameters
    ----------
    folder
        Folder of logs and of the workers' files. A file ``slow`` in it makes workers that have the
        preload `ODD_WORKER` wait, once each time it is there, before they enhance a map.
    tls
        Arguments of the command line that name keys; with them it is ``tls://``.
    """

    def __init__(self, folder: Path, tls: tuple[str, ...] = ()) -> None:
        self.folder = folder
        self._tls = tls
        self._port = _free_port()
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{self._port}"
        self._scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    @property
    def scheduler(self) -> subprocess.Popen[bytes]:
        assert self._scheduler is not None
        return self._scheduler

    def start_scheduler(self) -> None:
        place = ["--host", self.address, "--port", str(self._port)]
        self._scheduler = self._start("dask_scheduler", *place)
        until(self._listens)

    def start_worker(self, *arguments: str) -> subprocess.Popen[bytes]:
        kept = ["--local-directory", str(self.folder)]
        preload = ["--preload", str(ODD_WORKER)]
        threads = ["--nthreads", "1", "--no-nanny"]
        worker = self._start("dask_worker", self.address, *threads, *preload, *kept, *arguments)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int, **how: object) -> None:
        with Client(self.address, set_as_default=False, timeout=60, **how) as client:
            client.wait_for_workers(count, timeout=60)

    def close(self) -> None:
        for process in [*self.workers, self.scheduler]:
            process.kill()
            process.wait(30)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.{module}"]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(_ROOT),
            "XRF_SR_TEST_FOLDER": str(self.folder),
            "DASK_DISTRIBUTED__DASHBOARD__LINK": "",
        }
        log = (self.folder / f"{module}.log").open("ab")
        with log:
            return subprocess.Popen(
                [*command, *arguments, "--dashboard-address", "127.0.0.1:0", *self._tls],
                stdout=log,
                stderr=log,
                env=environment,
                cwd=self.folder,
            )

    def _listens(self) -> bool:
        assert self.scheduler.poll() is None, (self.folder / "dask_scheduler.log").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1.0):
            return True
        return False


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
