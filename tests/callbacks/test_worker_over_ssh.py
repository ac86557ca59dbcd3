"""The analysis process on another host over ssh: a real sshd on this one stands for it."""

from __future__ import annotations

import os
import signal
import time

import pytest
from bluesky import RunEngine

from support.row_documents import map_run, small_grid, truth
from support.ssh_servers import Sshd, needs_sshd
from support.waiting import running, until
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.service.scratch_elsewhere import PREFIX
from xrf_sr_plans.checkup.services import service_findings
from xrf_sr_plans.config import AnalysisSettings, Settings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.session import start_session

pytestmark = pytest.mark.e2e

WAIT_S = 90.0
GRID = small_grid(4)


@pytest.fixture
def sshd(tmp_path, monkeypatch):
    needs_sshd()
    monkeypatch.setattr("xrf_sr_plans.callbacks.service.worker_supervisor._FIRST_BACKOFF_S", 0.005)
    server = Sshd(tmp_path)
    yield server
    server.stop()


def feed(analysis, run):
    for name, doc in map_run(GRID, truth(GRID), run):
        analysis.submit(run, name, doc)


def runs_of(taken):
    """Return the digest of each result run that was delivered, by its uid; each comes once."""
    begins = [index for index, (name, _) in enumerate(taken) if name == "start"]
    assert [taken[index - 1][0] for index in [*begins[1:], 0]] == ["stop"] * len(begins)
    uids = [taken[index][1]["uid"] for index in begins]
    assert len(set(uids)) == len(uids)
    ends = [*begins[1:], len(taken)]
    return {uid: digest(taken[a:b]) for uid, a, b in zip(uids, begins, ends, strict=True)}


def worker_pid(analysis):
    until(lambda: analysis.ready)
    return analysis.greeting.pid


def survey(engine, session):
    engine(
        session.plans["coarse_survey_with_sr"](
            x_center_um=0, y_center_um=0, width_um=24, height_um=12, step_um=2, dwell_ms=5,
            find="K > p90", analysis_timeout_s=60, budget_s=200,
        )
    )  # fmt: skip


def flown(settings):
    """Fly a survey; return its documents, its result runs, and the statuses of its maps."""
    engine, documents, taken = RunEngine({}), [], []
    engine.subscribe(lambda name, doc: documents.append((name, doc)))
    session = start_session(
        engine,
        make_beamline(),
        settings=settings,
        approvals="off",
        result_sinks=[lambda name, doc: taken.append((name, doc))],
    )
    with session:
        survey(engine, session)
        assert session.link.flush(WAIT_S)
    return documents, taken


def test_a_survey_over_ssh_is_what_it_is_beside_the_session(sshd, bicubic_model, tmp_path):
    # What login scripts print and read must not get between the frames.
    (sshd.folder / "home" / ".bashrc").write_text("echo Welcome to gpu1; printf 'Quota: '\n")
    (sshd.folder / "home" / ".profile").write_text("echo Welcome\n")
    sshd.allow("restrict")
    settings = AnalysisSettings(
        worker_command=sshd.command(remote=str(sshd.worker)),
        log_file=str(tmp_path / "log"),
        log_level="INFO",
    )
    documents, taken = flown(settings)
    delivered = runs_of(taken)
    assert {doc["plan_name"] for name, doc in taken if name == "start"} >= {
        "xrf_super_resolution",
        "xrf_verification",
    }
    assert not [doc for name, doc in taken if name == "start" and doc.get("fallback")]
    beside = []
    chain = AnalysisChain(emit=lambda name, doc: beside.append((name, doc)))
    for name, doc in documents:
        chain(name, doc)
    assert runs_of(beside) == delivered
    assert "numpy loaded: False" in (tmp_path / "log").read_text()
    until(lambda: not list((sshd.folder / "tmp").glob(f"{PREFIX}*")))


def test_whatever_is_killed_on_the_way_each_result_comes_once_and_is_the_same(sshd, bicubic_model):
    taken = []
    analysis = AnalysisProcess(
        AnalysisSettings(worker_command=sshd.command(), max_restarts=5),
        [lambda name, doc: taken.append((name, doc))],
    )
    with analysis:
        stopped = worker_pid(analysis)
        for run in ("worker", "ssh", "stopped"):
            documents = list(map_run(GRID, truth(GRID), run))
            for name, doc in documents[:4]:
                analysis.submit(run, name, doc)
            pid = worker_pid(analysis)
            if run == "worker":
                os.kill(pid, signal.SIGKILL)
            else:
                if run == "stopped":
                    os.kill(stopped := pid, signal.SIGSTOP)
                os.kill(analysis.pid, signal.SIGKILL)
            for name, doc in documents[4:]:
                analysis.submit(run, name, doc)
            assert analysis.request(run).result(WAIT_S).digest == replay(documents).digest
        assert analysis.flush(WAIT_S)
        assert analysis.starts == 4
        until(lambda: not running(stopped))
        last = worker_pid(analysis)
        os.kill(last, signal.SIGSTOP)
    assert len(runs_of(taken)) == 3
    until(lambda: not running(last))


def test_while_the_host_is_gone_maps_are_bicubic_and_say_so(sshd, caplog):
    sshd.stop()
    settings = AnalysisSettings(worker_command=sshd.command(), max_restarts=0)
    began = time.monotonic()
    _, taken = flown(settings)
    assert time.monotonic() - began < WAIT_S
    reasons = {doc["fallback"] for name, doc in taken if "fallback" in doc and name == "start"}
    assert len(reasons) == 1
    assert "Connection refused" in reasons.pop()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("key", "Permission denied (publickey)"),
        ("host", "Host key verification failed"),
        ("program", "no-such-worker"),
    ],
)
def test_what_ssh_refuses_is_told_in_its_words(sshd, what, words):
    command = sshd.command(key="other_key" if what == "key" else "user_key")
    if what == "host":
        (sshd.folder / "known_hosts").write_text("")
    if what == "program":
        sshd.allow("restrict")
        command = sshd.command(remote="no-such-worker")
    with AnalysisProcess(AnalysisSettings(worker_command=command, max_restarts=0)) as analysis:
        feed(analysis, "one")
        summary = analysis.request("one").result(WAIT_S)
    assert summary.status == "failed"
    assert words in summary.reason


def test_a_check_of_the_settings_says_who_is_there_or_why_nobody_is(sshd):
    def found(**analysis):
        settings = Settings(analysis=AnalysisSettings(**analysis))
        named = {one.part: one for one in service_findings(settings)}
        assert "analysis.model" not in named
        return named["analysis.worker_command"]

    there = found(worker_command=sshd.command())
    assert (there.state, "xrf-sr-plans" in there.text) == ("ok", True)
    flawed = found(worker_command=sshd.command(), pair_dir="/dev/null/pairs")
    assert (flawed.state, "pair_dir is '/dev/null/pairs'" in flawed.text) == ("fails", True)
    refused = found(worker_command=sshd.command(key="other_key"))
    assert (refused.state, "Permission denied" in refused.text) == ("fails", True)
