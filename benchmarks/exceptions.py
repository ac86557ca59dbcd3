"""What an exception at any message of a plan leaves behind, and whether anybody is told.

    python benchmarks/exceptions.py [--every 1] [--json OUT]

Flies a small survey with a rescan, a pair, and the rescan of a region, on a simulated beamline
without waiting. Each time one message fails with one of six exceptions, in one of these ways:

- ``once``: the message is not carried out, and the plan gets the exception instead;
- ``late``: the message is carried out, and then the plan gets the exception;
- ``for good``: the message is not carried out, and the same message to the same device fails in
  the same way whenever it comes again;
- ``by hand``: the plan is paused before the message and ended with ``RE.abort`` or ``RE.stop``.

An end is unsafe if the shutter is open, the fast axis has another velocity than before, or
something still flies or moves. It is told if the plan raises `LeftUnsafeError`, or if a stop
document or a critical log message says what is wrong. Runs without a stop document are counted
too. The script fails if there are unsafe ends that nobody is told of, or open runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bluesky import RunEngine
from bluesky.utils import FailedStatus, Msg, RequestAbort, RequestStop, RunEngineInterrupted

from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import AnalysisSummary, RowTimeModel
from xrf_sr_plans.devices.sim import SimBeamline, make_beamline
from xrf_sr_plans.errors import LeftUnsafeError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.rescan import rescan_regions
from xrf_sr_plans.plans.survey import coarse_survey_with_sr

BOX_UM = (-4.0, -2.0, -1.5, 0.5)
"""The edges of the region that is flown again: low x, high x, low y, high y."""
ERRORS: dict[str, Callable[[], Exception]] = {
    "FailedStatus": lambda: FailedStatus("the device said no"),
    "TimeoutError": lambda: TimeoutError("no answer"),
    "ValueError": lambda: ValueError("out of range"),
    "OSError": lambda: OSError("connection lost"),
    "RequestAbort": RequestAbort,
    "RequestStop": RequestStop,
}
BY_HAND = {"RequestAbort": "abort", "RequestStop": "stop"}
UNSAFE_WORDS = ("may be open", "may not have its velocity", "failed to close", "failed to restore")
"""Words of a stop document or of a log message that tell of an unsafe end."""

MapPlan = Generator[Msg, Any, Any]


class OneRegion:
    """An analysis that finds the same region in every map at once."""

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        """Return what is found in a map."""
        region = Region(*BOX_UM, ("Fe",), 1.0, "Fe stands out", source_uid=source_uid)
        return self._known(
            AnalysisSummary(source_uid, f"result-{source_uid}", "done", "", (region,))
        )

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        """Return that nothing is found."""
        return self._known(AnalysisSummary(source_uid, "", "fallback", reason, ()))

    def _known(self, summary: AnalysisSummary) -> Future[AnalysisSummary]:
        future: Future[AnalysisSummary] = Future()
        future.set_result(summary)
        return future


def survey(beamline: SimBeamline) -> MapPlan:
    """Return the plan of a survey of two tiles, with rescans."""
    return coarse_survey_with_sr(
        beamline, width_um=8, height_um=3, step_um=1, dwell_ms=10, tile_um=4,
        x_center_um=0.0, y_center_um=0.0,
    )  # fmt: skip


def pair(beamline: SimBeamline) -> MapPlan:
    """Return the plan of a pair whose stage comes back to where it was."""
    return acquire_pair(beamline, width_um=4, height_um=4, fine_step_um=1, dwell_ms=10)


def rescan(beamline: SimBeamline) -> MapPlan:
    """Return the plan of a rescan of one region."""
    region = dict(zip(("x_low_um", "x_high_um", "y_low_um", "y_high_um"), BOX_UM, strict=True))
    return rescan_regions(beamline, [region], fine_step_um=0.5, dwell_ms=10)


PLANS = {"survey": survey, "pair": pair, "rescan": rescan}


@dataclass
class Ends:
    """How many runs of a plan ended in which way, and what was wrong with the bad ones."""

    ends: int = 0
    unsafe: int = 0
    untold: list[str] = field(default_factory=list)
    open_runs: list[str] = field(default_factory=list)
    how: Counter[str] = field(default_factory=Counter)


class CriticalMessages(logging.Handler):
    """Keeps the critical messages that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.CRITICAL)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.texts.append(record.getMessage())


