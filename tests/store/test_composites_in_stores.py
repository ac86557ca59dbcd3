"""A composite map comes back from each store as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xrf_sr_plans.callbacks.composite_run import SurveyAsKnown, composite_documents
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.composite.compose import FineMap, compose
from xrf_sr_plans.composite.composite_map import FIELDS, CompositeMap
from xrf_sr_plans.composite.from_documents import composite_from_documents
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.schema import Documents
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.surveys import SurveyEnd
from xrf_sr_plans.store.tiled import tiled_writer

GRID = ScanGrid.from_center(x_center_um=3, y_center_um=1, width_um=8, height_um=6, step_um=0.5)
ELEMENTS = ["Fe", "Zn"]


def survey() -> tuple[CompositeMap, Documents]:
    """Return a composite map, of which one pixel is unknown, and the documents of its run."""
    rng = np.random.default_rng(0)
    planes = rng.uniform(5, 90, (2, *GRID.shape)).astype(np.float32)
    planes[:, 0, 0] = np.nan
    fields = dict.fromkeys(("estimate", "sigma", "lower", "upper", "baseline"), planes)
    tile = EnhancedMaps.from_arrays(
        GRID,
        ELEMENTS,
        **fields,
        trusted=np.isfinite(planes),
        factor=2,
        model={"name": "m", "sha256": "ab", "calibration": "c"},
        source_uid="tile",
        fallback="",
        dwell_ms=10.0,
        i0_median=None,
    )
    box = ScanGrid.from_center(x_center_um=3, y_center_um=1, width_um=4, height_um=4, step_um=0.5)
    counts = rng.poisson(40.0, (2, *box.shape)).astype(float)
    fine = ElementalMaps.from_arrays(counts, box, ELEMENTS, dwell_ms=10.0)
    composite = compose([tile], [FineMap("fine", fine)], survey_uid="s")
    end = SurveyEnd("s", "outcomes", 1.0e9, ("tile",))
    known = SurveyAsKnown(end, "outcomes", 1.0e9, [tile], ["fine"])
    stored = [(name, as_lists(doc)) for name, doc in composite_documents(known, composite)]
    return composite, stored


def same(one: CompositeMap, other: CompositeMap) -> None:
    assert one.grid == other.grid
    assert one.elements == other.elements
    for name in FIELDS:
        values = one.dataset[name].values
        np.testing.assert_array_equal(values, other.dataset[name].values)
        assert values.dtype == other.dataset[name].values.dtype
    assert one.rescan_uids == other.rescan_uids == ["fine"]
    assert one.notes == other.notes
    assert [p.to_dict() for p in one.placements] == [
        pytest.approx(p.to_dict(), nan_ok=True) for p in other.placements
    ]
    for key in ("survey_uid", "tile_uids", "model", "factor", "dwell_ms", "i0_median"):
        assert one.dataset.attrs[key] == other.dataset.attrs[key]


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    composite, stored = survey()
    writer = JsonlWriter(tmp_path)
    for name, doc in stored:
        writer(name, doc)
    (path,) = tmp_path.glob("*.jsonl")
    same(composite_from_documents(documents(path)), composite)


def test_it_comes_back_from_tiled(catalog: Any) -> None:
    composite, stored = survey()
    write = tiled_writer(catalog)
    for name, doc in stored:
        write(name, doc)
    same(composite_from_documents(documents(catalog[stored[0][1]["uid"]])), composite)
