"""Many units in processes and on a real Dask cluster: what dies, what is lost, what is refused."""

from __future__ import annotations

import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from xrf_sr_plans.bulk.execute import executed
from xrf_sr_plans.bulk.units import Job
from xrf_sr_plans.cluster.connection import ClusterAddress, connect
from xrf_sr_plans.cluster.lanes import resources_of
from xrf_sr_plans.errors import AnalysisError, ConfigError

pytestmark = pytest.mark.timeout(300)
TESTS = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Number:
    key: str


@dataclass(frozen=True)
class Said:
    key: str
    worker: int = 0
    error: str = ""


def lost(unit: Number, why: str) -> Said:
    return Said(unit.key, error=why)


def job(work: Any, *needs: Any) -> Job[Number, Said]:
    return Job("number", work, lost, needs)


def numbers(count: int) -> list[Number]:
    return [Number(f"{index}") for index in range(count)]


def tell(unit: Number, seconds: float = 0.0, deadly: str = "") -> Said:
    time.sleep(seconds)
    if unit.key == deadly:
        os._exit(1)
    return Said(unit.key, os.getpid())


def raises(unit: Number) -> Said:
    raise AssertionError(f"work should never raise, as {unit.key} does")


def other_than(folder: str) -> str:
    """Return why the asking worker can't take units: it was the second one to be asked."""
    mine = Path(folder) / "first"
    try:
        mine.open("x").write(str(os.getpid()))
    except FileExistsError:
        return "" if mine.read_text() == str(os.getpid()) else "it is the other worker"
    return ""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    # A unit is given up by the scheduler once it was with two workers that died, not with four.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster


def at(cluster: Any) -> ClusterAddress:
    return ClusterAddress(cluster.scheduler_address)


def test_a_unit_that_kills_its_process_is_named_and_costs_no_other() -> None:
    dies = functools.partial(tell, seconds=0.1, deadly="1")
    reports = {one.key: one.error for one in executed(numbers(4), job(dies), workers=2)}
    assert sorted(reports) == ["0", "1", "2", "3"]
    assert [key for key, error in reports.items() if error] == ["1"]
    assert "died" in reports["1"]


def test_all_workers_of_a_cluster_share_the_units(cluster: Any) -> None:
    work = functools.partial(tell, seconds=0.02)
    reports = list(executed(numbers(30), job(work), cluster=at(cluster)))
    assert sorted(int(one.key) for one in reports) == list(range(30))
    assert len({one.worker for one in reports}) == 2
    assert list(executed([], job(work), cluster=at(cluster))) == []


def test_a_unit_that_kills_its_workers_is_named_and_costs_no_other(cluster: Any) -> None:
    dies = functools.partial(tell, seconds=0.05, deadly="3")
    reports = {one.key: one.error for one in executed(numbers(9), job(dies), cluster=at(cluster))}
    assert len(reports) == 9
    assert [key for key, error in reports.items() if error] == ["3"]
    assert "died" in reports["3"]


def test_what_raises_although_it_should_not_is_a_report(cluster: Any) -> None:
    (report,) = executed(numbers(1), job(raises), cluster=at(cluster))
    assert "work should never raise" in report.error


def test_workers_that_lack_something_are_refused_before_anything_runs(
    cluster: Any, tmp_path: Path
) -> None:
    cluster.wait_for_workers(2, timeout=60)
    done = tmp_path / "done"
    work = functools.partial(touch, path=str(done))
    needs = functools.partial(other_than, str(tmp_path))
    with pytest.raises(ConfigError, match=r"worker tcp://\S+: it is the other worker"):
        list(executed(numbers(4), job(work, needs), cluster=at(cluster)))
    assert not done.exists()


def touch(unit: Number, path: str) -> Said:
    Path(path).touch()
    return Said(unit.key)


def test_workers_of_another_version_are_refused(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from xrf_sr_plans.bulk import on_dask

    older = functools.partial(on_dask.Fitness, versions={"numpy": "1.0"})
    monkeypatch.setattr(on_dask, "Fitness", older)
    with pytest.raises(ConfigError, match=r"differ: numpy 1\.0 here and"):
        list(executed(numbers(1), job(tell), cluster=at(cluster)))


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Processes:
    """A scheduler and workers in processes of their own, as on hosts."""

    def __init__(self) -> None:
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.running: list[subprocess.Popen[bytes]] = []

    def scheduler(self) -> subprocess.Popen[bytes]:
        port = self.address.rsplit(":", 1)[1]
        return self._start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def worker(self, *options: str) -> subprocess.Popen[bytes]:
        alone = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "60")
        return self._start("worker", self.address, *alone, *options)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join([str(TESTS / "bulk"), *sys.path])
        started = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.running.append(started)
        return started

    def end(self) -> None:
        for process in self.running:
            process.kill()
            process.wait(20)


@pytest.fixture
def processes() -> Iterator[Processes]:
    pytest.importorskip("distributed")
    processes = Processes()
    try:
        yield processes
    finally:
        processes.end()


