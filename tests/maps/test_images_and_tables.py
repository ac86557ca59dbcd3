"""Maps in EDF, TIFF and tables, as PyMca and others write them."""

from __future__ import annotations

import json
import os
import resource
import sys

import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import read_maps

fabio = pytest.importorskip("fabio", reason="the extra 'files' is not installed")
tifffile = pytest.importorskip("tifffile", reason="the extra 'files' is not installed")

MAPS = np.random.default_rng(0).poisson(20, (3, 12, 17)).astype(np.float32)
NAMES = ("Fe_K", "Zn_K", "Pb_L")


def write_tiffs(folder, *, uncertainties=True):
    for name, values in zip(NAMES, MAPS, strict=True):
        tifffile.imwrite(folder / f"scan1_{name}.tif", values)
        if uncertainties:
            tifffile.imwrite(folder / f"scan1_s{name}.tif", np.sqrt(values))
    return folder / "scan1_Fe_K.tif"


def write_edfs(folder):
    for name, values in zip(NAMES, MAPS, strict=True):
        for title, data, stem in (
            (name, values, name),
            (f"s({name})", np.sqrt(values), f"s{name}"),
        ):
            image = fabio.edfimage.EdfImage(data=data, header={"Title": title})
            image.write(str(folder / f"scan1_{stem}.edf"))
    return folder / "scan1_Zn_K.edf"


@pytest.mark.parametrize("write", [write_tiffs, write_edfs])
def test_one_image_brings_those_of_the_other_elements_and_never_uncertainties(tmp_path, write):
    path = write(tmp_path)
    found = read_maps(path)
    assert found.elements == NAMES
    np.testing.assert_array_equal(found.maps, MAPS)
    with pytest.raises(FileFormatError, match="holds the uncertainties of fits"):
        read_maps(tmp_path / f"scan1_sFe_K{path.suffix}")


def test_a_json_file_says_where_the_images_lie(tmp_path):
    path = write_tiffs(tmp_path)
    described = {
        "elements": ["Pb", "Fe", "Zn"],
        "x_um": list(np.arange(17)[::-1] * 2.0),
        "step_y_um": 3.0,
        "units": "counts",
        "dwell_ms": 20,
    }
    (tmp_path / "scan1.json").write_text(json.dumps(described))
    for source in (path, tmp_path / "scan1.json"):
        found = read_maps(source)
        assert found.elements == ("Pb_L", "Fe_K", "Zn_K")
        np.testing.assert_array_equal(found.maps, MAPS[[2, 0, 1], :, ::-1])
        assert (found.pixel_size_um, found.pixel_size_y_um) == (2.0, 3.0)
        assert found.live_time is not None
        assert float(found.live_time.seconds) == 0.02


