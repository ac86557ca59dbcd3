"""The analysis process may raise, hang, be stopped, be killed: the scan and its result survive."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings

pytestmark = pytest.mark.slow
GRID = small_grid(4, 10)
COUNTS = truth(GRID)
DOCUMENTS = 4 + 3
WAIT_S = 30.0


def odd(mode="nothing", at=0, once=""):
    script = Path(__file__).parents[1] / "support" / "odd_worker.py"
    return [sys.executable, str(script), mode, str(at), str(once)]


@pytest.fixture
def start(monkeypatch):
    """Start analysis processes; whatever a test does, none survives it."""
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.worker_supervisor._FIRST_BACKOFF_S", 0.005)
    started = []

    def begin(command=None, sinks=(), **settings):
        analysis = AnalysisProcess(AnalysisSettings(**settings), sinks, command=command or odd())
        started.append(analysis)
        return analysis

    yield begin
    for analysis in started:
        pid = analysis.pid
        analysis.close(0.0)
        assert pid is None or not running(pid)


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state != "Z"


def feed(analysis, run, grid=GRID, **metadata):
    tap = Tap(analysis)
    for name, doc in map_run(grid, truth(grid), run, **metadata):
        tap(name, doc)
    assert tap.errors == 0


def result(analysis, run):
    return analysis.request(run).result(WAIT_S)


def until(condition, seconds=WAIT_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def expected(bicubic_model):
    """Digest of the same map analysed in this process, without any trouble."""
    from xrf_sr_plans.callbacks.replay import replay

    def of(run, grid=GRID):
        return replay(map_run(grid, truth(grid), run)).digest

    return of


def test_results_and_documents_come_back_whole(start, expected):
    taken, previews = [], []

    def display(name, doc):
        previews.append((name, doc))

    display.wants_preview = True
    analysis = start(sinks=[lambda name, doc: taken.append((name, doc)), display])
    feed(analysis, "one")
    summary = result(analysis, "one")
    assert summary.status == "done"
    assert summary.regions
    assert analysis.flush(WAIT_S)
    from xrf_sr_plans.callbacks.digest import digest

    assert digest(taken) == summary.digest == expected("one")
    assert all(
        isinstance(doc["data"]["estimate"], list)
        for name, doc in taken
        if name == "event" and "estimate" in doc["data"]
    )
    assert analysis.journal.size == 0


def test_killed_at_any_document_the_result_is_the_same(start, expected):
    analysis = start(max_restarts=3)
    for at in range(DOCUMENTS):
        run = f"killed at {at}"
        documents = list(map_run(GRID, COUNTS, run))
        for name, doc in documents[: at + 1]:
            analysis.submit(run, name, doc)
        assert analysis._drained(WAIT_S)
        until(lambda: analysis.pid is not None)
        os.kill(analysis.pid, signal.SIGKILL)
        for name, doc in documents[at + 1 :]:
            analysis.submit(run, name, doc)
        assert result(analysis, run).digest == expected(run)
    assert analysis.starts > DOCUMENTS - 2


@pytest.mark.parametrize("at", [0, DOCUMENTS - 1])
def test_a_worker_that_dies_of_a_document_once_gives_the_same_result(start, expected, tmp_path, at):
    analysis = start(odd("die", at, tmp_path))
    feed(analysis, "odd run")
    assert result(analysis, "odd run").digest == expected("odd run")
    assert analysis.starts == 2


@pytest.mark.parametrize("further", [0, 1])
def test_killed_at_anything_it_says_every_result_run_is_delivered_once_and_whole(
    start, expected, tmp_path, further
):
    taken = []
    analysis = start(
        odd("speechless", further, tmp_path),
        sinks=[lambda name, doc: taken.append((name, doc))],
    )
    runs = [f"odd {kind}" for kind in ("ResultDocument", "RunSummary", "RunDone")]
    for run in runs:
        feed(analysis, run)
        assert result(analysis, run).digest == expected(run)
    assert analysis.flush(WAIT_S)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(runs)
    from xrf_sr_plans.callbacks.digest import digest

    ends = [index + 1 for index, (name, _) in enumerate(taken) if name == "stop"]
    delivered = [digest(taken[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    assert delivered == [expected(run) for run in runs]
    assert len(taken) == ends[-1]


def test_a_worker_that_takes_over_knows_what_its_predecessor_predicted(start, bicubic_model):
    from xrf_sr_plans.callbacks.chain import AnalysisChain
    from xrf_sr_plans.callbacks.digest import digest
    from xrf_sr_plans.schema import AnalysisRequest

    fine_grid = GRID.refined(2)
    assembled = AnalysisRequest(enhance=False)
    facts = {"purpose": "fine", "parent_uid": "coarse", "analysis": assembled}
    fine = list(map_run(fine_grid, truth(fine_grid), "fine", **facts))
    undisturbed, taken = [], []
    chain = AnalysisChain(emit=lambda name, doc: undisturbed.append((name, doc)))
    analysis = start(sinks=[lambda name, doc: taken.append((name, doc))])
    for name, doc in map_run(GRID, COUNTS, "coarse"):
        chain(name, doc)
    feed(analysis, "coarse")
    assert analysis.flush(WAIT_S)
    os.kill(analysis.pid, signal.SIGKILL)
    for name, doc in fine:
        chain(name, doc)
        analysis.submit("fine", name, doc)
    assert analysis.flush(WAIT_S)
    assert analysis.starts == 2
    assert "xrf_verification" in {doc.get("plan_name") for _, doc in taken}
    assert digest(taken) == digest(undisturbed)


def test_what_kills_every_worker_after_the_result_does_not_cost_the_result(start, tmp_path, caplog):
    taken = []
    analysis = start(
        odd("speechless", 0), sinks=[lambda name, doc: taken.append(name)], max_restarts=1
    )
    feed(analysis, "odd RunSummary")
    assert result(analysis, "odd RunSummary").status == "done"
    assert analysis.flush(WAIT_S)
    assert (taken[0], taken[-1], taken.count("stop")) == ("start", "stop", 1)
    assert "run odd RunSummary has its result, but not what follows" in caplog.text


def test_a_run_that_kills_every_worker_is_given_up_and_the_next_is_not(start, expected, caplog):
    analysis = start(odd("exit", 3), max_restarts=1)
    feed(analysis, "odd run")
    feed(analysis, "good run")
    lost = result(analysis, "odd run")
    assert lost.status == "failed"
    assert "out of luck" in lost.reason
    assert caplog.text.count("out of luck") == 2, "once for each worker that was lost"
    assert result(analysis, "good run").digest == expected("good run")
    fallen = analysis.fall_back("odd run", lost.reason).result(WAIT_S)
    assert (fallen.status, fallen.reason) == ("fallback", lost.reason)


@pytest.mark.parametrize("mode", ["hang", "stop"])
def test_a_worker_that_hangs_is_killed_and_the_result_is_the_same(start, expected, tmp_path, mode):
    began = time.monotonic()
    quick = start()
    until(lambda: quick.ready)
    # A worker that is merely slow to start, on a busy machine, does not hang.
    patience_s = max(2.5, 4 * (time.monotonic() - began))
    analysis = start(odd(mode, DOCUMENTS - 1, tmp_path), hang_timeout_s=patience_s)
    feed(analysis, "odd run")
    assert result(analysis, "odd run").digest == expected("odd run")
    assert analysis.starts == 2


def test_while_it_hangs_the_scan_gets_its_fallback(start):
    taken = []
    analysis = start(odd("hang", 2), sinks=[lambda name, doc: taken.append((name, doc))])
    feed(analysis, "odd run")
    summary = analysis.fall_back("odd run", "no result within 1 s").result(WAIT_S)
    assert summary.status == "fallback"
    assert analysis.sink_thread.flush(WAIT_S)
    assert [doc["fallback"] for name, doc in taken if name == "start"] == ["no result within 1 s"]
    until(lambda: analysis.journal.size == 0)


def test_the_fallback_is_the_result_that_the_chain_gives_without_its_model(start):
    from xrf_sr_plans.callbacks.chain import AnalysisChain
    from xrf_sr_plans.callbacks.digest import digest

    summaries, taken = [], []
    chain = AnalysisChain(finished=summaries.append, fallback_reason="late")
    for name, doc in map_run(GRID, COUNTS, "one"):
        chain(name, doc)
    analysis = start(odd("hang", 2), sinks=[lambda name, doc: taken.append((name, doc))])
    feed(analysis, "odd one")
    feed(analysis, "one")
    fallen = analysis.fall_back("one", "late").result(WAIT_S)
    assert analysis.sink_thread.flush(WAIT_S)
    assert fallen.digest == digest(taken) == summaries[0].digest
    assert fallen.regions == summaries[0].regions


FALLBACK = """
import sys
import numpy as np
from support.row_documents import map_run, small_grid
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.schema import AnalysisRequest

