"""Whether any result is lost, doubled or changed where workers are killed or stopped at random.

    python benchmarks/kills.py [--runs 500] [--share 0.4] [--seed 0] [--ledger] [--json OUT]
    python benchmarks/kills.py --through "ssh -o BatchMode=yes localhost" [...]

Maps are flown on a simulated beamline without waiting, every third of them a fine map of the one
before and the end of a survey, and go to the analysis process, which enhances them bicubically,
picks regions, verifies and puts each survey together, with ``--ledger`` in a folder that stays. For
a ``--share`` of them the process is sent a signal at a random moment: at one of the map's
documents, or up to 0.3 s after the last one, when its result is made and told. The signal is
SIGKILL, SIGSTOP for good, or SIGSTOP followed by SIGCONT. Afterwards the same documents are
analyzed in this process, where nothing disturbs. The script fails if a summary has another digest,
or if a result, verification or composite run is missing among those delivered, was delivered twice
or in part, or has another digest.

With ``--through`` the process is started by that command, which has to lead to this same computer.
Every other signal is then for the command, and the others for the process at its other end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator
from quick_worker import COMMAND, replace_the_network

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.fly_map import fly_map
from xrf_sr_plans.schema import PLAN_OUTCOMES, AnalysisRequest, Document, Documents

IN_FLIGHT = 12
"""Number of maps whose results may be under way when the next one is flown."""
AFTER_S = 0.3
"""Longest time after a map's last document at which a signal is sent, in seconds."""
HANG_TIMEOUT_S = 8.0
RESULT_S = 300.0
SIGNALS = {"kill": 0.7, "stop": 0.1, "stop and go on": 0.2}
"""How often each kind of disturbance is chosen."""


class Disturbance:
    """Send the worker a signal at a random moment of some maps."""

    def __init__(self, analysis: AnalysisProcess, seed: int, share: float) -> None:
        self.sent: Counter[str] = Counter()
        self._analysis = analysis
        self._random = random.Random(seed)
        self._share = share
        self._timers: list[threading.Timer] = []
        self._at: int | None = None
        self._seen = 0

    def new_map(self, documents: int) -> None:
        """Choose whether, and when, the next map is disturbed; it has that many documents."""
        self._at, self._seen = None, 0
        if self._random.random() < self._share:
            # As often in the time when the result is made as in that when rows come.
            self._at = self._random.choice([*range(documents), *[documents] * documents])

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document of the map, which the worker has been sent before."""
        if self._at == self._seen:
            self._send()
        self._seen += 1
        if name == "stop" and self._at == self._seen:
            self._later(self._random.uniform(0.0, AFTER_S), self._send)

    def end(self) -> None:
        """Wait for what is still to be sent."""
        for timer in self._timers:
            timer.join()

    def _send(self) -> None:
        kind = self._random.choices(list(SIGNALS), list(SIGNALS.values()))[0]
        pid = self._target()
        if pid is None:
            self.sent["no worker there"] += 1
            return
        self.sent[kind] += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
        if kind == "stop and go on":
            self._later(self._random.uniform(0.0, 2.0), lambda: _go_on(pid))

    def _target(self) -> int | None:
        """Return the process that gets the next signal."""
        greeting = self._analysis.greeting
        if greeting is None or greeting.pid == self._analysis.pid or self._random.random() < 0.5:
            return self._analysis.pid
        return greeting.pid

    def _later(self, seconds: float, function: Any) -> None:
        timer = threading.Timer(seconds, function)
        timer.start()
        self._timers.append(timer)


def _go_on(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


class Flights:
    """Fly maps of several sizes, and keep their documents as the analysis gets them."""

    def __init__(self, seed: int) -> None:
        self.documents: Documents = []
        self._random = random.Random(seed)
        self._beamline = make_beamline()
        self._engine = RunEngine({})
        self._engine.subscribe(self._take)
        self._subscribers: list[Any] = []
        self._parent = ""
        self._coarse: ScanGrid | None = None

    def fly(self, number: int, disturbance: Disturbance, *subscribers: Any) -> str:
        """Fly one map and return the uid of its run."""
        is_fine = number % 3 == 2
        if is_fine:
            assert self._coarse is not None
            grid, request = self._coarse.refined(2), AnalysisRequest(enhance=False)
        else:
            grid, request = self._grid(), AnalysisRequest(factor=2)
            self._coarse, self._parent = grid, ""
        disturbance.new_map(grid.slow.num + 3)
        self._subscribers = [*subscribers, disturbance]
        plan = fly_map(
            self._beamline,
            grid,
            dwell_ms=5.0,
            purpose="fine" if is_fine else "coarse",
            analysis=request,
        )
        (uid,) = self._engine(plan)
        if is_fine:
            self._engine(self._outcomes())
        else:
            self._parent = uid
        return uid

    def _outcomes(self) -> MsgGenerator[None]:
        """Yield the messages of a run that says that the survey of the latest map is over."""
        facts = {"purpose": "outcomes", "survey_uid": self._parent, "tiles": [self._parent]}
        yield from bps.open_run({"plan_name": PLAN_OUTCOMES, "xrf_sr": facts})
        yield from bps.close_run()

    def _grid(self) -> ScanGrid:
        return ScanGrid.from_center(
            x_center_um=self._random.uniform(-5, 5),
            y_center_um=self._random.uniform(-5, 5),
            width_um=self._random.randint(6, 14),
            height_um=self._random.randint(3, 8),
            step_um=1,
            fast="samx",
            slow="samy",
        )

    def _take(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start" and self._parent and doc["xrf_sr"]["purpose"] == "fine":
            family = {"parent_uid": self._parent, "survey_uid": self._parent}
            doc = {**doc, "xrf_sr": {**doc["xrf_sr"], **family}}
        self.documents.append((name, doc))
        for subscriber in self._subscribers:
            subscriber(name, doc)


def by_run(documents: list[Document]) -> Iterator[Documents]:
    """Yield the documents of one run after the other, the last one perhaps without a stop."""
    run: Documents = []
    for name, doc in documents:
        if name == "start" and run:
            yield run
            run = []
        run.append((name, doc))
    if run:
        yield run


def undisturbed(documents: Documents, folder: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digests of summaries and of result runs, by uid, as this process makes them."""
    replace_the_network()
    emitted: Documents = []
    summaries: dict[str, str] = {}
    settings = AnalysisSettings(ledger_dir=str(folder) if folder else None)
    chain = AnalysisChain(
        settings,
        lambda name, doc: emitted.append((name, doc)),
        lambda summary: summaries.__setitem__(summary.source_uid, summary.digest),
    )
    for name, doc in documents:
        chain(name, doc)
    return summaries, {run[0][1]["uid"]: digest(run) for run in by_run(emitted)}


