"""What a beamline relies on: no pair is lost, doubled, changed, or learnt from and held out."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs import MapOrigin, PairStore
from xrf_sr_plans.store.pairs.complete import complete
from xrf_sr_plans.store.pairs.map_file import content_of, map_in, write_map

NAN = float("nan")


def maps_of(seed: int, step_um: float = 1.0, **attrs: object) -> ElementalMaps:
    num = int(8 / step_um)
    grid = ScanGrid.from_start_stop(0, (num - 1) * step_um, num, 0, (num - 1) * step_um, num)
    counts = np.random.default_rng(seed).poisson(20, (2, num, num)).astype(float)
    return ElementalMaps.from_arrays(counts, grid, ["Fe", "Zn"], **attrs)


def put(
    store: PairStore, uid: str, seed: int | None = None, sample: str = "", problem: str = ""
) -> str:
    seed = sum(uid.encode()) if seed is None else seed
    origin = MapOrigin(run_uid=f"run-{uid}", beamline="2-ID-D", time=1.8e9)
    store.save_map(uid, 0, 2, maps_of(seed, 2.0), origin)
    store.save_map(uid, 1, 1, maps_of(seed + 10_000), origin)
    registration = {0: PairRegistration(2, 0.1, -0.2)}
    return store.finish(uid, registration, sample=sample, problem=problem)


def test_a_pair_comes_back_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    origin = MapOrigin("run-1", "2-ID-D", "leaf 3", 1.8e9, "p", "s", {"z": 1.5})
    coarse, fine = maps_of(1, 2.0, dwell_ms=10.0, probe_fwhm_um=0.3), maps_of(2)
    fine.dataset["counts"][:, 3] = np.nan
    store.save_map("a", 0, 2, coarse, origin)
    store.save_map("a", 1, 1, fine, origin)
    store.finish("a", {0: PairRegistration(2, NAN, 0.2, drift_x_um=(0.1, -0.1))}, source="rescan")
    (pair,) = PairStore(tmp_path).pairs()
    np.testing.assert_array_equal(pair.fine.maps.counts, fine.counts)
    assert pair.coarse[0].maps.attrs == coarse.attrs
    assert pair.coarse[0].maps.grid == coarse.grid
    assert pair.coarse[0].origin == origin
    assert (pair.sample, pair.source, pair.problem) == ("leaf 3", "rescan", "")
    assert pair.registration[0].drift_x_um == (0.1, -0.1)
    assert np.isnan(pair.registration[0].dx_um)
    assert pair.added == pytest.approx(time.time(), abs=60)
    assert pair.package


def test_the_same_maps_again_add_nothing_and_it_is_told_whose_they_are(tmp_path, caplog) -> None:
    caplog.set_level("INFO")
    store = PairStore(tmp_path)
    assert put(store, "a", seed=1) == "a"
    version, files = store.version, sorted((tmp_path / "maps").iterdir())
    assert put(store, "b", seed=1) == "a"
    assert "pair b has the maps of a, which is in the store" in caplog.text
    assert store.version == version
    assert [pair.pair_uid for pair in store.pairs()] == ["a"]
    assert sorted((tmp_path / "maps").iterdir()) == files
    assert store.waiting() == {}
    log = (tmp_path / "log.jsonl").read_bytes()
    put(store, "a", seed=1)
    put(store, "b", seed=1)
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_pair_that_is_in_the_store_is_not_registered_again(tmp_path, monkeypatch) -> None:
    store = PairStore(tmp_path)
    put(store, "a", seed=1)
    for position, factor in ((0, 2), (1, 1)):
        store.save_map("b", position, factor, store.maps("a")[position].maps)
    registered = []
    monkeypatch.setattr(
        "xrf_sr_plans.store.pairs.complete.register",
        lambda *maps: registered.append(maps) or PairRegistration(2, 0, 0),
    )
    assert complete(store, "a") == complete(store, "b") == "a"
    assert (registered, store.waiting()) == ([], {})
    assert complete(store, "a", again=True) == "a"
    assert len(registered) == 1


def test_the_order_of_elements_and_the_place_make_no_other_measurement() -> None:
    maps = maps_of(1)
    turned = maps.dataset.isel(element=[1, 0]).assign_attrs(source_uid="other")
    assert content_of(ElementalMaps(turned, maps.grid)) == content_of(maps)
    assert content_of(maps_of(2)) != content_of(maps)


def test_a_sample_is_learnt_from_or_held_out_for_good(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for number in range(30):
        put(store, f"p{number}", sample=f"sample {number % 15}", seed=number)
    splits = {pair.record.sample: pair.record.split for pair in store.known_pairs()}
    by_pair = [(pair.record.sample, pair.record.split) for pair in store.known_pairs()]
    assert all(splits[sample] == split for sample, split in by_pair)
    assert splits["sample 0"] == "learn"
    assert 1 <= list(splits.values()).count("held out") <= 10
    assert {pair.split for pair in store.pairs("held out")} == {"held out"}
    assert len(list(store.pairs("learn"))) + len(list(store.pairs("held out"))) == 30


@pytest.mark.parametrize("attempt", range(5))
def test_the_third_usable_sample_at_the_latest_is_held_out(tmp_path: Path, attempt: int) -> None:
    store = PairStore(tmp_path)
    put(store, "bad", sample="blank", problem="no match")
    for number in range(3):
        put(store, f"p{number}", sample=f"sample {number}", seed=number)
    found = [pair.split for pair in store.pairs(usable=True)]
    assert found[0] == "learn"
    assert "held out" in found


def test_what_has_no_sample_is_one_sample_a_day_and_beamline(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    put(store, "a")
    put(store, "b")
    assert {pair.sample for pair in store.pairs()} == {"unnamed, 2-ID-D, 2027-01-15"}


def test_a_renamed_sample_keeps_its_split_and_new_pairs_follow(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    put(store, "a", sample="leaf")
    assert store.rename_sample("leaf", "leaf of oak") == "learn"
    put(store, "b", sample="leaf")
    assert {pair.sample for pair in PairStore(tmp_path).pairs()} == {"leaf of oak"}
    with pytest.raises(ConfigError, match="no sample 'leaf'"):
        store.rename_sample("leaf", "x")


def test_samples_that_become_one_are_learnt_from_if_either_was(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    for number in range(3):
        put(store, f"p{number}", sample=f"sample {number}", seed=number)
    held_out = next(pair.sample for pair in store.pairs("held out"))
    assert store.rename_sample("sample 0", held_out) == "learn"
    assert {p.split for p in store.pairs() if p.sample == held_out} == {"learn"}


def test_only_pairs_without_a_problem_are_usable(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    put(store, "good")
    put(store, "flawed", problem="too few counts")
    for uid, problems in (("half", ("no match", "")), ("none", ("no match", "no match"))):
        store.save_map(uid, 0, 2, maps_of(1, 2.0))
        store.save_map(uid, 1, 1, maps_of(len(uid) + problems.count("")))
        store.save_map(uid, 2, 2, maps_of(3, 2.0))
        found = {
            place: PairRegistration(2, 0, 0, problem=problem)
            for place, problem in zip((0, 2), problems, strict=True)
        }
        store.finish(uid, found)
    assert [pair.pair_uid for pair in store.pairs(usable=True)] == ["good", "half"]
    assert len(list(store.pairs())) == 4


def test_a_removed_pair_stays_away_until_it_is_restored(tmp_path: Path, caplog) -> None:
    caplog.set_level("INFO")
    store = PairStore(tmp_path)
    empty = store.version
    put(store, "a", seed=1)
    with_a = store.version
    store.remove("a", "wrong sample")
    assert (list(store.pairs()), store.version, store.waiting()) == ([], empty, {})
    assert len(list((tmp_path / "maps").iterdir())) == 2
    # The runs are replayed, or come under another name.
    put(store, "a", seed=1)
    put(store, "b", seed=1)
    assert (list(store.pairs()), store.removed()) == ([], ["a"])
    assert "pair b has the maps of a, which was removed" in caplog.text
    assert store.waiting() == {}
    store.finish("a", {0: PairRegistration(2, 0.1, -0.2)}, restore=True)
    assert (store.version, store.removed()) == (with_a, [])
    with pytest.raises(ConfigError, match="no pair 'b'"):
        store.remove("b")


def test_a_store_is_read_as_it_was_at_a_version(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    put(store, "a")
    version = store.version
    put(store, "b")
    store.remove("a")
    earlier = store.at(version)
    assert [pair.pair_uid for pair in earlier.pairs()] == ["a"]
    assert earlier.version == version != store.version
    with pytest.raises(ConfigError, match="can't be changed"):
        earlier.remove("a")
    with pytest.raises(ConfigError, match="never had the version 'x'"):
        store.at("x")


def test_the_version_does_not_depend_on_the_order_of_pairs(tmp_path: Path) -> None:
    versions = []
    for number, order in enumerate((("a", "b"), ("b", "a"))):
        store = PairStore(tmp_path / str(number))
        for uid in order:
            put(store, uid, sample="leaf")
        versions.append(store.version)
    assert versions[0] == versions[1]


def test_an_open_store_sees_what_another_process_adds(tmp_path: Path) -> None:
    reader, writer = PairStore(tmp_path), PairStore(tmp_path)
    for number in range(3):
        put(writer, f"p{number}")
        assert len(reader.known_pairs()) == number + 1


def test_a_line_torn_at_the_end_is_ignored_told_and_taken_away(tmp_path, caplog) -> None:
    put(PairStore(tmp_path), "a")
    log = tmp_path / "log.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + whole.splitlines()[-1][:40])
    assert len(list(PairStore(tmp_path).pairs())) == 1
    assert "was not completed" in caplog.text
    put(PairStore(tmp_path), "b")
    assert "torn off at its end" in caplog.text
    assert len(list(PairStore(tmp_path).pairs())) == 2
    assert log.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in log.read_bytes().splitlines())


def test_a_damaged_line_is_named_and_the_rest_can_be_read_without_it(tmp_path: Path) -> None:
    store = PairStore(tmp_path)
    put(store, "a")
    put(store, "b")
    log = tmp_path / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:-1], lines[-1].replace(b"0.1", b"0.7")]))
    with pytest.raises(FileFormatError, match=r"log\.jsonl: the line of bytes \d+ to \d+"):
        list(PairStore(tmp_path).pairs())
    log.write_bytes(b"".join(lines[:-1]))
    assert [pair.pair_uid for pair in PairStore(tmp_path).pairs()] == ["a"]


def test_a_full_disk_leaves_no_part_of_a_record(tmp_path: Path, monkeypatch) -> None:
    store = PairStore(tmp_path)
    put(store, "a")
    before = (tmp_path / "log.jsonl").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("xrf_sr_plans.store.pairs.pair_log.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        put(store, "b")
    monkeypatch.undo()
    assert (tmp_path / "log.jsonl").read_bytes() == before
    assert [pair.pair_uid for pair in PairStore(tmp_path).pairs()] == ["a"]
    assert put(store, "b") == "b"


def test_xarray_opens_the_maps(tmp_path: Path) -> None:
    xarray, _ = pytest.importorskip("xarray"), pytest.importorskip("h5netcdf")
    maps = maps_of(1, dwell_ms=10.0)
    name = write_map(tmp_path, maps)
    with xarray.open_dataset(tmp_path / "maps" / name, engine="h5netcdf") as opened:
        np.testing.assert_array_equal(opened["counts"], maps.counts)
        assert opened["counts"].dims == ("element", "y", "x")
        assert list(opened["element"].values) == ["Fe", "Zn"]


def test_a_map_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    name = write_map(tmp_path, maps_of(1))
    path = tmp_path / "maps" / name
    with pytest.raises(FileFormatError, match="damaged"):
        map_in(path, "0" * 64)


def write_on(folder: Path, name: str, seed: int, told: Connection) -> None:
    store = PairStore(folder)
    for number in range(1000):
        told.send(put(store, f"{name}-{number}", number + seed, f"s{number % 7}"))


def writer(folder: Path, name: str, seed: int) -> tuple[Any, Connection]:
    context = multiprocessing.get_context("fork")
    told, end = context.Pipe(duplex=False)
    process = context.Process(target=write_on, args=(folder, name, seed, end))
    process.start()
    end.close()
    return process, told


def all_of(told: Connection) -> list[str]:
    received = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            received.append(told.recv())
    return received


def test_writers_that_are_killed_at_any_point_leave_the_store_whole(tmp_path: Path) -> None:
    """Two processes write at once; one of them is killed again and again."""
    chance = random.Random(1)
    # What is imported here need not be by each process.
    told = [put(PairStore(tmp_path), "before", seed=900_000)]
    other, others = writer(tmp_path, "other", 500_000)
    try:
        assert others.poll(60)
        for number in range(15):
            process, pipe = writer(tmp_path, f"w{number}", 1000 * number)
            time.sleep(chance.uniform(0.0, 0.15))
            process.kill()
            told += all_of(pipe)
            process.join()
            # Whoever reads meanwhile sees whole pairs.
            assert all(len(known.coarse) == 1 for known in PairStore(tmp_path).known_pairs())
    finally:
        other.kill()
        told += all_of(others)
        other.join()
    pairs = {pair.pair_uid: pair for pair in PairStore(tmp_path).pairs()}
    # What was told to be in is in.
    assert set(told) <= set(pairs)
    assert len(told) > 10
    by_sample = {(pair.sample, pair.split) for pair in pairs.values()}
    assert len(by_sample) == len({sample for sample, _ in by_sample})
    # And it goes on.
    put(PairStore(tmp_path), "after", seed=10**6)
    assert len(PairStore(tmp_path).known_pairs()) == len(pairs) + 1
