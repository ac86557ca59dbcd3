"""The commands `xrf-sr cluster …`, with real processes that speak TLS over loopback."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

distributed = pytest.importorskip("distributed")
pytest.importorskip("cryptography")

from xrf_sr_plans.cli.program import app  # noqa: E402
from xrf_sr_plans.cluster import check_workers  # noqa: E402
from xrf_sr_plans.cluster.connection import ClusterAddress, connect  # noqa: E402
from xrf_sr_plans.cluster.keys import make_keys  # noqa: E402
from xrf_sr_plans.cluster.lanes import placement  # noqa: E402
from xrf_sr_plans.cluster.status import cluster_status  # noqa: E402
from xrf_sr_plans.cluster.task import enhance_packed  # noqa: E402
from xrf_sr_plans.cluster.versions import versions_here  # noqa: E402
from xrf_sr_plans.errors import ConfigError  # noqa: E402
from xrf_sr_plans.packing import pack, unpack  # noqa: E402

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PATIENCE_S = 120.0


def until(what: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Return what a function returns, once that is something."""
    ends = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < ends, "it didn't happen"
        time.sleep(0.1)
    return found


class Command:
    """A command `xrf-sr cluster …` that goes on until it is ended."""

    def __init__(self, *arguments: str, log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "xrf_sr_plans.cli", "cluster", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def told(self, pattern: str) -> str:
        """Return what a pattern's group found, once the command has said it."""

        def found() -> re.Match[str] | None:
            said = re.search(pattern, self.log.read_text())
            assert said or self.process.poll() is None, self.log.read_text()
            return said

        return until(found)[1]

    def family(self) -> list[psutil.Process]:
        """Return the process and all that it started."""
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def end(self, number: int) -> int:
        """Send a signal and return the exit code; nothing that was started may be left.

        Ctrl-C at a terminal goes to all processes at once.
        """
        family = self.family()
        if number == signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        _, left = psutil.wait_procs(family, timeout=20)
        assert not left, self.log.read_text()
        return code

    def kill(self) -> None:
        """End whatever is left."""
        if self.process.poll() is None:
            family = self.family()
            for one in family:
                one.kill()
            psutil.wait_procs(family, timeout=20)
        self.process.wait(20)


@dataclass
class Running:
    """A scheduler and a pair of workers."""

    scheduler: Command
    worker: Command
    where: ClusterAddress
    keys: Path


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("cluster")
    host, beamline = make_keys(folder, hosts=["gpu1"]) + make_keys(folder, beamlines=["2idd"])
    at = ("--host", "127.0.0.1", "--port", "0", "--keys", str(host))
    scheduler = Command("scheduler", *at, "--dashboard", "", log=folder / "scheduler.log")
    workers = []
    try:
        address = scheduler.told(r'dask = "(tls://127\.0\.0\.1:\d+)"')
        with_keys = (address, "--keys", str(host), "--device", "cpu", "--name", "gpu1")
        workers.append(Command("worker", *with_keys, log=folder / "worker.log"))
        workers[0].told("(ready)")
        yield Running(scheduler, workers[0], ClusterAddress(address, str(beamline)), folder)
    finally:
        for command in (*workers, scheduler):
            command.kill()


def test_whoever_has_keys_gets_results_in_both_lanes(running: Running) -> None:
    with connect(running.where, PATIENCE_S) as client:
        for number, lane in enumerate(("live", "bulk")):
            where = client.submit(os.getenv, "OMP_NUM_THREADS", **placement(client, lane))
            assert where.result(timeout=PATIENCE_S) == "1"
            assert (
                client.submit(abs, -number, **placement(client, lane)).result(PATIENCE_S) == number
            )
        nice = client.run(os.nice, 0)
        names = {at: one["name"] for at, one in client.scheduler_info(-1)["workers"].items()}
        assert {names[at]: level for at, level in nice.items()} == {
            "gpu1-live-0": os.nice(0),
            "gpu1-bulk-0": min(os.nice(0) + 10, 19),
        }


def test_whoever_has_no_keys_or_those_of_others_is_refused_in_time(running: Running) -> None:
    (thief,) = make_keys(running.keys / "others", beamlines=["thief"])
    began = time.monotonic()
    for where in (
        ClusterAddress(running.where.address, str(thief)),
        ClusterAddress(running.where.address.replace("tls", "tcp")),
    ):
        with pytest.raises(ConfigError, match="no Dask scheduler at"):
            connect(where, timeout_s=20)
    with pytest.raises(ConfigError, match="needs keys"):
        connect(ClusterAddress(running.where.address))
    assert time.monotonic() - began < 60


def test_status_tells_lanes_workers_and_what_differs(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(running.where, PATIENCE_S) as client:
        failing = client.submit(int, "x", **placement(client, "live"))
        assert failing.exception(timeout=PATIENCE_S) is not None
        found = cluster_status(client, running.where.address, running.where.keys)
        assert found.problems == []
        lines = found.lines()
        assert ": ok: 2 workers (1 bulk, 1 live), up 0.0 h, " in lines[0]
        assert re.search(r"live: 0 running, 0 waiting, \d+ done, 1 failed, 0 cancelled", lines[1])
        assert {worker.name for worker in found.workers} == {"gpu1-live-0", "gpu1-bulk-0"}
        other = {**versions_here(), "numpy": "1.0"}
        monkeypatch.setattr(check_workers, "versions_here", lambda: other)
        differing = cluster_status(client, running.where.address)
        assert differing.problems == ["2 of 2 workers can't be used"]
        assert "TROUBLE" in differing.lines()[0]
        assert "numpy 1.0 here and" in str(differing.workers[0])


def test_the_clock_of_who_asks_for_the_status_may_be_wrong(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connect(running.where, PATIENCE_S) as client:
        right = time.time
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: right() + 3600.0)
            found = cluster_status(client, running.where.address)
        assert found.problems == []
        assert "up 0.0 h" in found.lines()[0]


def test_status_tells_what_became_of_the_maps(running: Running) -> None:
    with connect(running.where, PATIENCE_S) as client:
        request = pack({"versions": {"numpy": "1.0"}})
        reply = client.submit(enhance_packed, request, **placement(client, "live"))
        assert unpack(reply.result(timeout=PATIENCE_S))["state"] == "refused"

        def told() -> bool:
            # Workers tell it with their next heartbeat.
            found = cluster_status(client, running.where.address)
            return any("1 maps refused" in str(worker) for worker in found.workers)

        until(told)


def test_the_status_command_says_it_by_its_exit_code(running: Running) -> None:
    keys = str(running.where.keys)
    done = CliRunner().invoke(app, ["cluster", "status", running.where.address, "--keys", keys])
    assert done.exit_code == 0, done.output
    assert "2 workers" in done.output
    gone = CliRunner().invoke(app, ["cluster", "status", "tcp://127.0.0.1:1", "--timeout-s", "1"])
    assert isinstance(gone.exception, ConfigError)


def test_a_worker_that_is_killed_comes_back(running: Running) -> None:
    with connect(running.where, PATIENCE_S) as client:
        before = client.run(os.getpid)
        victim, pid = next(iter(before.items()))
        os.kill(pid, signal.SIGKILL)

        def is_back() -> bool:
            workers = client.scheduler_info(-1)["workers"]
            return victim not in workers and len(workers) == 2

        until(is_back)
        assert pid not in client.run(os.getpid).values()


def test_nothing_but_the_scheduler_is_reached_from_elsewhere(running: Running) -> None:
    family = running.scheduler.family() + running.worker.family()
    listening = [
        one.laddr.ip
        for each in family
        for one in each.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_a_scheduler_that_is_gone_ends_its_workers_in_words(running: Running) -> None:
    """Runs last: it ends the cluster of the others."""
    family = running.worker.family()
    running.scheduler.process.kill()
    assert running.worker.process.wait(PATIENCE_S) == 2
    assert not psutil.wait_procs(family, timeout=20)[1]
    assert "is gone, or ended a worker" in running.worker.log.read_text()


def test_a_cluster_of_one_machine_works_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    options = ("--port", "0", "--device", "cpu", "--workers", "1")
    command = Command("local", *options, log=tmp_path / "log")
    try:
        address = command.told(r'dask = "(tcp://127\.0\.0\.1:\d+)"')
        with connect(ClusterAddress(address), PATIENCE_S) as client:
            assert client.submit(abs, -1, **placement(client, "live")).result(PATIENCE_S) == 1
        assert command.end(signal.SIGINT) == 0
    finally:
        command.kill()


def test_a_scheduler_ends_as_systemd_ends_it(tmp_path: Path) -> None:
    at = ("--host", "127.0.0.1", "--port", "0", "--dashboard", "127.0.0.1:0")
    command = Command("scheduler", *at, log=tmp_path / "log")
    try:
        port = command.told(r'dask = "tcp://127\.0\.0\.1:(\d+)"')
        taken = CliRunner().invoke(
            app, ["cluster", "scheduler", *at[:2], "--port", port, "--dashboard", ""]
        )
        assert "can't be run: OSError" in str(taken.exception)
        assert "in use" in str(taken.exception)
        assert command.end(signal.SIGTERM) == 0
    finally:
        command.kill()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["scheduler"], "needs keys"),
        (["scheduler", "--host", "192.0.2.1"], "needs keys"),
        (["worker", "tcp://gpu1:8786", "--device", "cpu"], "another machine"),
        (["worker", "tls://gpu1:8786", "--device", "cpu"], "needs keys"),
        (["local", "--device", "tpu"], "auto, cpu or cuda"),
        (["scheduler", "--plain", "--dashboard", "8787"], "HOST:PORT is needed"),
        (["keys", "keys"], "no name to make keys for"),
    ],
)
def test_what_would_let_others_in_is_refused(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(app, ["cluster", *arguments])
    assert isinstance(refused.exception, ConfigError), refused.output
    assert told in str(refused.exception)


def test_a_beamline_s_keys_serve_nobody(tmp_path: Path) -> None:
    (beamline,) = make_keys(tmp_path, beamlines=["2idd"])
    refused = CliRunner().invoke(app, ["cluster", "scheduler", "--keys", str(beamline)])
    assert "are for asking a cluster" in str(refused.exception)
