"""Each rescan of a survey enters the pair store by itself, with a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder
from support.row_documents import map_run, small_grid
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import SimFineStage, make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.pairs import PairStore

COARSE = small_grid(20, 24)
SURVEY = {
    "width_um": 32,
    "height_um": 32,
    "step_um": 2,
    "dwell_ms": 50,
    "x_center_um": 0,
    "y_center_um": 0,
    "find": "Fe > p90",
    "max_regions": 2,
    "min_size_um": 16,
}


def fine_counts(grid: ScanGrid, seed: int = 0) -> np.ndarray:
    x, y = np.meshgrid(grid.fast.centers_um, grid.slow.centers_um)
    waves = np.sin(x / 3) * np.cos(y / 4), np.cos((x + 2 * y) / 5), np.sin(x * y / 40)
    return np.random.default_rng(seed).poisson(60 * (1.2 + np.stack(waves))).astype(float)


def survey_runs(window: tuple[int, int, int, int], factor: int = 2) -> list[list]:
    """A coarse map, and a rescan of fine rows and columns low..high of its refined grid."""
    refined = COARSE.refined(factor)
    top, bottom, left, right = window
    fine = ScanGrid.from_start_stop(
        float(refined.fast.centers_um[left]),
        float(refined.fast.centers_um[right - 1]),
        right - left,
        float(refined.slow.centers_um[top]),
        float(refined.slow.centers_um[bottom - 1]),
        bottom - top,
    )
    coarse = block_mean(fine_counts(refined), factor).round()
    counts = fine_counts(refined, seed=1)[:, top:bottom, left:right]
    ends = {
        "purpose": "fine",
        "parent_uid": "coarse",
        "survey_uid": "survey-1",
        "analysis": AnalysisRequest(enhance=False),
    }
    return [
        list(map_run(COARSE, coarse, "coarse", survey_uid="survey-1")),
        list(map_run(fine, counts, "fine", **ends)),
    ]


def analysed(folder: Path, runs: list[list]) -> list[str]:
    summaries: list[Any] = []
    settings = AnalysisSettings(pair_dir=str(folder), threads=1)
    chain = AnalysisChain(settings, finished=summaries.append, fallback_reason="a test")
    for run in runs:
        for name, doc in run:
            chain(name, doc)
    return [summary.status for summary in summaries]


@pytest.mark.parametrize("factor", [2, 4])
def test_a_rescan_becomes_a_pair_of_whole_coarse_pixels(tmp_path: Path, factor: int) -> None:
    # Coarse rows 2 to 13 and columns 4 to 19, and one fine pixel more on each side.
    top, bottom, left, right = (factor * edge for edge in (2, 14, 4, 20))
    analysed(tmp_path, survey_runs((top - 1, bottom + 1, left - 1, right + 1), factor))
    (pair,) = PairStore(tmp_path).pairs()
    (coarse,) = pair.coarse
    assert (pair.source, coarse.factor) == ("rescan", factor)
    assert coarse.maps.grid.shape == (12, 16)
    assert pair.fine.maps.grid == coarse.maps.grid.refined(factor)
    refined = COARSE.refined(factor)
    whole = fine_counts(refined, seed=1)[:, top:bottom, left:right]
    np.testing.assert_array_equal(pair.fine.maps.counts, whole)
    assert pair.registration[0].correlation > 0.5
    assert pair.fine.origin.parent_uid == coarse.origin.run_uid == "coarse"
    assert pair.fine.origin.survey_uid == "survey-1"


def test_another_process_that_gets_the_rescan_knows_the_survey(tmp_path: Path) -> None:
    coarse, fine = survey_runs((8, 32, 8, 40))
    analysed(tmp_path, [coarse])
    analysed(tmp_path, [fine])
    assert len(list(PairStore(tmp_path).pairs())) == 1
    analysed(tmp_path, [coarse, fine])
    assert len(list(PairStore(tmp_path).pairs())) == 1


def test_a_rescan_of_few_pixels_is_kept_with_its_problem(tmp_path: Path) -> None:
    analysed(tmp_path, survey_runs((8, 14, 8, 16)))
    (pair,) = PairStore(tmp_path).pairs()
    assert not pair.usable
    assert "too small" in pair.registration[0].problem


def test_a_rescan_that_was_cut_off_is_kept_with_its_problem(tmp_path: Path) -> None:
    coarse, fine = survey_runs((8, 32, 8, 40))
    analysed(tmp_path, [coarse, [*fine[:-9], fine[-1]]])
    (pair,) = PairStore(tmp_path).pairs()
    assert "rows of the fine map were not measured" in pair.problem
    assert list(PairStore(tmp_path).pairs(usable=True)) == []


def test_a_rescan_without_its_survey_and_a_damaged_store_cost_no_result(tmp_path: Path) -> None:
    coarse, fine = survey_runs((8, 32, 8, 40))
    assert analysed(tmp_path, [fine]) == ["done"]
    assert not (tmp_path / "log.jsonl").exists()
    (tmp_path / "log.jsonl").write_bytes(b"nonsense\n")
    assert analysed(tmp_path, [coarse, fine])[-1] == "done"


def flown(folder: Path, beamline: dict[str, Any], **wishes: Any) -> list:
    run_engine = RunEngine({"sample": {"name": "leaf 3"}}, call_returns_result=True)
    raw = Recorder(run_engine)
    session = start_session(
        run_engine,
        make_beamline(i0_ripple=0.0, **beamline),
        settings=AnalysisSettings(threads=1, pair_dir=str(folder)),
        in_process=True,
    )
    with session as opened:
        run_engine(opened.plans["coarse_survey_with_sr"](**{**SURVEY, **wishes}))
        opened.link.flush(60)
    return raw.docs


@pytest.mark.parametrize(
    ("beamline", "wishes"),
    [
        ({}, {"sampling": "squares"}),
        ({}, {"sampling": "rows"}),
        ({"fine_stage": SimFineStage(sign=(-1, 1))}, {"sampling": "squares"}),
    ],
    ids=["squares", "rows", "two stages"],
)
def test_the_rescans_of_a_survey_are_pairs_live_and_replayed(
    tmp_path: Path, beamline: dict[str, Any], wishes: dict[str, Any]
) -> None:
    documents = flown(tmp_path / "live", beamline, **wishes)
    live = PairStore(tmp_path / "live")
    pairs = list(live.pairs())
    assert pairs
    for pair in pairs:
        (coarse,) = pair.coarse
        assert (pair.source, pair.sample) == ("rescan", "leaf 3")
        ratio = np.array(pair.fine.maps.grid.shape) / coarse.maps.grid.shape
        assert tuple(ratio) == (2, 1 if coarse.maps.attrs["sampling"] == "rows" else 2)
        lows = [
            (maps.grid.fast.low_um, maps.grid.slow.low_um) for maps in (coarse.maps, pair.fine.maps)
        ]
        np.testing.assert_allclose(*lows)
    settings = AnalysisSettings(threads=1, pair_dir=str(tmp_path / "again"))
    maps = [start["uid"] for name, start in documents if name == "start"]
    assert len(maps) > 1
    replay(documents, settings=settings)
    assert PairStore(tmp_path / "again").version == live.version
