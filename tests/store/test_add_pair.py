"""Two files of one area become a pair whose pixels nest."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from bluesky import RunEngine

from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.store.pairs import PairStore
from xrf_sr_plans.store.pairs.add_pair import add_pair

STEP = 0.5
Y, X = np.mgrid[:96, :128]
FINE = np.stack([100 + 80 * np.sin(X / 7) * np.cos(Y / 5), 40 + 30 * np.cos((X + 2 * Y) / 9)])


def write_fine(path: Path, shift_um: float = 0.0) -> Path:
    np.savez(
        path,
        maps=FINE,
        elements=["Fe", "Zn"],
        units="counts",
        dwell_ms=10.0,
        x_um=200 + shift_um + STEP * np.arange(128),
        y_um=-30 + STEP * np.arange(96),
    )
    return path


def write_coarse(path: Path, factor: int = 2) -> Path:
    """A PyXRF file in mm, whose x falls, of all but two coarse columns and the first row."""
    step = factor * STEP
    maps = block_mean(FINE, factor)[:, 1:, 2:]
    x = 200 + (step - STEP) / 2 + step * np.arange(2, 128 // factor)
    y = -30 + (step - STEP) / 2 + step * np.arange(1, 96 // factor)
    with h5py.File(path, "w") as file:
        metadata = file.create_group("xrfmap/scan_metadata")
        metadata.attrs["param_fast_axis_units"] = "mm"
        metadata.attrs["param_dwell"] = 0.02
        file["xrfmap/detsum/xrf_fit"] = maps[::-1, :, ::-1]
        file["xrfmap/detsum/xrf_fit_name"] = np.array([b"Zn_K", b"Fe_K"])
        file["xrfmap/positions/pos"] = np.stack(np.meshgrid(x[::-1], y)) / 1e3
        file["xrfmap/positions/name"] = np.array([b"x_pos", b"y_pos"])
    return path


@pytest.mark.parametrize("factor", [2, 4])
def test_two_files_make_a_pair_whose_pixels_nest(tmp_path: Path, factor: int) -> None:
    coarse, fine = write_coarse(tmp_path / "c.h5", factor), write_fine(tmp_path / "f.npz")
    added = add_pair(coarse, fine, tmp_path / "pairs")
    (pair,) = PairStore(tmp_path / "pairs").pairs()
    assert pair.pair_uid == added.known.record.pair_uid
    (stored,) = pair.coarse
    assert stored.factor == factor
    assert stored.maps.elements == pair.fine.maps.elements == ["Zn", "Fe"]
    averaged = block_mean(pair.fine.maps.counts.values, factor)
    np.testing.assert_allclose(averaged, stored.maps.counts.values)
    grids = stored.maps.grid, pair.fine.maps.grid
    for axis in ("fast", "slow"):
        first, second = (getattr(grid, axis) for grid in grids)
        np.testing.assert_allclose(first.edges_um[[0, -1]], second.edges_um[[0, -1]])
    assert stored.maps.attrs["dwell_ms"] == pytest.approx(20)
    assert added.is_new
    assert abs(added.known.registration[0].dx_um) < 0.05
    # The same files are the same pair.
    assert not add_pair(coarse, fine, tmp_path / "pairs").is_new
    assert len(list(PairStore(tmp_path / "pairs").pairs())) == 1


def test_files_that_make_no_pair_are_refused(tmp_path: Path) -> None:
    fine = write_fine(tmp_path / "f.npz")
    with pytest.raises(ConfigError, match=r"which is 1 times finer; pairs have 2 or 4"):
        add_pair(fine, fine, tmp_path / "pairs")
    far = write_fine(tmp_path / "far.npz", shift_um=1e3)
    with pytest.raises(ConfigError, match="share 0 coarse pixels along x"):
        add_pair(write_coarse(tmp_path / "c.h5"), far, tmp_path / "pairs")
    np.savez(tmp_path / "bare.npz", maps=FINE, elements=["Fe", "Zn"])
    with pytest.raises(FileFormatError, match="doesn't say where its pixels lie"):
        add_pair(tmp_path / "bare.npz", fine, tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.slow
def test_two_runs_in_a_catalog_make_a_pair_of_the_sample_that_they_name(tmp_path: Path) -> None:
    pytest.importorskip("tiled.server.app")
    pytest.importorskip("bluesky_tiled_plugins")
    from xrf_sr_plans.store.tiled import embedded_catalog, safe_writer

    folder, run_engine = tmp_path / "catalog", RunEngine({"sample_name": "leaf 3"})
    with embedded_catalog(folder) as client:
        writer = safe_writer(client, tmp_path / "backup")
        run_engine.subscribe(writer)
        beamline = make_beamline(flux_ph_s=None)
        uids = run_engine(
            acquire_pair(beamline, width_um=12, height_um=10, fine_step_um=0.5, dwell_ms=50)
        )
        assert writer.close(30)
    add_pair(f"{folder}#{uids[0]}", f"{folder}#{uids[1]}", tmp_path / "pairs")
    (pair,) = PairStore(tmp_path / "pairs").pairs()
    assert (pair.sample, pair.source) == ("leaf 3", "file")
    assert pair.fine.maps.grid.shape == (20, 24)
    assert pair.fine.origin.run_uid == uids[1]
    with pytest.raises(FileFormatError, match="no such run"):
        add_pair(f"{folder}#{uids[0]}", f"{folder}#other", tmp_path / "pairs")


def test_rows_and_squares_make_a_pair(tmp_path: Path) -> None:
    y = -30 + STEP / 2 + 2 * STEP * np.arange(48)
    np.savez(
        tmp_path / "rows.npz",
        maps=FINE.reshape(2, 48, 2, 128).sum(axis=2),
        elements=["Fe", "Zn"],
        units="counts",
        dwell_ms=20.0,
        x_um=200 + STEP * np.arange(128),
        y_um=y,
    )
    add_pair(tmp_path / "rows.npz", write_fine(tmp_path / "f.npz"), tmp_path / "pairs")
    (pair,) = PairStore(tmp_path / "pairs").pairs()
    (stored,) = pair.coarse
    assert (stored.factor, stored.maps.attrs["sampling"]) == (2, "rows")
    assert stored.maps.grid.shape == (48, 128)
    assert stored.maps.attrs["step_um"] == 2 * STEP
