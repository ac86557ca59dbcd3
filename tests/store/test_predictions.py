"""Predictions that a fine map is compared with later are those of the whole map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.sr.bicubic import enhance_bicubic
from xrf_sr_plans.store.predictions import Predictions


def predicted(rows: int) -> EnhancedMaps:
    grid = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=8, height_um=6, step_um=1)
    counts = np.full((1, 6, 8), 9.0)
    counts[:, rows:] = np.nan
    enhanced = enhance_bicubic(
        ElementalMaps.from_arrays(counts, grid, ["Fe"], source_uid="run"), 2, ""
    )
    facts = {"dwell_ms": 5.0, "i0_median": 1.0, "result_uid": "r"}
    return EnhancedMaps(enhanced.dataset.assign_attrs(facts), enhanced.grid)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_part_of_a_map_replaces_no_whole_one_and_is_replaced_by_it(
    tmp_path: Path, on_disk: bool
) -> None:
    folder = tmp_path if on_disk else None
    predictions = Predictions(folder)
    for rows, kept in ((3, 3), (6, 6), (4, 6)):
        predictions.keep(predicted(rows))
        found = (Predictions(folder) if on_disk else predictions).recall("run")
        assert found is not None
        assert int(found.estimate.count()) == kept * 8 * 4
