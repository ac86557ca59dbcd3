"""The start document of a map run, with what our readers, PyXRF and other tools look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.maps.grid import ScanGrid


def map_start(
    beamline: Beamline,
    grid: ScanGrid,
    metadata: schema.MapMetadata,
    *,
    plan_args: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the metadata of a map run, in JSON types.

    The key ``scan`` is as at NSLS-II's SRX beamline, because PyXRF reads that: its shape and
    scan_input are in the order (fast, slow), in um and seconds. All else is in the order
    (slow, fast).

    Parameters
    ----------
    beamline
        Its flyer gives the name of the detector.
    grid
        The pixels.
    metadata
        What goes into the key ``xrf_sr``.
    plan_args
        What goes into the key of that name.
    """
    rows, columns = grid.shape
    fast, slow = grid.fast, grid.slow
    dwell_s = metadata.dwell_ms * 1e-3
    detector = beamline.flyer.name
    return {
        "plan_name": schema.PLAN_MAP,
        "plan_args": dict(plan_args),
        "motors": [slow.name, fast.name],
        "detectors": [detector],
        "shape": [rows, columns],
        "num_points": rows,
        # Centers, as of bluesky's own plans: readers take (last - first) / (num - 1) as the step.
        "extents": grid.end_centers_um,
        "snaking": [False, grid.snake],
        # The row is the only scalar; positions are arrays, which live plots can't show.
        "hints": {
            "dimensions": [[[schema.row_keys(detector)["row"]], schema.STREAM_ROWS]],
        },
        "scan": {
            "type": "XRF_STEP" if metadata.sampling == "point" else "XRF_FLY",
            "scan_input": [
                fast.start_um,
                fast.stop_um,
                columns,
                slow.start_um,
                slow.stop_um,
                rows,
                dwell_s,
            ],
            "dwell": dwell_s,
            "fast_axis": {"motor_name": fast.name, "units": "um"},
            "slow_axis": {"motor_name": slow.name, "units": "um"},
            "shape": [columns, rows],
            "snake": int(grid.snake),
            "detectors": [detector],
        },
        # The same key as in the results, so that one search finds all runs of a survey.
        **({} if metadata.survey_uid is None else {"survey_uid": metadata.survey_uid}),
        "xrf_sr": metadata.to_dict(),
    }
