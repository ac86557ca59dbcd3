"""MDA files of 2-ID: what the sscan record wrote, and spectra beside it."""

from __future__ import annotations

import struct

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import ReadOptions, read_maps
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


BINS, GAIN_KEV = 64, 0.25
SHARES = {"dxp:mca1": 0.25, "dxp:mca2": 0.75}
LINES = {"Fe": slice(26, 27), "Zn": slice(35, 36)}
"""Bins around the lines of iron and of zinc: their centers are at 6.5 and 8.75 keV."""


def spectrum(row, column, share):
    counts = np.full(BINS, 0.0)
    counts[LINES["Fe"]] = share * FE[row, column]
    counts[LINES["Zn"]] = share * (100 - FE[row, column])
    counts[50] = 999
    return counts


def write_cube(path, extra=(), short=(), names=tuple(SHARES), innermost="bin"):
    """A map with a scan over the bins of the spectra at each point, of two detector elements."""
    outer, along = (("2xfm:m13.VAL", "Sample Y", "mm", Y), ("2xfm:m12.VAL", "Sample X", "mm", X))
    head = struct.pack(">f", 1.4) + whole(11, 3, NY, NX, BINS, 1, 0)

    def point(row, column):
        done = 20 if (row, column) in short else None
        channels = [(f"{name}.VAL", spectrum(row, column, SHARES.get(name, 1))) for name in names]
        return scan(1, (innermost, "", "", np.arange(BINS)), channels, done)

    at = len(head) + len(scan(3, outer, [], offsets=[0] * NY))
    places, rows = [], b""
    for row in range(NY):
        places.append(at + len(rows))
        first = places[-1] + len(scan(2, along, [], offsets=[0] * NX))
        points = [point(row, column) for column in range(NX)]
        offsets = first + np.cumsum([0, *map(len, points[:-1])])
        rows += scan(2, along, [], offsets=offsets.tolist()) + b"".join(points)
    body = scan(3, outer, [], offsets=places) + rows
    content = whole(len(extra))
    for name, value in extra:
        content += text(name) + text("")
        if isinstance(value, str):
            content += whole(0) + text(value)
        else:
            content += whole(34, 1) + text("") + struct.pack(">d", value)
    path.write_bytes(head[:-4] + whole(len(head) + len(body)) + body + content)
    return path


CALIBRATED = [(f"{name}.{key}", value) for name in SHARES
              for key, value in (("CALO", 0.0), ("CALS", GAIN_KEV))]  # fmt: skip


def labelled(name, bins, number):
    known = {"NM": f"{name} Ka", "LO": float(bins.start), "HI": float(bins.stop - 1)}
    return [(f"{mca}.R{number}{key}", value) for mca in SHARES for key, value in known.items()]


@pytest.mark.parametrize(
    ("options", "extra"),
    [
        (ReadOptions(elements=("Fe", "Zn")), CALIBRATED),
        (ReadOptions(elements=("Fe", "Zn"), energy_kev=(0.0, GAIN_KEV)), []),
        (ReadOptions(), labelled("Fe", LINES["Fe"], 0) + labelled("Zn", LINES["Zn"], 7)),
    ],
)
def test_spectra_at_the_points_are_cut_at_lines_or_by_the_records_regions(tmp_path, options, extra):
    found = read_maps(write_cube(tmp_path / "2xfm_0002.mda", extra), options=options)
    assert [name.removesuffix(" Ka") for name in found.elements] == ["Fe", "Zn"]
    np.testing.assert_allclose(found.maps, [FE, 100 - FE])
    np.testing.assert_allclose(found.x_um, 1000 * X)
    np.testing.assert_allclose(found.y_um, 1000 * Y)


def test_a_spectrum_that_was_cut_off_is_a_hole(tmp_path):
    path = write_cube(tmp_path / "2xfm_0002.mda", CALIBRATED, short=[(2, 3)])
    found = read_maps(path, options=ReadOptions(elements=("Fe",)))
    assert np.argwhere(np.isnan(found.maps[0])).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("known", "elements", "says"),
    [
        ({}, (), r"spectra of 64 bins at its points \(dxp:mca1, dxp:mca2\), and nothing says"),
        ({}, ("Fe",), r"the spectra of dxp:mca1 are not in the file \(CALO, CALS"),
        ({"extra": CALIBRATED}, ("Mo",), "the line of Mo at 17.480 keV lies outside"),
        ({"extra": [("dxp:mca1.CALO", 0.0), ("dxp:mca1.CALS", -1.0)]}, ("Fe",), "makes no energ"),
        ({"names": ("2xfm:scaler1.S2",), "innermost": "2xfm:theta.VAL"}, ("Fe",),
         r"three dimensions, the innermost of .* moves 2xfm:theta.VAL and reads 2xfm:scaler1"),
    ],
)  # fmt: skip
def test_what_spectra_lack_is_refused_by_name(tmp_path, known, elements, says):
    path = write_cube(tmp_path / "2xfm_0002.mda", **known)
    with pytest.raises(FileFormatError, match=says):
        read_maps(path, options=ReadOptions(elements=elements))


@pytest.mark.parametrize("cut", [3, 20, 60, 200, 500])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, cut):
    path = write_mda(tmp_path / "2xfm_0001.mda")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(FileFormatError, match="damaged MDA file"):
        read_mda(path, "cut", lambda values: None)
