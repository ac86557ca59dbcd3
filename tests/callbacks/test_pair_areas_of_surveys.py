"""The analysis chooses areas for pairs on all tiles of a survey, beside what the store has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.row_documents import ELEMENTS, map_run
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.tiles import split_into_tiles
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.schema import AnalysisRequest, PairAreas, RescanModel, TileIndex
from xrf_sr_plans.store.pairs import PairStore

WHOLE = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=48, height_um=16, step_um=1)
TILES = split_into_tiles(WHOLE, (24.0, 16.0))
RESCANS = RescanModel(step_um=0.5, dwell_ms=10, row_overhead_s=0.1, stage={"theta": 30.0})
SURVEY = "survey-1"


def grains(columns: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mean = np.where(random.random((len(ELEMENTS), 16, columns)) < 0.3, 300.0, 4.0)
    return random.poisson(mean).astype(float)


def ramp(columns: int, seed: int = 0) -> np.ndarray:
    mean = np.linspace(20, 120, 16)[:, None] * np.ones((len(ELEMENTS), 16, columns))
    return np.random.default_rng(seed).poisson(mean).astype(float)


def areas(by: str = "least represented", number: int = 1) -> AnalysisRequest:
    asked = PairAreas(size_um=8, number=number, by=by)  # type: ignore[arg-type]
    return AnalysisRequest(rescans=RESCANS, pair_areas=asked)


def store_with(counts: np.ndarray, folder: Path) -> Path:
    """Return a store with one pair, whose coarse map counted this."""
    rows, columns = counts.shape[1:]
    grid = ScanGrid.from_start_stop(0, columns - 1, columns, 0, rows - 1, rows)
    store = PairStore(folder)
    store.save_map("pair", 0, 2, ElementalMaps.from_arrays(counts, grid, ELEMENTS))
    fine = counts.repeat(2, axis=1).repeat(2, axis=2)
    store.save_map("pair", 1, 1, ElementalMaps.from_arrays(fine, grid.refined(2), ELEMENTS))
    store.finish("pair", {0: PairRegistration(2, 0.0, 0.0)}, sample="before")
    return folder


def surveyed(
    request: AnalysisRequest, settings: AnalysisSettings | None = None, tiles: Any = (0, 1)
) -> dict[str, AnalysisSummary]:
    """Analyze the tiles of a survey, grains in the first one and a ramp in the second one."""
    summaries: list[AnalysisSummary] = []
    chain = AnalysisChain(settings, finished=summaries.append, emit=lambda name, doc: None)
    planes = grains(24), ramp(24)
    for index in tiles:
        for name, doc in map_run(
            TILES[index].grid,
            planes[index],
            run=f"tile-{index}",
            purpose="coarse",
            survey_uid=SURVEY,
            tile=TileIndex(index=index, of=2, earlier=["tile-0"] if index else []),
            analysis=request,
        ):
            chain(name, doc)
    return {summary.source_uid: summary for summary in summaries}


def test_without_a_store_areas_are_compared_with_each_other_and_a_note_says_so(bicubic_model):
    summary = surveyed(areas(number=4))[SURVEY]
    assert summary.status == "done"
    assert "no pair store to compare with" in summary.reason
    assert len(summary.regions) == 4
    # Both tiles have some, of eight coarse pixels, tied to their tile and to the stage.
    assert {region.source_uid for region in summary.regions} == {"tile-0", "tile-1"}
    assert {(one.width_um, one.height_um) for one in summary.regions} == {(8.0, 8.0)}
    assert all(dict(one.stage) == {"theta": 30.0} for one in summary.regions)


@pytest.mark.parametrize(("stored", "chosen"), [(grains, "tile-1"), (ramp, "tile-0")])
def test_what_the_store_lacks_is_chosen(bicubic_model, tmp_path, stored, chosen):
    folder = store_with(stored(24, seed=5), tmp_path / "pairs")
    summaries = surveyed(areas(), AnalysisSettings(pair_dir=str(folder)))
    (region,) = summaries[SURVEY].regions
    assert region.source_uid == chosen
    assert "1 stored maps" in region.reason
    version = PairStore(folder).version
    assert f"compared with 1 coarse maps of 1 pairs, store {version}" in summaries[SURVEY].reason


def test_a_store_that_cannot_be_read_is_told_and_costs_nothing_else(bicubic_model, tmp_path):
    folder = store_with(grains(24), tmp_path / "pairs")
    for file in (folder / "maps").glob("*.h5"):
        file.write_bytes(b"damaged")
    summaries = surveyed(areas(), AnalysisSettings(pair_dir=str(folder)))
    assert "the pair store can't be read" in summaries[SURVEY].reason
    assert len(summaries[SURVEY].regions) == 1


def test_a_pair_that_comes_is_compared_with_at_once(bicubic_model, tmp_path):
    from xrf_sr_plans.callbacks.known_contents import StoredContents

    known = StoredContents(tmp_path / "pairs")
    assert known.known().contents.shape[0] == 0
    store_with(grains(24), tmp_path / "pairs")
    first = known.known()
    assert first.contents.shape[0] == 1
    assert known.known() is first


def test_the_least_sure_areas_need_no_store(bicubic_model):
    summary = surveyed(areas("least sure", 2))[SURVEY]
    assert len(summary.regions) == 2
    assert all("least sure" in region.reason for region in summary.regions)
    assert summary.regions[0].score >= summary.regions[1].score
