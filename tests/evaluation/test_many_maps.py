"""Many maps evaluated: in folders and catalogs, stopped and gone on with, on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from typer.testing import CliRunner

from support.many_runs import write_runs
from xrf_sr_plans.cli import app
from xrf_sr_plans.cluster.connection import ClusterAddress
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.many_maps import EvaluationOptions, evaluate_all
from xrf_sr_plans.evaluation.overall import over_all
from xrf_sr_plans.evaluation.own_map import evaluate_file

OPTIONS = EvaluationOptions(counts=100.0, methods=("bilinear", "xrf-sr"))


def write_maps(folder: Path, number: int) -> Path:
    """Write maps of grains, one of which is damaged and one too small."""
    folder.mkdir()
    for index in range(number):
        field = np.random.default_rng(index).normal(size=(2, 40, 44))
        grains = ndimage.gaussian_filter((ndimage.gaussian_filter(field, (0, 4, 4)) > 0) * 1.0, 1)
        np.savez(
            folder / f"map-{index}.npz", maps=grains + 0.1, elements=["Fe", "Zn"], pixel_size_um=1.0
        )
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04")
    np.savez(folder / "small.npz", maps=np.ones((1, 8, 8)), elements=["Fe"], pixel_size_um=1.0)
    return folder


def without_times(tables: Any) -> Any:
    """Return tables without what they took, which no two have in common."""
    return [
        {**table, "summaries": [{**one, "seconds": None} for one in table["summaries"]]}
        for table in tables
    ]


def test_each_map_of_a_folder_is_evaluated_as_alone_and_no_bad_one_keeps_the_others(
    tmp_path: Path,
) -> None:
    folder, out = write_maps(tmp_path / "maps", 3), tmp_path / "out"
    made = evaluate_all([folder], out, OPTIONS)
    assert sorted(Path(key).name for key in made.failures) == ["damaged.npz", "small.npz"]
    assert "each side needs 24" in made.failures[str(folder / "small.npz")]
    path = folder / "map-1.npz"
    alone = evaluate_file(path, factor=2, counts=100.0, methods=("bilinear", "xrf-sr"))
    (found,) = (one for one in made.figures if one["path"] == str(path))
    assert alone.summary("xrf-sr").gain_db == next(
        one["gain_db"] for one in found["summaries"] if one["method"] == "xrf-sr"
    )

    told: list[str] = []
    again = evaluate_all([folder], out, OPTIONS, told=lambda report: told.append(report.key))
    assert sorted(Path(key).name for key in told) == ["damaged.npz", "small.npz"]
    assert over_all(again.figures) == over_all(made.figures)
    other = EvaluationOptions(counts=50.0, methods=("bilinear",))
    assert len(evaluate_all([folder / "map-0.npz"], out, other).figures) == 1


def test_maps_in_runs_count_and_results_do_not(tmp_path: Path) -> None:
    from xrf_sr_plans.callbacks.replay import replay
    from xrf_sr_plans.store.jsonl import JsonlWriter

    runs = write_runs(tmp_path / "runs", 2)
    write = JsonlWriter(runs)
    for name, doc in replay(runs / "map-0000.jsonl").documents:
        write(name, doc)
    made = evaluate_all([runs], options=OPTIONS)
    assert made.left_alone == 1
    assert len(made.failures) == 2, "8 x 10 pixels are too few to judge on"


def test_over_all_maps_each_counts_once() -> None:
    def table(path: str, **gains: float | None) -> dict[str, Any]:
        mean = {"coverage_90": None}
        return {
            "path": path,
            "summaries": [
                {"method": name, "gain_db": gain, "mean": mean} for name, gain in gains.items()
            ],
        }

    rows = over_all([table("a", NLM=1.0, ours=2.0), table("b", NLM=None, ours=-1.0)])
    nlm, ours = rows
    assert (nlm.maps, nlm.gain_db, nlm.best_on) == (1, 1.0, 0)
    assert (ours.gain_db, ours.least_db, ours.least_of, ours.best_on) == (0.5, -1.0, "b", 2)
    assert over_all([]) == []


def test_what_can_be_done_with_no_map_is_refused_before_any_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="counts is -1"):
        evaluate_all([tmp_path], options=EvaluationOptions(counts=-1))
    with pytest.raises(ConfigError, match="no such file or folder"):
        evaluate_all([tmp_path / "nowhere"])


@pytest.mark.timeout(300)
def test_a_cluster_gives_the_same_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    write_maps(tmp_path / "maps", 2)
    monkeypatch.chdir(tmp_path)
    here = evaluate_all(["maps"], options=OPTIONS)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
        dashboard_address=":0",
    ) as cluster:  # fmt: skip
        where = ClusterAddress(cluster.scheduler_address)
        there = evaluate_all(["maps"], "out", OPTIONS, dask=where)
    assert without_times(there.figures) == without_times(here.figures)
    assert over_all(there.figures) == over_all(here.figures)
    assert there.failures.keys() == here.failures.keys()


@pytest.mark.timeout(300)
def test_the_command_shows_each_table_and_what_is_true_over_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_maps(tmp_path / "maps", 2)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["evaluate", "maps", "--counts", "100", "--json", "f.json"])
    assert done.exit_code == 1
    assert done.output.count("mean of 2") == 2
    assert "over all maps" in done.output
    assert "2 failed" in done.output
    assert len(json.loads(Path("f.json").read_text())) == 2