def memory(which):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(which)]
    return int(line.split()[1]) / 1024

grid = small_grid(200, 200)
counts = np.random.default_rng(0).poisson(50, (3, 200, 200)).astype(float)
analysis = AnalysisProcess(AnalysisSettings(max_restarts=0), command=["/nonexistent/python"])
for name, doc in map_run(grid, counts, "run", analysis=AnalysisRequest(factor=4)):
    analysis.submit("run", name, doc)
assert analysis._drained(60)
before = memory("VmRSS")
assert analysis.fall_back("run", "late").result(60).status == "fallback"
print(memory("VmHWM") - before)
analysis.close(1)
"""


def test_a_fallback_takes_no_memory_of_the_session():
    done = subprocess.run(
        [sys.executable, "-c", FALLBACK],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    enhanced_mb = 3 * 800 * 800 * 21 / 2**20
    assert float(done.stdout) < enhanced_mb / 4


def test_a_fallback_that_is_killed_is_made_again(start, monkeypatch, tmp_path):
    died = f"""
import os, sys
if not os.path.exists({str(tmp_path / "died")!r}):
    open({str(tmp_path / "died")!r}, "w").close()
    os.kill(os.getpid(), 9)
from xrf_sr_plans.callbacks.service.worker_entry import main
main()
"""
    monkeypatch.setattr(
        "xrf_sr_plans.callbacks.service.worker_process.COMMAND", [sys.executable, "-c", died]
    )
    analysis = start(["/nonexistent/python"], max_restarts=0)
    feed(analysis, "one")
    assert analysis.fall_back("one", "late").result(WAIT_S).status == "fallback"


@pytest.mark.parametrize(
    ("helper", "words"),
    [
        ("import sys; sys.exit('no memory')", "no memory"),
        ("import time; time.sleep(60)", "no progress for 0.7 s"),
    ],
)
def test_a_fallback_that_dies_or_hangs_is_told_in_time(start, monkeypatch, helper, words):
    monkeypatch.setattr(
        "xrf_sr_plans.callbacks.service.worker_process.COMMAND", [sys.executable, "-c", helper]
    )
    analysis = start(["/nonexistent/python"], max_restarts=0, hang_timeout_s=0.7)
    feed(analysis, "one")
    fallen = analysis.fall_back("one", "late").result(WAIT_S)
    assert fallen.status == "failed"
    assert words in fallen.reason
    assert fallen.reason.startswith("late; fallback: ")


def test_an_exception_at_a_document_costs_no_other_run(start, expected):
    analysis = start(odd("raise", 3), max_restarts=0)
    feed(analysis, "odd run")
    feed(analysis, "good run")
    assert result(analysis, "good run").digest == expected("good run")


def test_a_worker_that_cannot_start_is_told_by_its_last_words(start, caplog):
    analysis = start(odd("never"), max_restarts=1)
    feed(analysis, "one")
    summary = result(analysis, "one")
    assert summary.status == "failed"
    assert "no such library" in summary.reason
    assert caplog.text.count("no such library") == 2, "once for each attempt to start it"
    assert analysis.fall_back("one", summary.reason).result(WAIT_S).status == "fallback"


def test_a_command_that_does_not_exist_is_no_different(start):
    analysis = start(["/nonexistent/python"], max_restarts=0)
    feed(analysis, "one")
    assert "can't be started" in result(analysis, "one").reason


@pytest.mark.parametrize("log", ["/dev/full", "/nonexistent/folder/log"])
def test_a_full_disk_under_the_log_costs_nothing(start, expected, log):
    analysis = start(log_file=log)
    feed(analysis, "one")
    assert result(analysis, "one").digest == expected("one")


def test_a_stalled_worker_holds_up_nobody_and_memory_is_bounded(start):
    grid = small_grid(30, 100)
    analysis = start(memory_limit_mb=0.5)
    feed(analysis, "warm-up")
    result(analysis, "warm-up")
    os.kill(analysis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        for number in range(4):
            feed(analysis, f"run {number}", grid)
        assert time.monotonic() - began < 2.0
        assert analysis._drained(5.0)
        assert analysis.journal.size <= 0.5 * 2**20
        assert "memory_limit_mb" in result(analysis, "run 3").reason
    finally:
        os.kill(analysis.pid, signal.SIGCONT)
    assert result(analysis, "run 0").status == "done"
    assert analysis.flush(WAIT_S)
    assert analysis.journal.size == 0


def test_closing_is_quick_even_when_the_worker_is_stopped(start):
    analysis = start()
    feed(analysis, "one")
    result(analysis, "one")
    pid = analysis.pid
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    analysis.close(0.2)
    assert time.monotonic() - began < 4.0
    assert not running(pid)
    analysis.submit("after closing", "start", {"uid": "after closing"})
    names = {thread.name for thread in threading.enumerate() if thread.is_alive()}
    assert not {"xrf-sr-supervisor", "xrf-sr-results"} & names


def begun_since(before):
    return set(threading.enumerate()) - before


@pytest.mark.parametrize("command", [odd(), ["/nonexistent/python"]])
def test_closing_leaves_no_thread_and_no_descriptor(start, command):
    left, before = [], set(threading.enumerate())
    for number in range(2):
        analysis = start(command, sinks=[lambda name, doc: None], max_restarts=0)
        feed(analysis, f"run {number}")
        result(analysis, f"run {number}")
        analysis.fall_back(f"run {number}", "late").result(WAIT_S)
        analysis.close()
        until(lambda: not any(one.name.startswith("xrf-sr") for one in begun_since(before)))
        left.append(len(os.listdir("/proc/self/fd")))
    assert left[0] == left[1]


def test_what_is_lost_by_closing_early_is_said(start, caplog):
    analysis = start(odd("hang", 2))
    feed(analysis, "odd run")
    analysis.close(0.1)
    assert "closed before the result of run odd run was in" in caplog.text


PARENT = """
import sys, time
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
analysis = AnalysisProcess(command=sys.argv[2:])
while not analysis.ready:
    time.sleep(0.01)
