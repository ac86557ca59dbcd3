"""A worker that another program reaches: what it is told and says first, and how it ends."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from support.row_documents import map_run, small_grid, truth
from support.ssh_servers import WORKER
from support.waiting import running, until
from xrf_sr_plans.callbacks.service import scratch_elsewhere
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.service.greeting import LOG_VARIABLES, OWN, Greeting, mismatch
from xrf_sr_plans.callbacks.service.messages import TO_WORKER, Configure
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings, Settings
from xrf_sr_plans.config.logs import FORMAT_VARIABLE, LEVEL_VARIABLE
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError, WorkerError
from xrf_sr_plans.session import start_session

WAIT_S = 60.0
GRID = small_grid(4, 10)
HERE = (sys.executable, "-P", str(WORKER))


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start analyses with such a worker; none survives the test."""
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.worker_supervisor._FIRST_BACKOFF_S", 0.005)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = []

    def begin(command=HERE, sinks=(), **settings):
        analysis = AnalysisProcess(AnalysisSettings(worker_command=command, **settings), sinks)
        started.append(analysis)
        return analysis

    yield begin
    for analysis in started:
        analysis.close(0.0)


def worker_pid(analysis):
    until(lambda: analysis.ready)
    return analysis.greeting.pid


def feed(analysis, run):
    for name, doc in map_run(GRID, truth(GRID), run):
        analysis.submit(run, name, doc)


def lost(analysis, run):
    """Feed a run that no worker takes, and return why."""
    feed(analysis, run)
    summary = analysis.request(run).result(WAIT_S)
    assert summary.status == "failed"
    return summary.reason


def scratch_folders(folder):
    return [path for path in folder.iterdir() if path.name.startswith(scratch_elsewhere.PREFIX)]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["sh", "-c", "echo Welcome to gpu1"], "instead of a worker's greeting it said 'Welcome"),
        (["cat"], "instead of a worker's greeting it said 'xrf-sr-session"),
        (["sh", "-c", "yes no | head -c 200000; sleep 60"], "instead of a worker's greeting"),
        (["sh", "-c", "echo no such host >&2; exit 255"], "exit code 255.*no such host"),
        (["sh", "-c", "echo 'xrf-sr-worker {}'"], "the worker's greeting is damaged"),
    ],
    ids=["banner", "echo", "flood", "ssh", "damaged"],
)
def test_what_is_no_worker_is_told_by_what_it_said(start, command, words):
    # An echo waits for more, so that only the time tells.
    analysis = start(command, max_restarts=0, hang_timeout_s=3.0 if command == ["cat"] else 120.0)
    assert re.search(words, lost(analysis, "one"))


def test_a_silent_command_is_given_up_in_time_though_no_run_waits(start, caplog):
    analysis = start(["sleep", "600"], max_restarts=0, hang_timeout_s=0.5)
    until(lambda: "no progress for 0.5 s" in caplog.text)
    assert "can't be started" in lost(analysis, "one")


def test_another_version_is_refused_once_and_the_map_is_bicubic(start, monkeypatch, caplog):
    monkeypatch.setenv("TEST_WORKER_VERSION", "9.9.9")
    analysis = start()
    reason = lost(analysis, "one")
    assert "has xrf-sr-plans 9.9.9, this session" in reason
    assert reason == lost(analysis, "two")
    fallen = analysis.fall_back("one", reason).result(WAIT_S)
    assert (fallen.status, fallen.reason) == ("fallback", reason)
    assert analysis.starts == 1
    assert caplog.text.count("9.9.9") == caplog.text.count("analysis: the worker on")


def test_versions_and_protocol_are_compared_and_libraries_may_differ():
    told = OWN.__dict__
    assert not mismatch(Greeting(**{**told, "numpy": "1.0", "python": "3.99", "torch": ""}), OWN)
    assert "the protocol 7" in mismatch(Greeting(**{**told, "protocol": 7}), OWN)
    assert (LEVEL_VARIABLE, FORMAT_VARIABLE) == LOG_VARIABLES


def test_a_worker_is_told_its_threads_before_numpy_is_loaded(start, tmp_path):
    analysis = start(threads=3, log_file=str(tmp_path / "log"), log_format="json")
    until(lambda: analysis.ready)
    log = (tmp_path / "log").read_text()
    assert "numpy loaded: False, variables {'OMP_NUM_THREADS': '3', 'LRU_CACHE" in log
    assert log.startswith('{"time": ')


def test_scratch_outlives_workers_and_not_the_session(start, tmp_path):
    analysis = start()
    first = worker_pid(analysis)
    (folder,) = scratch_folders(tmp_path)
    os.kill(first, signal.SIGKILL)
    until(lambda: analysis.starts == 2 and analysis.ready)
    assert scratch_folders(tmp_path) == [folder]
    second = worker_pid(analysis)
    analysis.close(1.0)
    until(lambda: not scratch_folders(tmp_path) and not running(second))


