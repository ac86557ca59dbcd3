"""MDA files of 2-ID: what the sscan record wrote, and spectra beside it."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import read_maps
from xrf_sr_plans.maps.files.mda import read_mda

NY, NX = 5, 7
X = 2.0 + 0.05 * np.arange(NX)
Y = -1.0 + 0.1 * np.arange(NY)
FE = np.arange(NY * NX, dtype=float).reshape(NY, NX)


def text(value: str) -> bytes:
    if not value:
        return struct.pack(">i", 0)
    raw = value.encode()
    return struct.pack(">ii", len(raw), len(raw)) + raw + b"\0" * (-len(raw) % 4)


def whole(*values: int) -> bytes:
    return struct.pack(f">{len(values)}i", *values)


def channel(number, *texts):
    return whole(number) + b"".join(map(text, texts))


def scan(rank, positions, detectors, done=None, offsets=()):
    """One scan record: positions (name, description, unit, values), detectors (name, values)."""
    num = len(positions[-1])
    content = whole(rank, num, num if done is None else done, *offsets)
    content += text("2xfm:scan") + text("today") + whole(1, len(detectors), 0)
    name, description, unit, values = positions
    content += channel(0, name, description, "LINEAR", unit, "", "", "")
    for number, (name, _) in enumerate(detectors):
        content += channel(number, name, "", "")
    content += np.asarray(values, ">f8").tobytes()
    return content + b"".join(np.asarray(v, ">f4").tobytes() for _, v in detectors)


def write_mda(path, *, rois=True, y=Y, x_unit="mm", missing=(), extra=()):
    """A map with two detector elements, each with a region that is called Fe Ka."""
    head = struct.pack(">f", 1.4) + whole(11, 2, NY, NX, 1, 0)
    outer = ("2xfm:m13.VAL", "Sample Y", "mm", y)
    size = len(head) + len(scan(2, outer, [], offsets=[0] * NY))
    offsets, rows = [], b""
    for row in range(NY):
        measured = FE[row]
        detectors = [("2xfm:mcs:mca1.VAL", measured)]
        if rois:
            detectors += [
                ("dxp:mca1.R3", measured * 0.25),
                ("dxp:mca2.R5", measured * 0.75),
                ("dxp:mca1.R4", measured * 0),
            ]
        inner = scan(1, ("2xfm:m12.VAL", "Sample X", x_unit, X), detectors)
        if row in missing:
            offsets.append(0)
            continue
        offsets.append(size + len(rows))
        rows += inner
    body = scan(2, outer, [], offsets=offsets) + rows
    labels = [("dxp:mca1.R3NM", "Fe Ka"), ("dxp:mca2.R5NM", "Fe"), ("dxp:mca1.R4NM", "")]
    content = whole(len(labels) + len(extra))
    for name, value in labels:
        content += text(name) + text("") + whole(0) + text(value)
    for name, value in extra:
        content += text(name) + text("") + whole(34, 1) + text("") + struct.pack(">d", value)
    head = head[:-4] + whole(len(head) + len(body))
    path.write_bytes(head + body + content)
    return path


def test_regions_of_all_detector_elements_are_added_up_and_lie_where_the_motors_were(tmp_path):
    found = read_maps(write_mda(tmp_path / "2xfm_0001.mda"))
    assert found.elements == ("Fe Ka",)
    assert found.meta["units"] == {"Fe Ka": "counts"}
    np.testing.assert_allclose(found.maps[0], FE)
    np.testing.assert_allclose(found.x_um, 1000 * X)
    np.testing.assert_allclose(found.y_um, 1000 * Y)


def test_rows_from_high_to_low_and_a_row_that_is_missing(tmp_path):
    path = write_mda(tmp_path / "2xfm_0001.mda", y=Y[::-1], missing=(1,), x_unit="")
    found = read_maps(path)
    truth = FE[::-1].copy()
    truth[3] = np.nan
    np.testing.assert_allclose(found.maps[0], truth)
    np.testing.assert_allclose(found.y_um, 1000 * Y)
    assert "positioner '2xfm:m12.VAL' has no unit: taken as mm" in found.notes


def write_spectra(path, elements=2):
    with h5py.File(path, "w") as file:
        for name in ("data_a", "data_b")[:elements]:
            spectra = np.zeros((64, NY, NX), "i2")
            spectra[10:13] = FE
            spectra[13] = 999
            file[f"MAPS_RAW/{name}"] = spectra
        file["MAPS_RAW/livetime"] = np.full((elements, NY, NX), 0.5)


LIMITS = [
    ("dxp:mca1.R3LO", 10.0),
    ("dxp:mca1.R3HI", 12.0),
    ("dxp:mca2.R5LO", 11.0),
    ("dxp:mca2.R5HI", 12.0),
]


def test_regions_are_cut_out_of_the_spectra_beside_a_fly_scan(tmp_path):
    path = write_mda(tmp_path / "2xfm_0001.mda", rois=False, extra=LIMITS)
    write_spectra(tmp_path / "2xfm_0001_2xfm3__0.h5")
    found = read_maps(path)
    np.testing.assert_allclose(found.maps[0], 5 * FE)
    assert found.live_time is not None
    np.testing.assert_allclose(found.live_time.seconds, 0.5)
    with pytest.raises(FileFormatError, match="give the MDA file of the scan"):
        read_maps(tmp_path / "2xfm_0001_2xfm3__0.h5")


def test_what_holds_no_elements_is_refused_in_words(tmp_path):
    path = write_mda(tmp_path / "2xfm_0001.mda", rois=False)
    with pytest.raises(FileFormatError, match=r"no regions of interest.*no spectra beside it"):
        read_maps(path)
    path.write_bytes(struct.pack(">f", 1.4) + whole(1, 1, 5, 1, 0))
    with pytest.raises(FileFormatError, match="1 dimensions"):
        read_maps(path)


@pytest.mark.parametrize("cut", [3, 20, 60, 200, 500])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, cut):
    path = write_mda(tmp_path / "2xfm_0001.mda")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileFormatError, match="damaged MDA file"):
        read_mda(path, "cut", lambda values: None)
