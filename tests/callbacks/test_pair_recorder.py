"""Coarse and fine maps of one area end up registered in the pair store, once."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from support.row_documents import map_run, small_grid
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import ConfigError, FileFormatError, GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.store.pairs import PairStore

COARSE = small_grid(24, 30)
FACTOR = 4
ELEMENTS = ["Fe", "Zn", "Ca"]


def blobs(shift_fine_px=(0, 0), seed=0):
    rng = np.random.default_rng(7)
    fine = COARSE.refined(FACTOR)
    noise = rng.standard_normal((3, *(size + 40 for size in fine.shape)))
    smooth = ndimage.gaussian_filter(noise, (0, 6, 6))
    smooth = 60 * (1 + smooth / smooth.std()).clip(0)
    dy, dx = (20 - shift for shift in shift_fine_px)
    height, width = fine.shape
    truth = smooth[:, dy : dy + height, dx : dx + width]
    return np.random.default_rng(seed).poisson(truth).astype(float)


def as_maps(counts, grid):
    return ElementalMaps.from_arrays(counts, grid, ELEMENTS)


@pytest.mark.parametrize("shift", [(0, 0), (3, -5), (-8, 2)])
def test_a_displacement_between_two_noisy_maps_is_found(shift):
    fine = as_maps(blobs(), COARSE.refined(FACTOR))
    coarse = as_maps(block_mean(blobs(shift, seed=1), FACTOR), COARSE)
    found = register(coarse, fine)
    expected = np.array(shift) / FACTOR * COARSE.fast.step_um
    assert found.factor == FACTOR
    np.testing.assert_allclose([found.dy_um, found.dx_um], expected, atol=0.1 * 2)


def test_maps_too_small_to_register_say_so():
    grid = small_grid(1, 6)
    counts = np.ones((3, 1, 6))
    fine = as_maps(np.ones((3, 2, 12)), grid.refined(2))
    assert np.isnan(register(as_maps(counts, grid), fine).dx_um)


def test_grids_that_do_not_nest_are_refused():
    with pytest.raises(GridError, match="nest"):
        register(as_maps(blobs(), COARSE.refined(FACTOR)), as_maps(np.ones((3, 24, 30)), COARSE))


def pair_runs(pair_uid="pair-1"):
    counts = blobs()
    maps = [
        ("coarse", COARSE, block_mean(counts, FACTOR), FACTOR, "pair_coarse"),
        ("fine", COARSE.refined(FACTOR), counts, 1, "pair_fine"),
    ]
    for position, (uid, grid, values, factor, purpose) in enumerate(maps):
        derived = {
            "pair_uid": pair_uid,
            "pair_position": position,
            "pair_maps": 2,
            "pair_factor": factor,
        }
        yield list(
            map_run(
                grid,
                values,
                uid,
                purpose=purpose,
                derived_input=derived,
                analysis=AnalysisRequest(enhance=False),
            )
        )


def recorded(folder, runs):
    summaries = []
    chain = AnalysisChain(AnalysisSettings(pair_dir=str(folder)), finished=summaries.append)
    for run in runs:
        for name, doc in run:
            chain(name, doc)
    return summaries


def test_a_pair_is_recorded_registered_and_read_back(tmp_path):
    recorded(tmp_path, pair_runs())
    (pair,) = PairStore(tmp_path).pairs()
    assert pair.pair_uid == "pair-1"
    np.testing.assert_array_equal(pair.fine.maps.counts, blobs())
    assert pair.coarse[0].factor == FACTOR
    assert pair.coarse[0].maps.grid == COARSE
    assert abs(pair.registration[0].dx_um) < 0.2
    assert pair.fine.maps.attrs["source_uid"] == "fine"


def test_a_replay_of_a_run_that_was_cut_off_replaces_no_whole_map(tmp_path, caplog):
    recorded(tmp_path, pair_runs())
    coarse, fine = pair_runs()
    recorded(tmp_path, [coarse, [*fine[:9], fine[-1]]])
    (pair,) = PairStore(tmp_path).pairs()
    np.testing.assert_array_equal(pair.fine.maps.counts, blobs())
    assert "map-1 stays: it has more pixels" in caplog.text


def test_half_a_pair_waits_and_a_restart_in_between_loses_nothing(tmp_path):
    coarse, fine = pair_runs()
    recorded(tmp_path, [coarse])
    assert list(PairStore(tmp_path).pairs()) == []
    recorded(tmp_path, [fine])
    assert len(list(PairStore(tmp_path).pairs())) == 1


def test_recording_again_changes_nothing(tmp_path):
    def contents():
        return {path.name: path.stat().st_size for path in tmp_path.rglob("*")}

    recorded(tmp_path, pair_runs())
    before = contents()
    recorded(tmp_path, pair_runs())
    assert contents() == before
    assert not [name for name in before if name.endswith(".part")]


def test_other_maps_are_left_alone(tmp_path):
    grid = small_grid(4, 5)
    recorded(tmp_path, [map_run(grid, np.ones((3, 4, 5)), analysis=AnalysisRequest(enhance=False))])
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_costs_no_result(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    assert [summary.status for summary in recorded(file, pair_runs())] == ["done", "done"]


def test_a_uid_that_is_a_path_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="allowed"):
        PairStore(tmp_path).save_map("../outside", 0, 2, as_maps(np.ones((3, 24, 30)), COARSE))


def test_a_damaged_file_is_named(tmp_path):
    recorded(tmp_path, pair_runs())
    path = next((tmp_path / "maps").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(FileFormatError, match=path.name):
        list(PairStore(tmp_path).pairs())
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"pair-1", b"pair-2", 1))
    with pytest.raises(FileFormatError, match=r"log\.jsonl: the line of bytes"):
        list(PairStore(tmp_path).pairs())