@pytest.mark.parametrize("how", ["link", "guard"])
def test_a_stopped_worker_ends_with_its_link(start, tmp_path, how):
    # As a shell would on the way: what is killed is not the parent of the worker.
    words = " ".join(HERE)
    analysis = start(["sh", "-c", f"cat | {words}; true"] if how == "link" else HERE)
    pid = worker_pid(analysis)
    os.kill(pid, signal.SIGSTOP)
    os.kill(analysis.pid, signal.SIGKILL) if how == "guard" else analysis.close(0.0)
    until(lambda: not running(pid))


def test_a_successor_ends_the_worker_that_nobody_hears_any_more(start, monkeypatch, tmp_path):
    # The network is silent: the first worker is still there, and so is its side of the link.
    name = scratch_elsewhere.new_name()
    settings = AnalysisSettings(worker_command=HERE)
    silent = WorkerProcess(settings, lambda worker, message: None)
    silent.queue(TO_WORKER.encode(Configure(settings, False, False, scratch_name=name)))
    silent.pump(WAIT_S)
    until(lambda: Path(tmp_path, name, "lock").exists())
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.worker_supervisor.new_name", lambda: name)
    successor = start()
    try:
        until(lambda: successor.ready)
        assert silent.greeting is not None
        until(lambda: not running(silent.greeting.pid))
        assert running(worker_pid(successor))
    finally:
        silent.end(0.0)


def test_folders_of_lost_sessions_are_deleted_and_others_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = []
    old, held, new = (scratch_elsewhere.new_name() for _ in range(3))
    for name in (old, held, new):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "lock").touch()
        (tmp_path / name / "owner").write_text("somebody")
        os.utime(tmp_path / name / "owner", (1.0, 1.0) if name != new else None)
    with open(tmp_path / held / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = scratch_elsewhere.take_scratch(
            scratch_elsewhere.new_name(), lambda what, value: told.append(what)
        )
    assert {path.name for path in tmp_path.iterdir()} == {held, new, Path(own).name}
    assert told == ["owner", "scratch"]


@pytest.mark.parametrize("name", ["", "../etc", "xrf-sr-worker-../../etc", "xrf-sr-worker-"])
def test_a_scratch_folder_is_no_other_folder(name):
    with pytest.raises(WorkerError, match="no name of a scratch folder"):
        scratch_elsewhere.take_scratch(name, None)


def test_a_scratch_folder_of_somebody_else_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    name = scratch_elsewhere.new_name()
    (tmp_path / name).symlink_to("/etc")
    with pytest.raises(WorkerError, match="not ours alone"):
        scratch_elsewhere.take_scratch(name, None)


def test_folders_that_the_worker_cannot_write_to_are_told_by_it(start, caplog):
    analysis = start(pair_dir="/dev/null/pairs", model="/nowhere/model.safetensors")
    until(lambda: analysis.ready)
    assert "pair_dir is '/dev/null/pairs'" in caplog.text
    assert "no file /nowhere/model.safetensors" in caplog.text


def test_the_command_is_a_list_of_words_in_the_file_and_in_the_environment(tmp_path):
    (tmp_path / "a.toml").write_text('[analysis]\nworker_command = ["ssh", "gpu1", "worker"]\n')
    loaded = Settings.load(tmp_path / "a.toml", {})
    assert loaded.analysis.worker_command == ("ssh", "gpu1", "worker")
    told = Settings.load(None, {"XRF_SR_WORKER_COMMAND": '["ssh", "gpu1", "worker"]'})
    assert told.analysis.worker_command == loaded.analysis.worker_command
    with pytest.raises(ConfigError, match="XRF_SR_WORKER_COMMAND"):
        Settings.load(None, {"XRF_SR_WORKER_COMMAND": "[]"})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"worker_command": []}, "at least 1 item"),
        ({"worker_command": ["ssh", ""]}, "at least 1 character"),
        ({"worker_command": "ssh gpu1"}, "worker_command.*a list is needed"),
        ({"worker_command": ["ssh"], "pair_dir": "~/pairs"}, "pair_dir is '~/pairs'.*whole path"),
        ({"worker_command": ["ssh"], "result_dir": "results"}, "result_dir is 'results'"),
    ],
)
def test_a_command_or_a_folder_that_cannot_be_meant_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        Settings.load(None, {}, analysis=settings)


def test_before_anything_moves_the_program_must_be_there_and_folders_elsewhere_need_not(tmp_path):
    there = {"worker_command": ("sh",), "pair_dir": "/dev/null/pairs"}
    AnalysisSettings(**there).check_places()
    with pytest.raises(ConfigError, match="'no-such-ssh'; there is no such program"):
        AnalysisSettings(worker_command=("no-such-ssh", "gpu1")).check_places()
    with pytest.raises(ConfigError, match="log_file"):
        AnalysisSettings(**there, log_file="/dev/null/log").check_places()


def test_a_worker_elsewhere_and_an_analysis_in_this_process_exclude_each_other():
    settings = AnalysisSettings(worker_command=("sh",))
    with pytest.raises(ConfigError, match=r"in_process=True.*worker_command is \['sh'\]"):
        start_session(None, make_beamline(), settings=settings, in_process=True, approvals="off")
