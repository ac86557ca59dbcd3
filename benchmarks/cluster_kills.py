"""Whether surveys suffer, or results are lost, where a cluster's parts are killed at random.

    python benchmarks/cluster_kills.py [--surveys 200] [--workers 2] [--seed 0] [--json OUT]

Surveys with rescans are flown on a simulated beamline without waiting, in a session whose maps are
enhanced on a Dask cluster of this machine (`cluster_processes`). In a ``--share`` of them, one of
these happens up to `AFTER_S` after one of the documents: a worker's process is killed or stopped
for a while, the scheduler is killed, the analysis process is killed, the connections to the
scheduler are cut, or nothing comes through them for some seconds. What was killed is started
again. Afterwards the same documents are analyzed in this process, where nothing disturbs. The
script fails if a survey failed or a run of it didn't end well or lacks rows, if a result run is
missing among those delivered, came twice or in part, or has another digest, or if a summary has
another digest than the undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from cluster_processes import Cluster
from kills import by_run

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.cluster.connection import ENHANCED_HERE
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.schema import Documents, kind_of_run
from xrf_sr_plans.session import start_session

AFTER_S = 1.0
"""Longest time after a survey's first map at which something happens, in seconds."""
KINDS = {
    "worker killed": 4,
    "worker stopped": 2,
    "scheduler killed": 2,
    "connections cut": 3,
    "connections stopped": 2,
    "analysis process killed": 1,
}
"""What happens, and how often in relation to the others."""
DASK_TIMEOUT_S = 10.0
RESULT_S = 120.0