print(analysis.pid, flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("stopped", [False, True])
def test_the_worker_does_not_outlive_a_killed_parent(stopped):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, "wait", *odd()], stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        if stopped:
            os.kill(pid, signal.SIGSTOP)
        parent.kill()
        parent.wait(10)
        until(lambda: not running(pid), 10)
    finally:
        parent.kill()
        parent.stdout.close()
        parent.wait(10)


def test_leaving_the_interpreter_without_close_ends_the_worker():
    done = subprocess.run(
        [sys.executable, "-c", PARENT, "leave", *odd()],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    until(lambda: not running(int(done.stdout)), 5)
    assert done.stderr == ""


def test_ctrl_c_in_the_terminal_does_not_reach_the_worker(start):
    analysis = start()
    until(lambda: analysis.pid is not None)
    assert os.getsid(analysis.pid) != os.getsid(0)
    assert os.getpgid(analysis.pid) != os.getpgid(0)
    feed(analysis, "before")
    result(analysis, "before")
    os.kill(analysis.pid, signal.SIGINT)
    feed(analysis, "after")
    assert result(analysis, "after").status == "done"
    assert analysis.starts == 1


def test_a_flood_of_documents_gives_up_the_run_and_not_the_next(start, monkeypatch):
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.analysis_process.MAX_INBOX", 5)
    analysis = start()
    documents = list(map_run(GRID, COUNTS, "flood"))
    analysis.submit("flood", *documents[0])
    assert analysis._drained(WAIT_S)
    for _ in range(50):
        analysis.submit("flood", *documents[1])
    assert "faster" in result(analysis, "flood").reason
    for name, doc in map_run(GRID, COUNTS, "calm"):
        analysis.submit("calm", name, doc)
        assert analysis._drained(WAIT_S)
    assert result(analysis, "calm").status == "done"


@pytest.mark.parametrize("odd_value", [2**80, object(), {1, 2}, {(1, 2): 3}, b"\xff", "\ud800"])
def test_any_metadata_a_user_may_have_crosses_to_the_process(odd_value):
    from xrf_sr_plans.callbacks.service import frames

    message = frames.unpack_frame(frames.pack(["start", {"md": odd_value, "uid": "a"}]))
    assert message[1]["uid"] == "a"


def test_arrays_cross_bit_for_bit_and_garbage_is_refused():
    import numpy as np

    from xrf_sr_plans.callbacks.service import frames
    from xrf_sr_plans.errors import WorkerError

    arrays = [np.array([[np.nan, -0.0, 1e-300]]), np.arange(6, dtype="u1").reshape(2, 3)]
    for array in arrays:
        back = frames.unpack_frame(frames.pack(array))
        assert back.dtype == array.dtype
        assert back.tobytes() == array.tobytes()
        assert back.shape == array.shape
    with pytest.raises(WorkerError):
        frames.unpack(b"\xc1 nonsense")


def test_no_scan_is_lost_or_marked_failed_while_the_analysis_is_killed(start, bicubic_model):
    from bluesky import RunEngine

    from xrf_sr_plans.callbacks.replay import replay
    from xrf_sr_plans.devices.sim import make_beamline
    from xrf_sr_plans.maps.grid import ScanGrid
    from xrf_sr_plans.plans.fly_map import fly_map
    from xrf_sr_plans.schema import AnalysisRequest

    beamline = make_beamline()
    grid = ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=10, height_um=6, step_um=1, fast="samx", slow="samy"
    )
    analysis = start(sinks=[lambda name, doc: 1 / 0], pair_dir="/dev/full/pairs")
    until(lambda: analysis.ready)
    engine, documents = RunEngine({}), []

    def kill(name, doc):
        documents.append((name, doc))
        if len(documents) in (1, 14, 18) and analysis.pid is not None:
            os.kill(analysis.pid, signal.SIGKILL)

    engine.subscribe(Tap(analysis))
    engine.subscribe(kill)
    for _ in range(3):
        engine(fly_map(beamline, grid, dwell_ms=5, analysis=AnalysisRequest()))
    stops = [doc for name, doc in documents if name == "stop"]
    assert [stop["exit_status"] for stop in stops] == ["success"] * 3
    for index, (name, doc) in enumerate(documents):
        if name == "start":
            again = replay(documents[index:][:9])
            assert result(analysis, doc["uid"]).digest == again.digest
