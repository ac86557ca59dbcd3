"""`xrf-sr pairs`: what is in a store, why, and how it gets in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.cli import app, program
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.review.pair_picture import difference, draw_pair
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.pairs import PairStore, StoredMap

COARSE = small_grid(10, 12)
EXPECTED = 50 + truth(COARSE.refined(2))
COUNTS = np.random.default_rng(0).poisson(EXPECTED).astype(float)
COARSE_COUNTS = np.random.default_rng(1).poisson(block_mean(EXPECTED, 2)).astype(float)


def ran(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["pairs", *map(str, arguments)], env={"COLUMNS": "240"})
    assert done.exit_code == 0, done.output
    return done.output


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: Any, *arguments: object) -> str:
    monkeypatch.setattr("sys.argv", ["xrf-sr", "pairs", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 2
    return capsys.readouterr().err


def written(folder: Path, **more: Any) -> tuple[Path, Path]:
    """Two files of documents, of the same area."""
    writer = JsonlWriter(folder)
    for grid, values, uid in (
        (COARSE, COARSE_COUNTS, "coarse"),
        (COARSE.refined(2), COUNTS, "fine"),
    ):
        for name, doc in map_run(grid, values, uid):
            writer(name, {**doc, **more} if name == "start" else doc)
    return folder / "coarse.jsonl", folder / "fine.jsonl"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    ran("add", *written(tmp_path), "--out", tmp_path / "store", "--sample", "leaf 3")
    return tmp_path / "store"


def test_a_pair_of_runs_knows_its_sample_and_is_added_once(tmp_path: Path) -> None:
    files = written(tmp_path, sample={"name": "leaf 7"})
    out, told = tmp_path / "store", tmp_path / "told.json"
    first = ran("add", *files, "--out", out, "--json", told)
    facts = json.loads(told.read_text())
    assert f"pair {facts['pair_uid']} of leaf 7 (learn)" in first
    assert "usable" in first
    assert (facts["is_new"], facts["usable"], facts["source"]) == (True, True, "file")
    assert [stored["origin"]["run_uid"] for stored in facts["maps"]] == ["coarse", "fine"]
    again = ran("add", *files, "--out", out, "--sample", "other", "--json", told)
    assert f"the store has these maps already: pair {facts['pair_uid']} of leaf 7" in again
    assert not json.loads(told.read_text())["is_new"]
    assert len(list(PairStore(out).pairs())) == 1


def test_without_a_sample_it_is_said_what_counts_as_one(tmp_path: Path) -> None:
    said = ran("add", *written(tmp_path), "--out", tmp_path / "store")
    assert "all that was measured that day counts as one; give --sample" in said


def test_list_and_stats_say_what_a_store_has(store: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    listed = ran("list", store, "--json", told)
    facts = json.loads(told.read_text())
    assert facts["version"] == PairStore(store).version
    (pair,) = facts["pairs"]
    for words in (pair["pair_uid"][:8], "leaf 3", "learn", "file", "10 x 12", "Fe Zn Ca"):
        assert words in listed
    ran("stats", store, "--json", told)
    stats = json.loads(told.read_text())
    assert stats["total"]["pairs"] == stats["total"]["usable"] == 1
    assert stats["total"]["area_um2"] == pytest.approx(20 * 24)
    assert stats["total"]["fine_photons"] == pytest.approx(COUNTS.sum())
    assert stats["element"]["Zn"]["fine_photons"] == pytest.approx(COUNTS[1].sum())
    assert list(stats["factor"]) == ["2"]
    assert list(stats["sample"]) == ["leaf 3"]


def test_show_tells_all_of_a_pair_and_draws_it(store: Path, tmp_path: Path) -> None:
    uid = PairStore(store).known_pairs()[0].record.pair_uid
    picture = tmp_path / "pair.png"
    shown = ran("show", store, uid[:4], "--picture", picture)
    for words in (uid, "leaf 3", "coarse 2x", "20 x 24 pixels", "displaced by", "dwell 9.9"):
        assert words in shown
    assert picture.stat().st_size > 20_000


def test_export_writes_files_that_other_programs_read(store: Path, tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    ran("export", store, "all", "--out", tmp_path / "out", "--json", told)
    coarse, fine, facts = (Path(file) for file in json.loads(told.read_text())["files"])
    with h5py.File(fine) as file:
        assert file.attrs["default"]
    assert coarse.name.endswith("-0-coarse2x.h5")
    assert json.loads(facts.read_text())["sample"] == "leaf 3"
    out = ran("export", store, "all", "--out", tmp_path / "maps", "--format", "maps")
    assert ".maps.h5" in out


def test_a_pair_is_removed_and_an_earlier_version_has_it_still(store: Path) -> None:
    before = PairStore(store)
    version, uid = before.version, before.known_pairs()[0].record.pair_uid
    assert "is left out" in ran("remove", store, uid[:6], "--why", "wrong sample")
    assert "0 pairs" in ran("list", store)
    assert uid[:8] in ran("list", store, "--at", version)
    assert f"pair {uid}: usable" in ran("register", store, uid[:6])
    assert "1 pairs" in ran("list", store)


def test_a_sample_is_renamed(store: Path) -> None:
    assert "leaf 3 is leaf of oak" in ran("rename", store, "leaf 3", "leaf of oak")
    assert "leaf of oak" in ran("list", store)


def test_pairs_are_registered_again_and_what_waits_is_taken_as_it_is(store: Path) -> None:
    pairs = PairStore(store)
    (known,) = pairs.known_pairs()
    uid = known.record.pair_uid
    pairs.finish(uid, {}, sample="leaf 3", source="file", problem="an old verdict")
    assert f"pair {uid}: usable" in ran("register", store, "all")
    assert pairs.pair(uid).registration[0].factor == 2
    for stored in pairs.maps(uid)[::-1]:
        maps = stored.maps
        maps.dataset["counts"] += 1
        pairs.save_map("cut-off", 2 * stored.position, stored.factor, maps, stored.origin)
    assert "pair cut-off waits for more maps than 2" in ran("list", store)
    assert "pair cut-off: usable" in ran("register", store, "cut")
    assert len(list(pairs.pairs())) == 2


def test_what_is_not_there_is_refused_in_one_line(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    assert "no pair store" in refused(capsys, monkeypatch, "list", tmp_path)
    assert "no pair begins so" in refused(capsys, monkeypatch, "show", store, "zzz")
    assert "never had the version" in refused(capsys, monkeypatch, "stats", store, "--at", "0123")
    assert "no sample 'x'" in refused(capsys, monkeypatch, "rename", store, "x", "y")
    assert "format is 'tex'" in refused(
        capsys, monkeypatch, "export", store, "all", "--out", tmp_path / "o", "--format", "tex"
    )


def test_pairs_of_an_earlier_version_are_refused_until_they_are_converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    folder = tmp_path / "old"
    for position, (grid, counts) in enumerate(
        ((COARSE, COARSE_COUNTS), (COARSE.refined(2), COUNTS))
    ):
        maps = ElementalMaps.from_arrays(counts, grid, ["Fe", "Zn", "Ca"], dwell_ms=10.0)
        home = folder / "pair-1"
        home.mkdir(parents=True, exist_ok=True)
        names = ("counts", "i0", "live_time_s", "coverage")
        arrays = {name: maps.dataset[name].values for name in names}
        np.savez_compressed(home / f"map-{position}.npz", allow_pickle=False, **arrays)
        facts = {
            "position": position,
            "factor": 2 - position,
            "elements": maps.elements,
            "grid": grid.to_dict(),
            "attrs": maps.attrs,
        }
        (home / f"map-{position}.json").write_text(json.dumps(facts))
    (home / "pair.json").write_text("{}")
    assert f"pairs convert {folder}" in refused(capsys, monkeypatch, "list", folder)
    assert "1 pairs are in the store" in ran("convert", folder, "--sample", "leaf")
    (pair,) = PairStore(folder).pairs(usable=True)
    assert (pair.pair_uid, pair.sample) == ("pair-1", "leaf")
    np.testing.assert_array_equal(pair.fine.maps.counts, COUNTS)
    assert "no pairs of an earlier version" in refused(capsys, monkeypatch, "convert", folder)
    assert not [path for path in folder.iterdir() if path.name.startswith(".converted")]


def test_the_difference_of_two_measurements_of_the_same_is_noise() -> None:
    fine = np.full((1, 80, 80), 40.0)
    rng = np.random.default_rng(3)
    grid = small_grid(40, 40)
    maps = [
        ElementalMaps.from_arrays(rng.poisson(values).astype(float), pixels, ["Fe"])
        for values, pixels in ((3 * block_mean(fine, 2), grid), (fine, grid.refined(2)))
    ]
    maps[1].dataset["counts"][:, 3] = np.nan
    found = difference(
        StoredMap(0, 2, maps[0]), StoredMap(1, 1, maps[1]), PairRegistration(2, 0, 0)
    )
    assert found.scale[0] == pytest.approx(3, rel=0.01)
    assert np.nanstd(found.sigmas) == pytest.approx(1, abs=0.1)


def test_a_pair_that_cannot_be_learnt_from_is_drawn_with_the_reason(tmp_path: Path) -> None:
    store, nan = PairStore(tmp_path / "store"), float("nan")
    for position, grid in enumerate((COARSE, COARSE.refined(2))):
        counts = np.zeros((2, *grid.shape))
        store.save_map("a", position, 2 - position, ElementalMaps.from_arrays(counts, grid, "XY"))
    store.finish("a", {0: PairRegistration(2, nan, nan, problem="no match")}, problem="few counts")
    assert draw_pair(store.pair("a"), tmp_path / "a.png").stat().st_size > 10_000
