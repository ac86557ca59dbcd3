"""The map of a run comes out of its documents as out of a file, at its place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.foreign_runs import ELEMENTS, FIELD, hxn_run
from xrf_sr_plans.errors import AssemblyError, ConfigError
from xrf_sr_plans.maps.readers import READERS, placed_counts
from xrf_sr_plans.store.map_source import read_any_map


def written(path: Path, docs: list) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in docs))
    return path


def test_a_run_of_another_program_is_read_like_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", hxn_run())
    for reader in (None, "hxn"):
        found = read_any_map(path, reader=reader)
        order = [found.elements.index(name) for name in ELEMENTS]
        np.testing.assert_allclose(found.maps[order], FIELD.counts)
        assert set(found.meta["units"].values()) == {"counts"}
        counts = placed_counts(found)
        np.testing.assert_allclose(counts["x"], FIELD.x, atol=0.01 * FIELD.dx_um)
        np.testing.assert_allclose(counts["y"], FIELD.y, atol=0.01 * FIELD.dy_um)


def test_a_reader_is_asked_for_by_its_name(tmp_path: Path) -> None:
    names = [reader.name for reader in READERS]
    assert len(set(names)) == len(names)
    path = written(tmp_path / "scan.jsonl", hxn_run())
    with pytest.raises(ConfigError, match="reader is 'hxm'; there are npz, hdf5, maps"):
        read_any_map(path, reader="hxm")
    with pytest.raises(AssemblyError, match=r"."):
        read_any_map(path, reader="srx")


def test_a_file_without_a_map_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", hxn_run()[:1])
    with pytest.raises(AssemblyError):
        read_any_map(path)