def _through(command: str | None) -> tuple[str, ...] | None:
    """Return what starts the process by way of another program; None: it is started right here."""
    if command is None:
        return None
    path = f"PYTHONPATH={shlex.quote(os.pathsep.join(filter(None, sys.path)))}"
    return (*shlex.split(command), "env", path, *map(shlex.quote, COMMAND), "--elsewhere")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fly, disturb, and compare with what comes undisturbed."""
    delivered: Documents = []
    settings = AnalysisSettings(
        max_restarts=100,
        hang_timeout_s=HANG_TIMEOUT_S,
        ledger_dir=str(folder / "disturbed") if options.ledger else None,
        worker_command=_through(options.through),
    )
    flights, told = Flights(options.seed), {}
    with AnalysisProcess(
        settings,
        [lambda name, doc: delivered.append((name, doc))],
        command=None if options.through else COMMAND,
    ) as analysis:
        tap, disturbance = Tap(analysis), Disturbance(analysis, options.seed, options.share)
        uids: list[str] = []
        for number in range(options.runs):
            uids.append(flights.fly(number, disturbance, tap))
            if number >= IN_FLIGHT:
                uid = uids[number - IN_FLIGHT]
                told[uid] = analysis.request(uid).result(RESULT_S)
            if number % 50 == 49:
                print(f"{number + 1} runs, {analysis.starts} workers", flush=True)
        told |= {uid: analysis.request(uid).result(RESULT_S) for uid in uids}
        disturbance.end()
        flushed = analysis.flush(RESULT_S)
        workers = analysis.starts
    summaries, runs = undisturbed(
        flights.documents, folder / "undisturbed" if options.ledger else None
    )
    came = [(run[0][1]["uid"], digest(run)) for run in by_run(delivered)]
    times = Counter(uid for uid, _ in came)
    return {
        "runs": len(uids),
        "signals": dict(disturbance.sent),
        "workers": workers,
        "flushed": flushed,
        "statuses": dict(Counter(summary.status for summary in told.values())),
        "summaries with another digest": sum(
            told[uid].digest != summaries.get(uid) for uid in uids
        ),
        "result runs expected": len(runs),
        "result runs delivered": len(came),
        "missing": sum(uid not in times for uid in runs),
        "more than once": sum(count > 1 for count in times.values()),
        "not expected": sum(uid not in runs for uid in times),
        "with another digest": sum(runs.get(uid, found) != found for uid, found in came),
    }


def main() -> int:
    """Measure, print, and return 1 where anything was lost, doubled or changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", action="store_true")
    parser.add_argument("--through", metavar="COMMAND", help="ssh, its options, and this computer")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options, Path(folder))
    figures["seconds"] = round(time.perf_counter() - began)
    for name, value in figures.items():
        print(f"{name:32}{value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    wrong = (
        "summaries with another digest",
        "missing",
        "more than once",
        "not expected",
        "with another digest",
    )
    return int(not figures["flushed"] or any(figures[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