class Trouble:
    """Do one random thing at a random moment of some surveys."""

    def __init__(self, cluster: Cluster, seed: int, share: float) -> None:
        self._share = share
        self.done: Counter[str] = Counter()
        self.analysis_pid: int | None = None
        self._cluster = cluster
        self._random = random.Random(seed)
        self._timers: list[threading.Timer] = []
        self._at = -1
        self._seen = 0

    def new_survey(self) -> None:
        """Choose when something happens in the next survey, by its documents or after a time."""
        self._seen, self._at = 0, -1
        if self._random.random() < self._share:
            self._at = self._random.choice((3, 8, 12, 14, 14, 14, 20))

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document of the RunEngine."""
        self._seen += 1
        if self._seen == self._at:
            # Most of what can go wrong is in the time in which the cluster works.
            timer = threading.Timer(self._random.uniform(0.0, AFTER_S), self._happen)
            timer.start()
            self._timers.append(timer)

    def end(self) -> None:
        """Wait for what is still to happen."""
        for timer in self._timers:
            timer.join(30.0)

    def _happen(self) -> None:
        kind = self._random.choices(list(KINDS), list(KINDS.values()))[0]
        self.done[kind] += 1
        if kind == "connections cut":
            self._cluster.relay.cut()
        elif kind == "connections stopped":
            self._cluster.relay.stop(self._random.uniform(0.5, 8.0))
        elif kind == "analysis process killed":
            self._signal([self.analysis_pid] if self.analysis_pid else [], signal.SIGKILL)
        elif kind == "worker stopped":
            if pids := self._signal(self._cluster.pids("worker"), signal.SIGSTOP):
                again = threading.Timer(
                    self._random.uniform(0.5, 8.0), lambda: self._signal(pids, signal.SIGCONT)
                )
                again.start()
                self._timers.append(again)
        else:
            role = "worker" if kind == "worker killed" else "scheduler"
            self._signal(self._cluster.pids(role), signal.SIGKILL)

    def _signal(self, pids: list[int], what: signal.Signals) -> list[int]:
        """Send a signal to one of some processes, and return which one it was."""
        if not pids:
            return []
        pid = self._random.choice(pids)
        with suppress(ProcessLookupError):
            os.kill(pid, what)
        return [pid]


def surveyed(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fly the surveys, disturb them, and compare with what comes undisturbed."""
    raw: Documents = []
    delivered: Documents = []
    cluster = Cluster(options.workers, folder / "cluster.log")
    engine = RunEngine({})
    engine.subscribe(lambda name, doc: raw.append((name, doc)))
    settings = AnalysisSettings(
        dask=cluster.address,
        dask_timeout_s=DASK_TIMEOUT_S,
        max_restarts=100,
        log_file=str(folder / "analysis.log"),
    )
    failures: list[str] = []
    told: dict[str, Any] = {}
    seconds: list[float] = []
    choices, seen = random.Random(options.seed), 0
    try:
        cluster.wait()
        session = start_session(
            engine,
            make_beamline(i0_ripple=0.0),
            settings=settings,
            store="off",
            approvals="off",
            result_sinks=[lambda name, doc: delivered.append((name, doc))],
        )
        with session:
            trouble = Trouble(cluster, options.seed, options.share)
            engine.subscribe(trouble)
            for number in range(options.surveys):
                trouble.analysis_pid = session.link.state().pid
                trouble.new_survey()
                began = time.perf_counter()
                plan = session.plans["coarse_survey_with_sr"](
                    width_um=choices.randint(8, 20),
                    height_um=choices.randint(6, 14),
                    step_um=1,
                    dwell_ms=20,
                    x_center_um=choices.uniform(-5, 5),
                    y_center_um=choices.uniform(-5, 5),
                    max_regions=2,
                    analysis_timeout_s=RESULT_S,
                )
                try:
                    engine(plan)
                except Exception as error:  # noqa: BLE001 - it is what is looked for
                    failures.append(f"survey {number}: {error!r}")
                seconds.append(time.perf_counter() - began)
                # Now, because a session doesn't remember them for ever.
                for run in by_run(raw[seen:]):
                    if kind_of_run(run[0][1]) == "map" and wanted(run):
                        uid = run[0][1]["uid"]
                        told[uid] = session.link.request(uid).result(RESULT_S)
                seen = len(raw)
                if number % 20 == 19:
                    print(f"{number + 1} surveys, {dict(trouble.done)}", flush=True)
            trouble.end()
            flushed = session.link.flush(RESULT_S)
            starts = session.link.state().starts
    finally:
        cluster.close()
    return {
        "surveys": options.surveys,
        **{f"happened: {kind}": count for kind, count in sorted(trouble.done.items())},
        "analysis processes": starts,
        "seconds a survey, median": round(sorted(seconds)[len(seconds) // 2], 2),
        "seconds a survey, longest": round(max(seconds), 2),
        "flushed": flushed,
        "surveys that failed": len(failures),
        "failures": failures[:5],
        **scans(raw),
        **compared(raw, delivered, told),
    }


def wanted(run: Documents) -> bool:
    """Return whether a run asks for analysis."""
    return bool((run[0][1].get("xrf_sr") or {}).get("analysis"))


def scans(raw: Documents) -> dict[str, int]:
    """Return how many runs there are and what is wrong with them."""
    badly = short = runs = 0
    for run in by_run(raw):
        runs += 1
        badly += run[-1][0] != "stop" or run[-1][1].get("exit_status") != "success"
        if kind_of_run(run[0][1]) == "map":
            grid = run[0][1]["xrf_sr"]["grid"]
            rows = sum(name == "event" for name, _ in run)
            rows += sum(len(doc["seq_num"]) for name, doc in run if name == "event_page")
            short += rows != grid["slow"]["num"]
    return {"runs flown": runs, "runs that ended badly": badly, "runs without all rows": short}


def compared(raw: Documents, delivered: Documents, told: dict[str, Any]) -> dict[str, Any]:
    """Return how what came differs from what this process makes of the same documents."""
    emitted: Documents = []
    summaries: dict[str, str] = {}
    chain = AnalysisChain(
        AnalysisSettings(),
        lambda name, doc: emitted.append((name, doc)),
        lambda summary: summaries.__setitem__(summary.source_uid, summary.digest),
    )
    for name, doc in raw:
        chain(name, doc)
    expected = {run[0][1]["uid"]: digest(run) for run in by_run(emitted)}
    came = [(run[0][1]["uid"], digest(run)) for run in by_run(delivered)]
    times = Counter(uid for uid, _ in came)
    return {
        "statuses": dict(Counter(summary.status for summary in told.values())),
        "not enhanced on the cluster": sum(ENHANCED_HERE in s.reason for s in told.values()),
        "summaries with another digest": sum(
            summary.digest != summaries.get(uid) for uid, summary in told.items()
        ),
        "result runs expected": len(expected),
        "result runs delivered": len(came),
        "missing": sum(uid not in times for uid in expected),
        "more than once": sum(count > 1 for count in times.values()),
        "not expected": sum(uid not in expected for uid in times),
        "with another digest": sum(expected.get(uid, found) != found for uid, found in came),
    }


WRONG = (
    "surveys that failed",
    "runs that ended badly",
    "runs without all rows",
    "summaries with another digest",
    "missing",
    "more than once",
    "not expected",
    "with another digest",
)


def main() -> int:
    """Measure, print, and return 1 where anything was lost, doubled or changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--surveys", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--share", type=float, default=0.5, help="of surveys that are disturbed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--logs", type=Path, help="folder for the logs; without it, none is kept")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.logs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        figures = surveyed(options, folder)
    figures["seconds"] = round(time.perf_counter() - began)
    for name, value in figures.items():
        print(f"{name:34}{value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return int(not figures["flushed"] or any(figures[name] for name in WRONG))


if __name__ == "__main__":
    sys.exit(main())
