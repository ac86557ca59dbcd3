"""The start document of a map run: what our reader, PyXRF and other people's tools look for."""

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
    """Return the metadata of a map run; JSON types only.

    ``scan`` follows SRX, whose readers PyXRF ships: shape and scan_input are (fast, slow), in um
    and seconds; everything else is (slow, fast).
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
        "extents": grid.extents_um,
        "snaking": [False, grid.snake],
        # Rows are the only scalar dimension: positions are arrays, which plots can't take.
        "hints": {
            "dimensions": [[[schema.row_keys(detector)["row"]], schema.STREAM_ROWS]],
        },
        "scan": {
            "type": "XRF_FLY" if metadata.sampling == "fly" else "XRF_STEP",
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
        "xrf_sr": metadata.to_dict(),
    }
