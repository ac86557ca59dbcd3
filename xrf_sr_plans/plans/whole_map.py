"""`fly_whole`: a map that somebody else's plan flies, inside a run of ours."""

from __future__ import annotations

import logging
import time
import uuid
from itertools import groupby
from typing import TYPE_CHECKING

from bluesky import plan_stubs as bps
from bluesky.utils import FailedStatus, MsgGenerator

from xrf_sr_plans import schema
from xrf_sr_plans.devices.map_protocols import HasMapPlan, WholeMapRequest
from xrf_sr_plans.errors import FlightError, in_words
from xrf_sr_plans.plans.plan_record import PlanRecord, record_event

if TYPE_CHECKING:
    from xrf_sr_plans.plans.flight import Flight

logger = logging.getLogger(__name__)

SCAN_FAILURES = (FailedStatus, TimeoutError, FlightError)
"""What a scan raises that fails, hangs or is interrupted."""


def fly_whole(flight: Flight, flyer: HasMapPlan, lost_in_succession: int) -> MsgGenerator[None]:
    """Measure a map by the flyer's own plan, and emit the rows that it leaves behind.

    The map is flown once: a scan that fails isn't repeated by itself, because a whole map is a
    lot of dose. It is flown anew after a pause, which ends the scan. Rows that are missing in the
    file are noted in the stream ``lost_rows``.

    Parameters
    ----------
    flight
        The map in flight.
    flyer
        Its flyer.
    lost_in_succession
        Number of rows missing one behind the other that is a failure of the map.

    Raises
    ------
    FlightError
        No row can be read, or too many in succession are missing. Rows that are there are kept.
    """
    request = _request(flight)
    failure, began_s = yield from _scanned(flight, flyer, request)
    yield from _read(flight, flyer, request, failure)
    missing = dict(flyer.missing_rows())
    measured = len(request["rows"]) - len(missing)
    flight.rows_s += [(time.monotonic() - began_s) / len(request["rows"])] * measured
    record = PlanRecord(f"{flight.beamline.flyer.name}_file", dict.fromkeys(flyer.provenance(), ""))
    yield from record_event(record, schema.STREAM_SCAN_FILE, flyer.provenance())
    for row, reason in sorted(missing.items()):
        yield from flight.lose_row(row, 1, "; ".join(filter(None, [reason, failure])))
    stretch = _longest_stretch(missing)
    if len(stretch) >= min(lost_in_succession, len(request["rows"])):
        raise FlightError(
            f"{flight.beamline.flyer.name}: rows {stretch[0]} to {stretch[-1]} are missing:"
            f" {missing[stretch[0]]}{f'; {failure}' if failure else ''}"
        )


def _request(flight: Flight) -> WholeMapRequest:
    """Return what is asked for: the whole map, and each of its rows."""
    run = flight.run
    rows = [flight.row_request(row) for row in range(run.grid.slow.num)]
    model = flight.beamline.time_model
    return WholeMapRequest(
        map_key=rows[0]["map_key"],
        rows=rows,
        grid=run.flown.to_dict(),
        dwell_ms=run.dwell_ms,
        timeout_s=model.timeout_s(len(rows) * model.row_s(run.grid.fast.num, run.dwell_ms)),
    )


def _scanned(
    flight: Flight, flyer: HasMapPlan, request: WholeMapRequest
) -> MsgGenerator[tuple[str, float]]:
    """Run the scan, anew after each pause.

    Return in words why it failed, or "", and when it began, by `time.monotonic`.
    """
    guard, device = flight.guard, flight.beamline.flyer
    patience = flight.beamline.time_model.timeout_s
    while True:
        interruptions, failure = guard.interruptions, ""
        began_s = time.monotonic()
        group = f"map-{uuid.uuid4().hex[:8]}"
        flight.groups = [group]
        yield from bps.checkpoint()
        try:
            yield from bps.prepare(device, request, group=group)
            yield from bps.abs_set(guard, "open", group=group)
            yield from bps.wait(group, timeout=patience(flyer.patience_s))
            if interruptions == guard.interruptions:
                yield from flyer.map_plan(request)
        except SCAN_FAILURES as error:
            failure = in_words(error)
            logger.warning("the scan failed: %s", failure)
            yield from flight.recover()
        # What was measured around a pause is not used: the shutter was closed in the middle.
        if interruptions == guard.interruptions:
            break
        logger.warning("the map was interrupted: it is flown anew")
        yield from flight.recover()
    # Reading takes no beam, and from here on a pause repeats the reading only.
    yield from bps.mv(guard, "close", timeout=patience(0.0))
    return failure, began_s


def _read(
    flight: Flight, flyer: HasMapPlan, request: WholeMapRequest, failure: str
) -> MsgGenerator[None]:
    """Wait for the rows and emit them."""
    device, patience = flight.beamline.flyer, flight.beamline.time_model.timeout_s
    group = f"map-{uuid.uuid4().hex[:8]}"
    flight.groups = [group]
    yield from bps.checkpoint()
    try:
        yield from bps.complete(device, group=group)
        yield from bps.wait(group, timeout=patience(flyer.patience_s))
    except (FailedStatus, TimeoutError) as error:
        reason = "; ".join(filter(None, [in_words(error), failure]))
        raise FlightError(f"{device.name}: {reason}") from error
    flight.check_carriers()
    yield from bps.collect(device)
    missing = flyer.missing_rows()
    flight.progress.rows.update(row["row"] for row in request["rows"] if row["row"] not in missing)
    yield from bps.checkpoint()


def _longest_stretch(rows: dict[int, str]) -> list[int]:
    """Return the longest run of successive rows."""
    numbered = enumerate(sorted(rows))
    runs = [[row for _, row in run] for _, run in groupby(numbered, lambda pair: pair[1] - pair[0])]
    return max(runs, key=len, default=[])
