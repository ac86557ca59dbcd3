"""A minimal map plan and a recorder that validates every document."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import event_model
from bluesky import RunEngine
from bluesky.utils import Msg

from xrf_sr_plans.devices.protocols import HasRowPlan, RowRequest
from xrf_sr_plans.maps.grid import ScanGrid


class Documents(list):
    """(name, document) pairs, each valid by the event-model schema."""

    __hash__ = object.__hash__

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)
        self.append((name, document))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [document for kind, document in self if kind == name]

    def rows(self) -> list[dict[str, Any]]:
        """Row events' data, keyed by role."""
        found = []
        for page in self.named("event_page"):
            for event in event_model.unpack_event_page(page):
                found.append({key.split("_", 1)[1]: v for key, v in event["data"].items()})
        return found


def row_request(grid: ScanGrid, row: int, dwell_ms: float, map_key: str) -> RowRequest:
    direction = grid.direction(row)
    first, last = grid.fast.start_um, grid.fast.stop_um
    return RowRequest(
        map_key=map_key,
        row=row,
        direction=direction,
        first_um=first if direction > 0 else last,
        last_um=last if direction > 0 else first,
        step_um=grid.fast.step_um,
        num=grid.fast.num,
        dwell_ms=dwell_ms,
        run_up_um=grid.run_up_um,
        slow_um=float(grid.slow.centers_um[row]),
    )


def no_messages(row: int) -> Iterator[Msg]:
    yield from ()


def pause_once_in(row: int) -> Callable[[int], Iterator[Msg]]:
    """Return messages that pause the RunEngine in the middle of a row, the first time only."""

    def messages(now: int) -> Iterator[Msg]:
        if now == row:
            yield from bps.pause()

    return messages


def small_map(
    flyer: Any,
    grid: ScanGrid,
    dwell_ms: float = 10.0,
    map_key: str = "m",
    timeout_s: float = 20,
    in_flight: Callable[[int], Iterator[Msg]] = no_messages,
) -> Iterator[Msg]:
    """Fly a map the shortest way that the protocols allow; `in_flight` comes in mid-row."""

    @bpp.stage_decorator([flyer])
    @bpp.run_decorator(md={"plan_name": "small_map"})
    def inner() -> Iterator[Msg]:
        for row in range(grid.slow.num):
            yield from bps.checkpoint()
            request = row_request(grid, row, dwell_ms, map_key)
            yield from bps.prepare(flyer, request, group="row")
            yield from bps.wait("row", timeout=timeout_s)
            if isinstance(flyer, HasRowPlan):
                yield from flyer.row_plan(request)
            else:
                yield from bps.kickoff(flyer, wait=True)
                yield from in_flight(row)
                yield from bps.complete(flyer, group="row")
                yield from bps.wait("row", timeout=timeout_s)
            yield from bps.collect(flyer, stream=False)

    return (yield from inner())


def grid_of(
    nx: int = 8,
    ny: int = 4,
    step_um: float = 1.0,
    x_um: float = 0.0,
    y_um: float = 0.0,
    **kwargs: Any,
) -> ScanGrid:
    """Return a grid around a place, with ample run-up."""
    return ScanGrid.from_center(
        x_center_um=x_um,
        y_center_um=y_um,
        width_um=nx * step_um,
        height_um=ny * step_um,
        step_um=step_um,
        **{"run_up_um": 5.0, **kwargs},
    )


def fly(flyer: Any, grid: ScanGrid, **kwargs: Any) -> Documents:
    """Fly a small map on a RunEngine of its own; return its documents."""
    documents = Documents()
    RunEngine({})(small_map(flyer, grid, **kwargs), documents)
    return documents


def pausing_at(plan: Iterator[Msg], index: int) -> Iterator[Msg]:
    """Pause before message `index` of a plan."""
    response = None
    for count in range(10**6):
        try:
            message = plan.send(response)  # type: ignore[attr-defined]
        except StopIteration as done:
            return done.value
        if count == index:
            yield from bps.pause()
        response = yield message


def messages_of(plan: Iterator[Msg]) -> int:
    """Run a plan; return how many messages it had."""
    seen: list[Msg] = []
    run_engine = RunEngine({})
    run_engine.msg_hook = seen.append
    run_engine(plan)
    return len(seen)
