"""The map of a run comes out of its documents as out of a file, at its place."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from support.foreign_runs import ELEMENTS, FIELD, hxn_run, tes_run
from xrf_sr_plans.errors import AssemblyError, ConfigError
from xrf_sr_plans.maps.readers import READERS, ReadOptions, placed_counts, read_map
from xrf_sr_plans.replays.source_flags import known


def written(path: Path, docs: list) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in docs))
    return path


def test_a_run_of_another_program_is_read_like_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", hxn_run())
    for reader in (None, "hxn"):
        found = read_map(path, reader=reader)
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
        read_map(path, reader="hxm")
    with pytest.raises(AssemblyError, match=r"."):
        read_map(path, reader="srx")


def test_a_file_without_a_map_says_so(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", hxn_run()[:1])
    with pytest.raises(AssemblyError):
        read_map(path)


# Bins of 0.25 keV from 0.6 keV on: those around the lines of Ca, Fe and Zn are the pattern's.
SPECTRA = ReadOptions(elements=("Fe",), energy_kev=(-1.10, 0.25))


def test_elements_are_cut_out_of_the_spectra_of_a_run(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", tes_run())
    found = read_map(path, options=SPECTRA)
    assert found.elements == ("Fe",)
    np.testing.assert_allclose(found.maps[0], FIELD.counts[1])
    with pytest.raises(AssemblyError, match="'fluor': the energies of its bins are not in the"):
        read_map(path, options=ReadOptions(elements=("Fe",)))
    with pytest.raises(AssemblyError, match="no data key is named after an element"):
        read_map(path)


def test_of_the_elements_that_a_run_has_the_wanted_ones_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "scan.jsonl", hxn_run())
    found = read_map(path, options=ReadOptions(elements=("Zn",)))
    assert found.elements == ("Zn",)
    np.testing.assert_allclose(found.maps[0], FIELD.counts[2])
    with pytest.raises(AssemblyError, match="named after all of Zn, Mo, and none has spectra"):
        read_map(path, options=ReadOptions(elements=("Zn", "Mo")))


def test_data_keys_are_told_for_a_run_and_refused_for_a_file(tmp_path: Path) -> None:
    told = known(
        channel=["Fe=fluor[30:31]", "Zn=fluor[51:52]"],
        key=["i0=I0", "stream=primary", "fast=x_centers"],
        axis_unit="mm",
    )
    found = read_map(written(tmp_path / "scan.jsonl", tes_run()), options=told)
    assert found.elements == ("Fe", "Zn")
    np.testing.assert_allclose(found.maps, FIELD.counts[1:])
    np.testing.assert_allclose(found.x_um, FIELD.x, atol=0.01 * FIELD.dx_um)
    assert found.i0 is not None
    np.savez(tmp_path / "map.npz", maps=FIELD.counts, elements=list(ELEMENTS), pixel_size_um=1.0)
    with pytest.raises(ConfigError, match="no data keys; channels, keys can't be given"):
        read_map(tmp_path / "map.npz", options=told)
    with pytest.raises(ConfigError, match=r"holds documents, .* step_um can't be given"):
        read_map(tmp_path / "scan.jsonl", options=ReadOptions(step_um=1.0))


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"channel": ["fluor"]}, "--channel is 'fluor'; it should be like Fe=xs_fe"),
        ({"channel": ["Fe=a", "Fe=b"]}, "--channel is given more than once for Fe"),
        ({"key": ["monitor=i0"]}, "key 'monitor': it should be one of i0, live_time"),
        ({"root_map": ["/data="]}, "--root-map is '/data='"),
        ({"energy_kev": "0"}, "--energy-kev is '0'; two numbers are needed"),
    ],
)
def test_flags_that_can_not_be_are_refused_by_name(flags: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        known(**flags)
