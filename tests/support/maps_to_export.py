"""Small maps that show when something is mirrored, transposed, shifted or scaled wrongly."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid

ELEMENTS = ["Fe", "Zn", "Pb_L"]
MODEL = {"name": "folded-shared", "sha256": "ab" * 32, "calibration": "c1"}


def grid(rows: int = 12, columns: int = 20, step_um: float = 1.5, step_y_um: float = 1.5):
    """A grid that is not square, far from 0 and not centered on it."""
    return ScanGrid.from_start_stop(
        1000.25, 1000.25 + (columns - 1) * step_um, columns,
        -40.5, -40.5 + (rows - 1) * step_y_um, rows,
    )  # fmt: skip


def pattern(shape: tuple[int, int], elements: int = len(ELEMENTS)) -> np.ndarray:
    """Return photons (element, y, x), all different within an element."""
    y, x = np.indices(shape)
    return np.stack([100.0 * (index + 1) * y + x + 1 for index in range(elements)])


def enhanced(**attributes) -> EnhancedMaps:
    """Maps as `enhance` returns them, with two pixels where nothing was measured."""
    values = pattern(grid().shape).astype(np.float32)
    values[:, 3, 4:6] = np.nan
    facts = {
        "factor": 2,
        "sampling": "fly",
        "model": MODEL,
        "source_uid": "5f3c2a10-0000-4000-8000-000000000001",
        "fallback": "",
        "notes": ["the probe is not known: its blur stays"],
        "data_notes": [],
        "step_um": 3.0,
        "probe_fwhm_um": None,
        "deblurred": False,
        "dwell_ms": 20.0,
    }
    return EnhancedMaps.from_arrays(
        grid(),
        ELEMENTS,
        estimate=values,
        sigma=np.sqrt(values),
        lower=values - 2,
        upper=values + 3,
        baseline=0.9 * values,
        trusted=values > 50,
        **{**facts, **attributes},
    )


def composite(fine_maps: int = 2) -> CompositeMap:
    """The composite map of a survey with rescans."""
    values = pattern(grid().shape).astype(np.float32)
    measured = values > 800
    placements = [
        {"fine_uid": f"fine-{index}", "dx_um": 0.1 * index, "dy_um": None, "error_um": 0.05,
         "correlation": 0.9, "pixels": 7, "note": "" if index else "flown elsewhere"}
        for index in range(fine_maps)
    ]  # fmt: skip
    fields = {
        "value": values,
        "sigma": np.sqrt(values),
        "measured": measured,
        "trusted": measured | (values > 50),
        "source": np.where(measured, 1, 0),
    }
    return CompositeMap.from_arrays(
        grid(),
        ELEMENTS,
        fields,
        survey_uid="survey-1",
        tile_uids=["tile-0"],
        rescan_uids=[one["fine_uid"] for one in placements],
        placements=placements,
        model=MODEL,
        factor=2,
        sampling="fly",
        fallback="",
        dwell_ms=20.0,
        i0_median=None,
        notes=["two fine maps overlap"],
    )


def measured_rows() -> ElementalMaps:
    """A measured map of rows: pixels of 1.5 um in rows that are 3 um apart."""
    rows = grid(6, 20, step_um=1.5, step_y_um=3.0)
    return ElementalMaps.from_arrays(
        pattern(rows.shape),
        rows,
        ELEMENTS,
        i0=np.full(rows.shape, 1e5),
        live_time_s=np.full(rows.shape, 0.018),
        source_uid="coarse-1",
        dwell_ms=20.0,
        step_um=3.0,
        sampling="rows",
    )
