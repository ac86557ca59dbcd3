"""Runs of every shape that the plans measure, flown with the analysis live."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from ophyd.sim import SynAxis, SynSignal

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.faults import (
    BadLastColumns,
    BeamDump,
    MissingRow,
    MonitorZero,
    Saturation,
    ShortRow,
)
from xrf_sr_plans.devices.step_flyer import StepFlyer
from xrf_sr_plans.session import Session, start_session

Sink = Callable[[str, dict[str, Any]], Any]
AREA = {
    "width_um": 16,
    "height_um": 12,
    "step_um": 1,
    "dwell_ms": 20,
    "rescan": "propose",
    "analysis_timeout_s": 300,
}


def _stepping() -> Beamline:
    x, y = SynAxis(name="x", egu="um"), SynAxis(name="y", egu="um")
    iron = SynSignal(func=lambda: 100 + 10 * x.position + y.position, name="iron")
    flyer = StepFlyer("step", [iron], x, y, counts={"Fe": "iron"})
    return Beamline(x, y, flyer, safe_box_um=((-99, 99), (-99, 99)))


def _sim(*faults: Any, **more: Any) -> Callable[[], Beamline]:
    return lambda: make_beamline("zagami", clock="instant", faults=list(faults), **more)


def _survey(**changes: Any) -> Callable[[Session], Any]:
    return lambda session: session.plans["coarse_survey_with_sr"](**{**AREA, **changes})


def _paused(session: Session) -> Any:
    """Pause once between the fourth collect and its checkpoint: the row is flown again."""
    seen = 0

    def insert(msg: Any) -> tuple[None, Any]:
        nonlocal seen
        seen += msg.command == "collect"
        return None, bps.pause() if msg.command == "collect" and seen == 4 else None

    return bpp.plan_mutator(_survey()(session), insert)


def _aborted(session: Session) -> Any:
    """End in the midst of a map."""
    seen = 0

    def insert(msg: Any) -> tuple[None, Any]:
        nonlocal seen
        seen += msg.command == "collect"
        if msg.command == "collect" and seen == 9:
            return None, _fail()
        return None, None

    return bpp.plan_mutator(_survey()(session), insert)


def _fail() -> Iterator[Any]:
    yield from bps.null()
    raise RuntimeError("the hutch was opened")


SHAPES: dict[str, tuple[Callable[[], Beamline], Callable[[Session], Any]]] = {
    "squares": (_sim(), _survey(sampling="squares")),
    "rows at factor 2": (_sim(), _survey(sampling="rows", step_um=2)),
    "rows at factor 4": (_sim(), _survey(sampling="rows", step_um=2, factor=4)),
    "the same grid": (_sim(), _survey(factor=1)),
    "tiles and rescans": (
        _sim(),
        _survey(width_um=32, tile_um=17, step_um=2, rescan="inline", budget_s=8, find="K"),
    ),
    "rescans three times": (
        _sim(),
        _survey(step_um=2, rescan="inline", budget_s=6, find="K"),
    ),
    "lost and short rows": (
        _sim(ShortRow(rows=(2,), frames=9), MissingRow(rows=(5,))),
        _survey(row_attempts=1),
    ),
    "a row flown again": (_sim(), _paused),
    "aborted": (_sim(), _aborted),
    "the beam was dumped": (_sim(BeamDump(row=6, back_at_row=8)), _survey()),
    "no monitor": (_sim(MonitorZero(rows=(1, 2))), _survey()),
    "bad last columns": (_sim(BadLastColumns(columns=2)), _survey()),
    "saturated": (_sim(Saturation(rows=(3,))), _survey()),
    "stepped": (_stepping, _survey()),
    "one row": (_sim(), lambda session: session.plans["xrf_map"](
        width_um=16, height_um=1, step_um=1, dwell_ms=20)),
    "a map that asks for nothing": (_sim(), lambda session: session.plans["xrf_map"](
        width_um=16, height_um=12, step_um=1, dwell_ms=20)),
    "a pair": (_sim(), lambda session: session.plans["acquire_pair"](
        width_um=12, height_um=8, fine_step_um=1, dwell_ms=10)),
}  # fmt: skip
"""By name: what makes the beamline, and what makes the plan of its session."""


def fly_corpus(
    sinks: Sequence[Sink],
    result_sinks: Sequence[Sink] = (),
    shapes: Sequence[str] = (),
    settings: AnalysisSettings | None = None,
) -> dict[str, list[str]]:
    """Fly all shapes, or some, and return the uids of their runs by the name of the shape."""
    flown: dict[str, list[str]] = {}
    for name in shapes or SHAPES:
        make, plan = SHAPES[name]
        engine, uids = RunEngine({}), []
        for sink in (*sinks, lambda kind, doc: kind == "start" and uids.append(doc["uid"])):  # noqa: B023
            engine.subscribe(sink)
        session = start_session(
            engine,
            make(),
            settings=settings or AnalysisSettings(),
            in_process=True,
            result_sinks=result_sinks,
        )
        with contextlib.suppress(RuntimeError):
            try:
                engine(plan(session))
            except RunEngineInterrupted:
                engine.resume()
        session.close(300)
        flown[name] = uids
    return flown
