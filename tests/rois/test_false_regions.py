"""Maps that hold nothing to find give no region, sound or with a routine defect."""

from __future__ import annotations

import numpy as np
import pytest

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.rois.pick import pick_regions
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.sr.bicubic import enhance_bicubic


@pytest.mark.parametrize("find", [None, "Fe"])
@pytest.mark.parametrize(
    "defect", ["none", "dumped rows", "bad columns", "hot pixels", "dead row", "doubled row"]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_routine_defect_is_no_region(defect: str, find: str | None, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson([[[3.0]], [[20.0]], [[100.0]]], (3, 48, 48)).astype(float)
    if defect == "dumped rows":
        counts[:, 20:25] = 0
    elif defect == "bad columns":
        counts[:, :, -2:] = 0
    elif defect == "hot pixels":
        counts[0, rng.integers(0, 48, 10), rng.integers(0, 48, 10)] = 1e4
    elif defect == "dead row":
        counts[:, 30] = 0
    elif defect == "doubled row":
        counts[:, 31] = counts[:, 30]
    grid = ScanGrid.from_start_stop(0, 47, 48, 0, 47, 48)
    maps = ElementalMaps.from_arrays(counts, grid, ["Fe", "Zn", "Ca"], dwell_ms=10.0, step_um=1.0)
    enhanced = enhance_bicubic(maps, 2, "")
    assert pick_regions(enhanced, AnalysisRequest(find=find), source_uid="").regions == ()
