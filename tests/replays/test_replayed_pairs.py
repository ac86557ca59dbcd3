"""Stored runs that are replayed enter the pair store, where one is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.cli import app
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.pairs import PairStore

COARSE = small_grid(16, 16)
REFINED = COARSE.refined(2)
COUNTS = np.random.default_rng(0).poisson(50 + truth(REFINED)).astype(float)
NOT_ENHANCED = AnalysisRequest(enhance=False)


def written(folder: Path) -> Path:
    """The runs of a survey with a rescan, and those of a pair."""
    writer = JsonlWriter(folder)
    coarse = block_mean(COUNTS, 2).round()
    window = ScanGrid.from_start_stop(
        float(REFINED.fast.centers_um[8]), float(REFINED.fast.centers_um[27]), 20,
        float(REFINED.slow.centers_um[4]), float(REFINED.slow.centers_um[23]), 20,
    )  # fmt: skip
    rescan = {"purpose": "fine", "parent_uid": "survey", "analysis": NOT_ENHANCED}
    pair = [
        {"pair_uid": "pair-1", "pair_position": place, "pair_maps": 2, "pair_factor": 2 - place}
        for place in range(2)
    ]
    for number, run in enumerate((
        map_run(COARSE, coarse, "survey", survey_uid="s"),
        map_run(window, COUNTS[:, 4:24, 8:28], "rescan", survey_uid="s", **rescan),
        map_run(COARSE, coarse + 1, "coarse", purpose="pair_coarse", derived_input=pair[0],
                analysis=NOT_ENHANCED),
        map_run(REFINED, COUNTS + 1, "fine", purpose="pair_fine", derived_input=pair[1],
                analysis=NOT_ENHANCED),
    )):  # fmt: skip
        for name, doc in run:
            writer(name, {**doc, "time": 1e9 + number} if name == "start" else doc)
    return folder


def test_pairs_and_rescans_enter_the_store_that_is_named(tmp_path: Path) -> None:
    runs, store = written(tmp_path / "runs"), tmp_path / "store"
    options = ReplayOptions(pictures=False, maps=False, pairs=str(store))
    report = replay_all([runs], options=options)
    assert not report.failures
    found = {pair.source: pair for pair in PairStore(store).pairs()}
    assert set(found) == {"pair", "rescan"}
    assert found["pair"].pair_uid == "pair-1"
    assert found["rescan"].coarse[0].maps.grid.shape == (10, 10)
    version = PairStore(store).version
    replay_all([runs], options=options)
    assert PairStore(store).version == version


def test_without_a_store_halves_of_pairs_are_left_alone(tmp_path: Path) -> None:
    report = replay_all([written(tmp_path / "runs")], options=ReplayOptions(pictures=False))
    assert len(report.reports) == 1
    assert sum(report.left_alone.values()) == 2


def test_the_command_names_the_store(tmp_path: Path) -> None:
    runs, store = written(tmp_path / "runs"), tmp_path / "store"
    done = CliRunner().invoke(app, ["replay", str(runs), "--pairs", str(store)])
    assert done.exit_code == 0, done.output
    assert len(list(PairStore(store).pairs())) == 2
    assert f"2 pairs in {store}, " in done.output


def test_a_store_that_cannot_be_written_is_refused_first(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="a file, where a folder is needed"):
        replay_all(
            [written(tmp_path / "runs")],
            options=ReplayOptions(pictures=False, pairs=str(tmp_path / "file")),
        )
