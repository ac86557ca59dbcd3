"""Files with maps, and runs of other people's plans, replayed beside our own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count, grid_scan
from ophyd.sim import SynAxis, SynSignal, det

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.readers import ReadOptions
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.from_file import documents_of_file
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.store.jsonl import JsonlWriter

QUICK = ReplayOptions(pictures=False)


def write_npz(path: Path, **changes: Any) -> np.ndarray:
    """Write a map that is no mirror image of itself, and return it [element, y, x]."""
    yy, xx = np.mgrid[0:10, 0:14]
    maps = np.stack([20 + 3 * xx + yy, 400 * np.exp(-((yy - 3) ** 2 + (xx - 9) ** 2) / 6)])
    maps = np.random.default_rng(1).poisson(maps).astype(float)
    facts = {"maps": maps, "elements": ["Fe", "Zn"], "pixel_size_um": 0.5, **changes}
    np.savez(path, **facts)
    return facts["maps"]


def assembled(path: Path) -> MapBuilder:
    builder = None
    for name, doc in documents_of_file(path):
        if name == "start":
            builder = MapBuilder(doc)
        elif name != "stop":
            getattr(builder, name)(doc)
    assert builder is not None
    return builder


def test_the_map_in_a_file_is_assembled_as_it_is(tmp_path: Path) -> None:
    maps = write_npz(tmp_path / "map.npz")
    builder = assembled(tmp_path / "map.npz")
    assert builder.complete
    np.testing.assert_array_equal(builder.maps().counts.values, maps)
    assert builder.grid.fast.step_um == builder.grid.slow.step_um == 0.5
    assert any("no dwell" in note for note in builder.notes)


def test_a_lost_row_of_a_file_is_a_hole(tmp_path: Path) -> None:
    maps = write_npz(tmp_path / "map.npz")
    maps[:, 4, :] = np.nan
    write_npz(tmp_path / "map.npz", maps=maps)
    builder = assembled(tmp_path / "map.npz")
    assert not builder.complete
    assert np.flatnonzero((builder.maps().coverage.values == 0).all(axis=1)).tolist() == [4]


def test_files_are_replayed_beside_runs(runs: Path, tmp_path: Path) -> None:
    write_npz(runs / "map.npz")
    (runs / "deeper").mkdir()
    write_npz(runs / "deeper" / "map.npz")
    (runs / "broken.npz").write_bytes(b"PK\x03\x04")
    (runs / "notes.txt").write_text("not for us")
    report = replay_all([runs], tmp_path / "out", QUICK)
    assert [Path(key).name for key in report.failures] == ["broken.npz"]
    assert len(report.digests) == 4, "the same values twice are one map"
    (own,) = set(report.digests) - {f"map-000{index}" for index in range(3)}
    assert (tmp_path / "out" / f"map-{own[:8]}.h5").is_file()


def test_a_file_that_does_not_say_where_its_pixels_lie_is_refused(tmp_path: Path) -> None:
    maps = write_npz(tmp_path / "map.npz")
    np.savez(tmp_path / "map.npz", maps=maps, elements=["Fe", "Zn"])
    with pytest.raises(FileFormatError, match="where its pixels lie"):
        list(documents_of_file(tmp_path / "map.npz"))


def test_runs_of_other_programs_are_replayed_or_left_alone(tmp_path: Path) -> None:
    slow, fast = SynAxis(name="samy", egu="um"), SynAxis(name="samx", egu="um")
    iron = SynSignal(name="Fe", func=lambda: 50 + 10 * fast.readback.get())
    engine = RunEngine({})
    engine.subscribe(JsonlWriter(tmp_path / "runs"))
    (scan,) = engine(grid_scan([iron], slow, 0, 7, 8, fast, 0, 9, 10, True), exposure_time=0.1)
    engine(count([det]))
    unknown = replay_all([tmp_path / "runs"], tmp_path / "out", QUICK)
    assert "the unit is missing" in next(iter(unknown.failures.values()))
    told = ReplayOptions(known=ReadOptions(axis_unit="um"), pictures=False)
    report = replay_all([tmp_path / "runs"], tmp_path / "out", told)
    assert not report.failures
    assert set(report.digests) == {scan}
    assert list(report.left_alone.values()) == [1]
    assert (tmp_path / "out" / f"{scan}.h5").is_file()


def test_a_reader_that_is_not_there_is_refused_by_name(runs: Path) -> None:
    with pytest.raises(ConfigError, match="reader is 'mapps'; it should be 'npz'"):
        replay_all([runs], options=ReplayOptions(reader="mapps"))