class Bench:
    """A RunEngine, its documents, and what is logged."""

    def __init__(self) -> None:
        self.engine = RunEngine({})
        self.docs: list[tuple[str, dict[str, Any]]] = []
        self.engine.subscribe(lambda name, doc: self.docs.append((name, doc)))
        self.critical = CriticalMessages()
        logging.getLogger("xrf_sr_plans").addHandler(self.critical)

    def run(self, plan: str, error: str, way: str, at: int, ends: Ends) -> None:
        """Fly one plan whose message number `at` fails, and judge how it ended."""
        self.docs.clear()
        self.critical.texts.clear()
        beamline = make_beamline(
            analysis=AnalysisDevice(source=OneRegion()),
            time_model=RowTimeModel(overhead_s=0.2, patience=1.0, grace_s=0.3),
            shutter_open=False,
        )
        before = beamline.fast.velocity.get()
        messages = failing(PLANS[plan](beamline), at, way, ERRORS[error])
        raised: BaseException | None = None
        # The RunEngine prints that it pauses and stops.
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                self.engine(messages)
            except RunEngineInterrupted:
                getattr(self.engine, BY_HAND[error])()
            except Exception as caught:  # noqa: BLE001 - whatever the plan raises is judged
                raised = caught
        place = f"{plan}, message {at}, {error} {way}"
        ends.ends += 1
        ends.how["raised" if raised is not None else self._last_status()] += 1
        wrong = left_unsafe(beamline, before)
        if wrong:
            ends.unsafe += 1
            if not self._told(raised):
                ends.untold.append(f"{place}: {', '.join(wrong)}; raised {raised!r}")
        started = {doc["uid"] for name, doc in self.docs if name == "start"}
        stopped = {doc["run_start"] for name, doc in self.docs if name == "stop"}
        if started != stopped:
            ends.open_runs.append(place)

    def _last_status(self) -> str:
        stops = [doc["exit_status"] for name, doc in self.docs if name == "stop"]
        return stops[-1] if stops else "no run"

    def _told(self, raised: BaseException | None) -> bool:
        reasons = [doc.get("reason", "") for name, doc in self.docs if name == "stop"]
        texts = [*reasons, *self.critical.texts]
        told = any(words in text for words in UNSAFE_WORDS for text in texts)
        return told or isinstance(raised, LeftUnsafeError)


def left_unsafe(beamline: SimBeamline, velocity: float) -> list[str]:
    """Return in words what is unsafe at a beamline after a plan."""
    facts = {
        "the shutter is open": beamline.microscope.shutter_open,
        "another velocity": beamline.fast.velocity.get() != velocity,
        "something moves": beamline.fast.moving or beamline.slow.moving,
    }
    return [words for words, is_so in facts.items() if is_so]


def failing(plan: MapPlan, at: int, way: str, error: Callable[[], Exception]) -> Iterator[Msg]:
    """Pass a plan's messages on, but let message number `at` fail in a way."""
    answer: Any = None
    thrown: Exception | None = None
    broken: tuple[str, int] | None = None
    number = 0
    while True:
        try:
            msg = plan.throw(thrown) if thrown is not None else plan.send(answer)
        except StopIteration as done:
            return done.value
        thrown = None
        hit, number = number == at, number + 1
        if hit and way == "for good":
            broken = msg.command, id(msg.obj)
        if broken == (msg.command, id(msg.obj)) or (hit and way == "once"):
            thrown = error()
            continue
        try:
            if hit and way == "by hand":
                yield Msg("pause", None, defer=False)
            answer = yield msg
            if hit and way == "late":
                thrown = error()
        except GeneratorExit:
            plan.close()
            raise
        except Exception as raised:  # noqa: BLE001 - whatever it is goes on to the plan
            thrown = raised


def number_of_messages(bench: Bench, plan: str) -> int:
    """Return how many messages an undisturbed plan has."""
    beamline = make_beamline(analysis=AnalysisDevice(source=OneRegion()), shutter_open=False)
    count = 0

    def counted() -> Iterator[Msg]:
        nonlocal count
        messages = PLANS[plan](beamline)
        answer = None
        while True:
            try:
                msg = messages.send(answer)
            except StopIteration:
                return
            count += 1
            answer = yield msg

    bench.engine(counted())
    return count


def ways_of(error: str) -> tuple[str, ...]:
    """Return the ways in which an exception can come."""
    return ("once", "late", "by hand") if error in BY_HAND else ("once", "late", "for good")


def run(every: int) -> dict[str, Any]:
    """Let messages of all plans fail in all ways; return the table."""
    bench = Bench()
    table = {}
    for plan in PLANS:
        messages = number_of_messages(bench, plan)
        ends, began = Ends(), time.monotonic()
        for error in ERRORS:
            for way in ways_of(error):
                for at in range(0, messages, every):
                    bench.run(plan, error, way, at, ends)
        table[plan] = {
            "messages": messages,
            "ends": ends.ends,
            "unsafe": ends.unsafe,
            "untold": ends.untold,
            "open_runs": ends.open_runs,
            "how": dict(ends.how),
            "seconds": time.monotonic() - began,
        }
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="of how many messages one fails")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    logging.getLogger("xrf_sr_plans").propagate = False
    logging.getLogger("bluesky").setLevel(logging.CRITICAL + 1)
    table = run(options.every)
    print(
        f"{'plan':8}{'messages':>9}{'ends':>7}{'unsafe':>8}{'untold':>8}{'open runs':>11}{'s':>6}"
    )
    for plan, row in table.items():
        print(
            f"{plan:8}{row['messages']:9d}{row['ends']:7d}{row['unsafe']:8d}"
            f"{len(row['untold']):8d}{len(row['open_runs']):11d}{row['seconds']:6.0f}  {row['how']}"
        )
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    bad = [place for row in table.values() for place in (*row["untold"], *row["open_runs"])]
    if bad:
        sys.exit("\n".join(bad[:40]))


if __name__ == "__main__":
    main()
