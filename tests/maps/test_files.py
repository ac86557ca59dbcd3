"""Maps from npz, MAPS, PyXRF and NeXus files, with the defects that real files have."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files import read_maps
from xrf_sr_plans.maps.files.model import is_element

COUNTS = np.random.default_rng(0).poisson(20, (3, 12, 16)).astype(np.float32)
X = 100 + 0.5 * np.arange(16)
Y = 40 + 0.25 * np.arange(12)


def write_maps(path, *, older=False, maps=COUNTS, names=("Fe", "Zn", "Pb_L")):
    """A MAPS file as XRF-Maps writes it, newer or older."""
    with h5py.File(path, "w") as file:
        channels = np.array([name.encode() for name in names], dtype="S256")
        if older:
            file["MAPS/XRF_roi"] = maps
            file["MAPS/channel_names"] = channels
            file["MAPS/x_axis"], file["MAPS/y_axis"] = X, Y
        else:
            file["MAPS/XRF_Analyzed/ROI/Counts_Per_Sec"] = maps / 2
            file["MAPS/XRF_Analyzed/ROI/Channel_Names"] = channels
            file["MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec"] = maps
            file["MAPS/XRF_Analyzed/NNLS/Channel_Names"] = channels
            file["MAPS/Scan/x_axis"], file["MAPS/Scan/y_axis"] = X, Y
    return path


def write_pyxrf(path, *, detectors=("detsum",), y_first=False):
    with h5py.File(path, "w") as file:
        for name in detectors:
            file[f"xrfmap/{name}/xrf_fit"] = COUNTS
            file[f"xrfmap/{name}/xrf_fit_name"] = np.array([b"Fe_K", b"Zn_K", b"compton"])
        axes = np.stack([np.broadcast_to(X, (12, 16)), np.broadcast_to(Y[:, None], (12, 16))])
        file["xrfmap/positions/pos"] = axes[::-1] if y_first else axes
        names = [b"y_pos", b"x_pos"] if y_first else [b"x_pos", b"y_pos"]
        file["xrfmap/positions/name"] = np.array(names)
    return path


def nexus_group(file, where):
    group = file.create_group(where)
    group.attrs["NX_class"] = "NXdata"
    return group


def test_an_npz_archive(tmp_path):
    path = tmp_path / "maps.npz"
    np.savez(path, maps=COUNTS, elements=["Fe", "Zn", "TFY"], pixel_size_um=0.3)
    found = read_maps(path)
    assert found.elements == ("Fe", "Zn", "TFY")
    assert found.pixel_size_um == pytest.approx(0.3)
    np.testing.assert_array_equal(found.maps, COUNTS)


def test_an_archive_with_pickled_objects_is_refused(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, maps=np.array([object()], dtype=object))
    with pytest.raises(FileFormatError, match="allow_pickle"):
        read_maps(path)


@pytest.mark.parametrize("older", [False, True])
def test_maps_files_of_both_generations(tmp_path, older):
    found = read_maps(write_maps(tmp_path / "scan.h5", older=older))
    assert found.elements == ("Fe", "Zn", "Pb_L")
    assert found.pixel_size_um == pytest.approx(0.5)
    assert found.meta["pixel_size_y_um"] == pytest.approx(0.25)
    assert ("NNLS" in found.meta["layout"]) is not older
    np.testing.assert_array_equal(found.maps, COUNTS)


def test_values_that_stand_for_nothing_become_nan_and_scatter_channels_are_left_out(tmp_path):
    maps = COUNTS.astype(float)
    maps[0, 3, 4], maps[0, 3, 5], maps[1, 0, 0] = np.finfo(float).max, np.inf, np.nan
    names = ("Fe", "Zn", "COMPTON_AMPLITUDE")
    found = read_maps(write_maps(tmp_path / "scan.h5", maps=maps, names=names))
    assert found.elements == ("Fe", "Zn")
    assert found.meta["skipped"] == ["COMPTON_AMPLITUDE"]
    assert np.isnan(found.maps).sum() == 3


def test_a_file_is_read_as_it_is_and_its_notes_say_what_was_guessed(tmp_path):
    maps = COUNTS.copy()
    maps[..., -1] = 0
    found = read_maps(write_maps(tmp_path / "scan.h5", maps=maps))
    # Bad columns are told by photon numbers, which a file with rates doesn't show
    # (tests/maps/test_defects.py).
    np.testing.assert_array_equal(found.maps, maps)
    assert found.meta["notes"] == ["axes without unit: taken as um"]


@pytest.mark.parametrize("y_first", [False, True])
def test_a_pyxrf_file_with_its_axes_in_any_order(tmp_path, y_first):
    found = read_maps(write_pyxrf(tmp_path / "scan.h5", y_first=y_first))
    assert found.elements == ("Fe_K", "Zn_K")
    assert found.pixel_size_um == pytest.approx(0.5)
    assert found.meta["pixel_size_y_um"] == pytest.approx(0.25)


def test_detectors_fitted_one_by_one_are_added(tmp_path):
    found = read_maps(write_pyxrf(tmp_path / "scan.h5", detectors=("det1", "det2")))
    np.testing.assert_array_equal(found.maps, 2 * COUNTS[:2])


def test_a_pyxrf_file_without_fits_says_what_to_do(tmp_path):
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["xrfmap/detsum/counts"] = np.zeros((2, 2, 8))
    with pytest.raises(FileFormatError, match="fit the spectra in PyXRF first"):
        read_maps(tmp_path / "raw.h5")


def test_nexus_maps_with_an_element_axis(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        group = nexus_group(file, "entry/maps")
        group.attrs["signal"], group.attrs["axes"] = "data", ["element", "y", "x"]
        group["data"] = COUNTS
        group["element"] = np.array([b"Fe", b"Zn", b"Cu"])
        group["x"], group["y"] = X * 1e-3, Y * 1e-3
        group["x"].attrs["units"] = group["y"].attrs["units"] = "mm"
    found = read_maps(tmp_path / "scan.nxs")
    assert found.elements == ("Fe", "Zn", "Cu")
    assert found.pixel_size_um == pytest.approx(0.5)
    assert found.meta["pixel_size_y_um"] == pytest.approx(0.25)


def test_two_channels_of_one_name_are_refused_unless_they_are_no_elements(tmp_path):
    folder = tmp_path
    np.savez(folder / "m.npz", maps=COUNTS, elements=["Fe", "Zn", "Fe"], pixel_size_um=1.0)
    write_maps(folder / "m.h5", names=("Fe", "Fe", "Zn"))
    write_nexus(folder / "m.nxs", "um", elements=(b"Fe", b"Fe"))
    for name in ("m.npz", "m.h5", "m.nxs"):
        with pytest.raises(FileFormatError, match=rf"{name}.*'Fe' is named more than once"):
            read_maps(folder / name)
    write_maps(folder / "padded.h5", names=("Fe", "", ""))
    assert read_maps(folder / "padded.h5").elements == ("Fe",)


def write_nexus(path, unit, step=0.5, where="entry/maps", mode="w", elements=(b"Fe", b"Zn")):
    """NeXus maps with pixels of `step` in `unit`; None: without the attribute."""
    with h5py.File(path, mode) as file:
        group = nexus_group(file, where)
        group.attrs["signal"], group.attrs["axes"] = "data", ["element", "y", "x"]
        group["data"], group["element"] = COUNTS[: len(elements)], np.array(elements)
        group["x"], group["y"] = step * np.arange(16), step * np.arange(12)
        if unit is not None:
            group["x"].attrs["units"] = group["y"].attrs["units"] = unit
    return path


@pytest.mark.parametrize(
    ("unit", "step"),
    [("nanometer", 2000.0), ("nanometre", 2000.0), ("millimeter", 2e-3), ("micrometre", 2.0),
     ("microns", 2.0), ("MM", 2e-3), ("m", 2e-6), ("angstrom", 2e4), (np.bytes_(b"mm"), 2e-3),
     (np.array([b"nm"]), 2000.0)],
)  # fmt: skip
def test_a_step_of_two_micrometres_is_one_in_whatever_unit_it_is_written(tmp_path, unit, step):
    found = read_maps(write_nexus(tmp_path / "scan.nxs", unit, step))
    assert found.pixel_size_um == pytest.approx(2.0)
    assert found.meta["pixel_size_y_um"] == pytest.approx(2.0)
    assert found.meta["notes"] == []


@pytest.mark.parametrize("unit", [None, "", " "])
def test_axes_without_unit_count_as_um_and_a_note_says_so(tmp_path, unit):
    found = read_maps(write_nexus(tmp_path / "scan.nxs", unit))
    assert found.pixel_size_um == pytest.approx(0.5)
    assert found.meta["notes"] == ["axes without unit: taken as um"]


def write_with_unit(path, layout, unit):
    """A file of one of the three HDF5 layouts whose axes have a unit."""
    if layout == "nexus":
        return write_nexus(path, unit)
    places = {"maps": ["MAPS/Scan/x_axis", "MAPS/Scan/y_axis"], "pyxrf": ["xrfmap/positions/pos"]}
    (write_maps if layout == "maps" else write_pyxrf)(path)
    with h5py.File(path, "a") as file:
        for place in places[layout]:
            file[place].attrs["units"] = unit
    return path


@pytest.mark.parametrize("layout", ["maps", "pyxrf", "nexus"])
def test_the_unit_of_an_axis_is_read_in_every_layout(tmp_path, layout):
    found = read_maps(write_with_unit(tmp_path / "scan.h5", layout, "millimetres"))
    assert found.pixel_size_um == pytest.approx(500.0)
    assert found.meta["notes"] == []


@pytest.mark.parametrize("layout", ["maps", "pyxrf", "nexus"])
def test_an_unknown_unit_is_refused_in_every_layout_unless_the_step_is_given(tmp_path, layout):
    path = write_with_unit(tmp_path / "scan.h5", layout, "px")
    message = r"scan\.h5: axis '\S+': unit is 'px'; one of .*um.* is needed"
    with pytest.raises(FileFormatError, match=message):
        read_maps(path)
    found = read_maps(path, step_um=0.3)
    assert (found.pixel_size_um, found.meta["pixel_size_y_um"]) == (0.3, 0.3)
    assert found.meta["notes"] == []


@pytest.mark.parametrize("step_um", [0.0, -1.0, np.nan, np.inf])
def test_a_step_that_is_none_is_refused(tmp_path, step_um):
    with pytest.raises(ConfigError, match="step_um is"):
        read_maps(write_nexus(tmp_path / "scan.nxs", "um"), step_um=step_um)


def test_maps_that_are_not_read_may_have_any_unit(tmp_path):
    path = write_nexus(tmp_path / "scan.nxs", "px", where="entry/raw", elements=(b"Fe",))
    write_nexus(path, "nm", where="entry/fitted", mode="a")
    found = read_maps(path)
    assert found.meta["layout"] == "NXdata /entry/fitted"
    assert found.pixel_size_um == pytest.approx(0.5e-3)


def test_nexus_maps_as_one_signal_per_element_on_the_default_path(tmp_path):
    with h5py.File(tmp_path / "scan.nxs", "w") as file:
        for where in ("entry/errors", "entry/results"):
            group = nexus_group(file, where)
            group.attrs["signal"], group.attrs["auxiliary_signals"] = "Fe_K", ["Zn_K"]
            group["Fe_K"], group["Zn_K"] = COUNTS[0], COUNTS[1]
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "results"
        file["entry/loop"] = h5py.SoftLink("/entry")
    found = read_maps(tmp_path / "scan.nxs")
    assert found.elements == ("Fe_K", "Zn_K")
    assert found.meta["layout"] == "NXdata /entry/results"
    assert np.isnan(found.pixel_size_um)


def test_what_was_looked_for_is_in_the_message(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something"] = 1
    with pytest.raises(FileFormatError, match=r"something.*XRF_Analyzed/NNLS.*PyXRF.*NXdata"):
        read_maps(tmp_path / "other.h5")


@pytest.mark.parametrize("content", [b"", b"MZ......", b"PK\x03\x04garbage", b"\x89HDF\r\n\x1a\nx"])
def test_files_that_are_something_else_or_damaged_are_refused(tmp_path, content):
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"file\.h5"):
        read_maps(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_maps(tmp_path / "scan.h5")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FileFormatError, match="damaged"):
        read_maps(path)


def test_names_and_maps_that_do_not_fit_together_are_refused(tmp_path):
    with pytest.raises(FileFormatError, match="3, 12, 16"):
        read_maps(write_maps(tmp_path / "scan.h5", names=("Fe",)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Fe", True), ("Fe_K", True), ("Pb_L", True), ("Fe57", True), ("P", True), ("Pb_La1", True),
     ("TFY", False), ("COMPTON_AMPLITUDE", False), ("s_a", False), ("Xx", False), ("", False)],
)  # fmt: skip
def test_channels_that_are_elements_are_told_from_others(name, expected):
    assert is_element(name) is expected
