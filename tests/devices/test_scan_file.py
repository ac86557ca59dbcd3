"""Which file a scan has left behind, and which of its rows are those that were asked for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.scan_record import ELEMENTS, LIVE_S, photons
from support.sim_support import grid_of, row_request
from xrf_sr_plans.devices.file_rows import rows_of_file
from xrf_sr_plans.devices.own_plan_flyer import OwnPlanFlyer
from xrf_sr_plans.devices.scan_file import ScanFile, Settling, text_of
from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files import MapsFile
from xrf_sr_plans.maps.files.model import LiveTime

GRID = grid_of(nx=6, ny=4)
ROWS = [row_request(GRID, row, 10.0, "m") for row in range(4)]
NAMES = {name: name for name in ELEMENTS}


def wrote(path: Path, text: str = "x") -> Path:
    path.write_text(text)
    return path.resolve()


def test_only_what_was_written_since_the_scan_began_counts(tmp_path):
    old = wrote(tmp_path / "old.mda")
    file = ScanFile(tmp_path, "*.mda")
    before = file.stamps()
    with pytest.raises(FileFormatError, match=r"no file '\*.mda' was written since"):
        file.written_since(before)
    wrote(tmp_path / "note.txt")
    with pytest.raises(FileFormatError, match="no file"):
        file.written_since(before)
    new = wrote(tmp_path / "new.mda")
    assert file.written_since(before)[0] == new
    os.utime(old, ns=(10**18, 4 * 10**18))
    assert file.written_since(before)[0] == old, "the newest one counts"


@pytest.mark.parametrize("name", ["b.mda", b"b.mda\0\0", np.frombuffer(b"b.mda\0", np.uint8)])
def test_a_signal_may_name_the_file(tmp_path, name):
    file = ScanFile(tmp_path, "*.mda", name=lambda: name)
    before = file.stamps()
    with pytest.raises(FileFormatError, match="no such file"):
        file.written_since(before)
    named = wrote(tmp_path / "b.mda")
    wrote(tmp_path / "c.mda")
    assert file.written_since(before)[0] == named
    with pytest.raises(FileFormatError, match="not written since the scan began"):
        file.written_since(file.stamps())


def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    wrote(tmp_path / "secret.mda")
    with pytest.raises(FileFormatError, match="only below configured folders"):
        ScanFile(scans, name=lambda: "../secret.mda").written_since({})
    with pytest.raises(FileFormatError, match="is empty"):
        ScanFile(scans, name=lambda: "").written_since({})
    with pytest.raises(ConfigError, match=r"not 3\.5"):
        text_of(3.5)


def test_how_long_a_file_is_unchanged_counts_from_its_last_change(tmp_path):
    now_s = [0.0]
    settling = Settling(lambda: now_s[0])
    path = tmp_path / "a"
    found = []
    for now_s[0], stamp in [(0.0, (1, 1)), (0.9, (1, 1)), (1.0, (2, 2)), (1.5, (2, 2))]:
        found.append(settling.unchanged_s(path, stamp))
    assert found == pytest.approx([0.0, 0.9, 0.0, 0.5])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"elements": []}, "names no element"),
        ({"elements": ["Fe", "Fe"]}, "'Fe' is named more than once"),
        ({"bad_columns": (0, -1)}, "bad_columns is"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"busy": 3}, "busy is 3"),
        ({"fast": "z"}, "fast is 'z'"),
        ({"file": "scans"}, "file is 'scans'"),
    ],
)
def test_a_flyer_that_can_t_work_is_refused_when_it_is_made(tmp_path, wrong, said):
    settings: dict[str, Any] = {"file": ScanFile(tmp_path), "elements": ["Fe"], **wrong}
    with pytest.raises(ConfigError, match=said):
        OwnPlanFlyer(lambda grid, dwell_ms: iter(()), name="xrf", **settings)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="doesn't exist"):
        ScanFile(tmp_path / "nowhere")


def scanned(x_um: np.ndarray, y_um: np.ndarray, **changes: Any) -> MapsFile:
    counts = photons(x_um[None, :], y_um[:, None]) * np.ones((1, y_um.size, x_um.size))
    file = MapsFile(
        counts,
        ELEMENTS,
        1.0,
        {"units": "counts", "path": "scan.mda"},
        LiveTime(np.array(LIVE_S), "live"),
        x_um,
        y_um,
    )
    return replace(file, **changes)


def read(file: MapsFile, **options: Any) -> Any:
    return rows_of_file(file, GRID, ROWS, **{"elements": NAMES, "dwell_ms": 10.0, **options})


def expected(row: int) -> np.ndarray:
    return photons(GRID.fast.centers_um, np.full(6, GRID.slow.centers_um[row]))


def test_rows_and_columns_are_found_by_their_positions_and_the_rest_is_left_out():
    # Two columns and a row more than the map, on every side.
    x_um, y_um = np.arange(-4.5, 5), np.arange(-2.5, 3)
    found = read(scanned(x_um, y_um))
    assert sorted(found.frames) == [0, 1, 2, 3]
    assert not found.missing
    for row, frames in found.frames.items():
        np.testing.assert_allclose(frames.counts, expected(row))
        np.testing.assert_allclose(frames.fast_um, GRID.fast.centers_um)
        np.testing.assert_allclose(frames.slow_um, GRID.slow.centers_um[row])
        np.testing.assert_allclose(frames.live_time_s, LIVE_S)
        assert np.isnan(frames.i0).all()


def test_rows_that_the_scan_never_reached_are_missing():
    found = read(scanned(GRID.fast.centers_um, GRID.slow.centers_um[:2]))
    assert sorted(found.frames) == [0, 1]
    assert found.missing == {2: "not in scan.mda", 3: "not in scan.mda"}


def test_the_file_s_y_may_run_along_the_rows():
    file = scanned(GRID.slow.centers_um, GRID.fast.centers_um)
    x_um, y_um = GRID.fast.centers_um, GRID.slow.centers_um
    found = read(replace(file, i0=np.ones((6, 4))), fast="y")
    for row, frames in found.frames.items():
        np.testing.assert_allclose(frames.counts, photons(np.full(6, y_um[row]), x_um))
        assert frames.i0.shape == (6,)


def test_rates_become_photons_by_the_live_time_of_the_file_else_by_the_dwell():
    rates = scanned(GRID.fast.centers_um, GRID.slow.centers_um)
    rates = replace(rates, meta={**rates.meta, "units": "counts/s"})
    np.testing.assert_allclose(read(rates).frames[0].counts, expected(0) * LIVE_S)
    without = replace(rates, live_time=None)
    np.testing.assert_allclose(read(without).frames[0].counts, expected(0) * 0.01)
    np.testing.assert_allclose(read(without).frames[0].live_time_s, 0.01)


def test_without_positions_order_places_what_has_the_numbers_that_were_asked_for():
    file = scanned(GRID.fast.centers_um, GRID.slow.centers_um)
    found = read(replace(file, x_um=None, y_um=None))
    np.testing.assert_allclose(found.frames[2].counts, expected(2))
    assert np.isnan(found.frames[2].fast_um).all()
    assert any("no positions" in note for note in found.notes)
    with pytest.raises(FileFormatError, match="6 columns without positions; 5 were asked"):
        rows_of_file(
            replace(file, x_um=None),
            grid_of(nx=5, ny=4),
            ROWS,
            elements=NAMES,
            dwell_ms=10.0,
        )


@pytest.mark.parametrize(
    ("x_um", "y_um", "said"),
    [
        (np.arange(6) * 2.0, np.arange(4.0), "columns are 2 um apart; 1 um were asked for"),
        (np.arange(6) * 1e-3, np.arange(4) * 1e-3, "rows are 0.001 um apart"),
        (np.arange(6.0), np.arange(4) + 50.0, r"none of them in -1.5..1.5 um as asked for"),
    ],
)
def test_another_scan_than_was_asked_for_is_refused(x_um, y_um, said):
    with pytest.raises(FileFormatError, match=said):
        read(scanned(x_um, y_um))


def test_a_channel_that_is_not_there_is_named():
    with pytest.raises(FileFormatError, match="no channel 'Fe_K'; there are Fe, Zn"):
        read(scanned(GRID.fast.centers_um, GRID.slow.centers_um), elements={"Fe": "Fe_K"})