def test_an_ome_tiff_names_its_channels_and_its_steps(tmp_path):
    described = {
        "axes": "CYX",
        "PhysicalSizeX": 500,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 2,
        "PhysicalSizeYUnit": "µm",
        "Channel": {"Name": ["Fe", "Zn", "Pb_L"]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", MAPS, metadata=described, ome=True)
    found = read_maps(tmp_path / "a.ome.tif")
    assert found.elements == ("Fe", "Zn", "Pb_L")
    assert found.notes == []
    np.testing.assert_array_equal(found.maps, MAPS)
    assert (found.pixel_size_um, found.pixel_size_y_um) == (0.5, 2.0)


def test_images_without_names_of_elements_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "picture.tif", MAPS, photometric="minisblack")
    with pytest.raises(FileFormatError, match="no names of elements"):
        read_maps(tmp_path / "picture.tif")
    (tmp_path / "picture.json").write_text(json.dumps({"elements": list(NAMES), "step_um": 2}))
    assert read_maps(tmp_path / "picture.tif").elements == NAMES


@pytest.mark.parametrize("split", [";", ",", "  "])
def test_a_table_with_a_line_for_each_pixel(tmp_path, split):
    lines = [split.join(["row", "column", "x_mm", "y_mm", "Fe_K", "s(Fe_K)"])]
    for row, column in np.ndindex(12, 17):
        value = float(MAPS[0, row, column])
        numbers = (row, column, 1 + 0.002 * column, 0.003 * row, value, value**0.5)
        lines.append(split.join(map(repr, numbers)))
    (tmp_path / "scan.csv").write_text("\n".join(lines) + "\n")
    found = read_maps(tmp_path / "scan.csv")
    assert found.elements == ("Fe_K",)
    assert found.meta["units"] == {"Fe_K": "counts"}
    np.testing.assert_array_equal(found.maps[0], MAPS[0])
    np.testing.assert_allclose(found.x_um, 1000 + 2.0 * np.arange(17))
    np.testing.assert_allclose(found.y_um, 3.0 * np.arange(12))


def test_damaged_tables_and_images_are_refused(tmp_path):
    path = tmp_path / "scan.csv"
    for body in ("0;0;1\n0;0;2\n", "0;x;1\n", "0;5e9;1\n", "0;0\n", ""):
        path.write_text("row;column;Fe\n" + body)
        with pytest.raises(FileFormatError, match="damaged table"):
            read_maps(path)
    image = write_tiffs(tmp_path)
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(FileFormatError, match="damaged image file"):
        read_maps(image)


@pytest.mark.parametrize("lost", [range(1000, 1016), range(0, 0), range(2200, 2204)])
def test_a_stack_that_lost_bytes_is_refused_not_read_at_the_places_of_others(tmp_path, lost):
    path = tmp_path / "scan1.tif"
    tifffile.imwrite(path, MAPS.astype("f4"), photometric="minisblack")
    (tmp_path / "scan1.json").write_text(json.dumps({"elements": list(NAMES), "step_um": 2}))
    whole = path.read_bytes()
    path.write_bytes(whole[: lost.start] + whole[lost.stop :])
    if not len(lost):
        np.testing.assert_array_equal(read_maps(path).maps, MAPS.astype("f4"))
        return
    assert len(whole) > lost.stop
    with pytest.raises(FileFormatError, match="damaged TIFF: it is said to hold 3 images"):
        read_maps(path)


def test_a_stack_whose_directory_lists_the_first_image_only_is_read(tmp_path):
    path = tmp_path / "scan1.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(MAPS.astype("f4"), photometric="minisblack", truncate=True)
    (tmp_path / "scan1.json").write_text(json.dumps({"elements": list(NAMES), "step_um": 2}))
    np.testing.assert_array_equal(read_maps(path).maps, MAPS.astype("f4"))


def test_a_tiff_whose_image_lies_elsewhere_or_has_bytes_too_many_is_not_read_in_silence(tmp_path):
    path = tmp_path / "scan1_Fe.tif"
    tifffile.imwrite(path, MAPS[0].astype("f4"))
    whole = path.read_bytes()
    assert read_maps(path).notes == []
    with tifffile.TiffFile(path) as file:
        (start,) = file.pages[0].dataoffsets
        at = file.pages[0].tags["StripOffsets"].offset + 8
    assert whole[at : at + 4] == start.to_bytes(4, "little")
    path.write_bytes(whole[:at] + (start - 32).to_bytes(4, "little") + whole[at + 4 :])
    with pytest.raises(FileFormatError, match="damaged TIFF: an image at the bytes"):
        read_maps(path)
    path.write_bytes(whole[: start + 40] + b"lost" + whole[start + 40 :])
    (note,) = read_maps(path).notes
    assert "4 bytes at its end belong to nothing: its values may be displaced" in note


def test_an_edf_header_that_lost_its_end_is_not_read_on_into_the_next_one(tmp_path):
    images = fabio.edfimage.EdfImage(data=MAPS[0].astype("f4"), header={"Title": "Fe_K"})
    for name, values in zip(NAMES[1:], MAPS[1:], strict=True):
        images.append_frame(data=values.astype("f4"), header={"Title": name})
    images.write(str(tmp_path / "scan1.edf"))
    whole = (tmp_path / "scan1.edf").read_bytes()
    second = whole.index(b"}\n", whole.index(b"}\n") + 2)
    (tmp_path / "scan1.edf").write_bytes(whole[: second - 20] + whole[second + 40 :])
    with pytest.raises(FileFormatError, match="damaged EDF file: no header at byte"):
        read_maps(tmp_path / "scan1.edf")


def test_a_step_that_can_not_be_is_none(tmp_path):
    tifffile.imwrite(tmp_path / "scan1.tif", MAPS.astype("f4"), photometric="minisblack")
    (tmp_path / "scan1.json").write_text(json.dumps({"elements": list(NAMES), "step_um": 1e30}))
    found = read_maps(tmp_path / "scan1.tif")
    np.testing.assert_array_equal(found.maps, MAPS.astype("f4"))
    assert found.x_um is None


def test_a_library_that_searches_for_ever_is_ended_also_before_it_says_how_much_there_is(
    tmp_path, monkeypatch
):
    path = tmp_path / "scan1_Fe.tif"
    tifffile.imwrite(path, MAPS[0])
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "tifffile.py").write_text("while True:\n    pass\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(slow), *sys.path]))
    before_s = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    with pytest.raises(FileFormatError, match=r"no answer within 8 s|ended the process"):
        read_maps(path)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before_s < 30