def test_a_scheduler_that_is_killed_and_started_again_is_given_the_rest(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.LOOK_S", 0.5)
    first = processes.scheduler()
    processes.worker()
    work = functools.partial(tell, seconds=0.1)
    reports: list[Said] = []
    where = ClusterAddress(processes.address)

    def start_again() -> None:
        first.kill()
        first.wait(20)
        processes.scheduler()
        processes.worker()

    collect(reports, executed(numbers(12), job(work), cluster=where), 4, start_again)
    assert sorted(int(one.key) for one in reports) == list(range(12))
    assert not any(one.error for one in reports)


def collect(
    into: list[Said], reports: Iterator[Said], number: int, then: Callable[[], object]
) -> None:
    """Take all reports, and do something after so many of them."""
    for report in reports:
        into.append(report)
        if len(into) == number:
            then()


def connect_impatiently(where: ClusterAddress, timeout_s: float = 20.0) -> Any:
    """Return a client that gives up a second after the scheduler is gone."""
    client = connect(where, timeout_s)
    client._timeout = 1.0
    return client


def test_a_scheduler_that_is_gone_is_told_and_what_was_done_was_told_before(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.LOOK_S", 0.5)
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.RECONNECT_TIMEOUT_S", 1.0)
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.connect", connect_impatiently)
    scheduler = processes.scheduler()
    processes.worker()
    reports: list[Said] = []
    work, where = functools.partial(tell, seconds=0.1), ClusterAddress(processes.address)
    with pytest.raises(AnalysisError, match="is gone for 1 s; what it had done is kept"):
        collect(reports, executed(numbers(12), job(work), cluster=where), 3, scheduler.kill)
    assert len(reports) >= 3


def test_a_worker_that_lacks_something_is_left_out_also_while_the_other_is_started_again(
    processes: Processes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.LOOK_S", 0.2)
    processes.scheduler()
    fit = processes.worker()
    reports: list[Said] = []
    work = functools.partial(tell, seconds=0.1)
    needs = functools.partial(marked_as_lacking, str(tmp_path))
    unfit = started = None
    where = ClusterAddress(processes.address)
    for report in executed(numbers(60), job(work, needs), cluster=where):
        reports.append(report)
        if unfit is None:
            unfit = processes.worker()
            (tmp_path / str(unfit.pid)).touch()
        elif started is None and "it lacks something" in caplog.text:
            fit.kill()
            fit.wait(20)
            started = processes.worker()
    assert unfit is not None
    assert started is not None
    assert sorted(int(one.key) for one in reports) == list(range(60))
    assert not any(one.error for one in reports)
    assert {one.worker for one in reports} <= {fit.pid, started.pid}


def marked_as_lacking(folder: str) -> str:
    return "it lacks something" if (Path(folder) / str(os.getpid())).exists() else ""


def test_units_wait_for_the_lane_that_can_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.LOOK_S", 0.2)
    distributed = pytest.importorskip("distributed")
    here: dict[str, Any] = {"host": "127.0.0.1", "dashboard_address": ":0"}
    workers = {
        lane: {
            "cls": distributed.Worker,
            "options": here | {"nthreads": 1, "resources": resources_of(lane)},
        }
        for lane in ("live", "bulk")
    }
    scheduler = {"cls": distributed.Scheduler, "options": here}
    with distributed.SpecCluster(workers=workers, scheduler=scheduler) as lanes:

        def change(spec: dict[str, Any]) -> None:
            lanes.worker_spec = spec
            lanes.sync(lanes._correct_state)

        reports: list[Said] = []
        for report in executed(numbers(9), job(worker_name), cluster=at(lanes)):
            reports.append(report)
            if len(reports) == 3:
                change({"live": workers["live"]})
                threading.Timer(1.0, change, [workers]).start()
                time.sleep(0.3)  # so that it is looked which workers there are
    assert sorted(int(one.key) for one in reports) == list(range(9))
    assert {one.error for one in reports} == {"bulk"}


def worker_name(unit: Number) -> Said:
    from distributed import get_worker

    return Said(unit.key, error=str(get_worker().name))


def test_a_cluster_without_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.FIRST_WORKER_TIMEOUT_S", 0.5)
    with (
        distributed.LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address=":0",
        ) as empty,
        pytest.raises(ConfigError, match="has no workers"),
    ):  # fmt: skip
        list(executed(numbers(1), job(tell), cluster=at(empty)))


def test_a_scheduler_that_hangs_is_told(
    processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.ANSWER_TIMEOUT_S", 0.7)
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.LOOK_S", 0.2)
    monkeypatch.setattr("xrf_sr_plans.bulk.on_dask.NO_WORKER_TIMEOUT_S", 1.0)
    scheduler = processes.scheduler()
    processes.worker()
    stop, where = lambda: scheduler.send_signal(signal.SIGSTOP), ClusterAddress(processes.address)
    with pytest.raises(AnalysisError, match="has had no worker for 1 s"):
        collect([], executed(numbers(50), job(tell), cluster=where), 1, stop)
