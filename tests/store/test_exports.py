"""Exported maps: every value, position, unit and note is where the other program looks for it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from support.maps_to_export import ELEMENTS, MODEL, composite, enhanced, measured_rows
from xrf_sr_plans.errors import ConfigError, GridError
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.files import as_photons, read_maps
from xrf_sr_plans.maps.files.hdf5_layouts import read_layouts
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.store.exports import FORMATS, export_map, format_for, new_file
from xrf_sr_plans.store.exports.nexus import group_names
from xrf_sr_plans.store.exports.verification import SIGNAL, write_verification

X_UM = 1000.25 + 1.5 * np.arange(20)
Y_UM = -40.5 + 1.5 * np.arange(12)


def texts(array) -> list[str]:
    return [text.decode() for text in np.asarray(array)]


def default_plot(file: h5py.File) -> h5py.Group:
    """Return the group that the attributes `default` lead to."""
    group = file
    while "default" in group.attrs:
        group = group[group.attrs["default"]]
    return group


@pytest.mark.parametrize("make", [enhanced, composite, measured_rows])
def test_a_nexus_file_opens_as_an_image_of_its_first_element(make, tmp_path: Path) -> None:
    maps = make()
    with h5py.File(export_map(maps, tmp_path / "map.h5")) as file:
        plot = default_plot(file)
        assert plot.name == "/entry/maps"
        assert plot.attrs["NX_class"] == "NXdata"
        assert list(plot.attrs["axes"]) == ["y", "x"]
        assert [plot.attrs["signal"], *plot.attrs["auxiliary_signals"]] == ELEMENTS
        for index, element in enumerate(ELEMENTS):
            image = plot[element]
            np.testing.assert_array_equal(image[:], next(iter(maps.dataset.values())).values[index])
            assert image.attrs["interpretation"] == "image"
            assert image.attrs["units"] == "photons"
        for axis in "xy":
            np.testing.assert_array_equal(plot[axis][:], maps.dataset[axis].values)
            assert plot[axis].attrs["units"] == "um"


def test_each_element_has_a_group_of_its_own_with_errors(tmp_path: Path) -> None:
    maps = enhanced()
    with h5py.File(export_map(maps, tmp_path / "map.nxs")) as file:
        for index, element in enumerate(ELEMENTS):
            group = file[f"entry/{element}"]
            assert (group.attrs["NX_class"], group.attrs["signal"]) == ("NXdata", "estimate")
            for name, stored in {"sigma": "estimate_errors", "lower": "lower"}.items():
                expected = maps.dataset[name].values[index]
                np.testing.assert_array_equal(group[stored][:], expected)
            np.testing.assert_array_equal(group["trusted"][:], maps.trusted.values[index])
            # Stored once: the default plot has the same array.
            assert group["estimate"] == file["entry/maps"][element]
            assert group["estimate"].attrs["target"] == group["estimate"].name
        errors = file["entry/maps/Zn_errors"]
        np.testing.assert_array_equal(errors[:], maps.sigma.values[1])


def test_all_elements_are_also_one_array(tmp_path: Path) -> None:
    maps = enhanced()
    with h5py.File(export_map(maps, tmp_path / "map.h5")) as file:
        stack = file["entry/enhanced"]
        assert list(stack.attrs["axes"]) == ["element_index", "y", "x"]
        assert texts(stack["element"]) == ELEMENTS
        for name in ("estimate", "sigma", "lower", "upper", "baseline", "trusted"):
            np.testing.assert_array_equal(stack[name][:], maps.dataset[name].values)
        np.testing.assert_array_equal(stack["estimate_errors"][:], maps.sigma.values)
        assert json.loads(stack.attrs["attributes_json"])["model"] == MODEL
        # Where files of before had it.
        assert file["enhanced/estimate"] == stack["estimate"]


def plottable(group: h5py.Group, name: str) -> h5py.Dataset:
    """Return an array of a group that h5web plots: of plain numbers, and not a single one."""
    array = group[name]
    assert isinstance(array, h5py.Dataset)
    assert array.dtype.kind in "iuf", f"{group.name}/{name} holds {array.dtype}"
    assert array.dtype.itemsize in (1, 2, 4, 8)
    assert array.shape
    return array


MAKERS = {"enhanced": enhanced, "composite": composite, "measured": measured_rows}


@pytest.mark.parametrize("kind", [*MAKERS, "verification"])
def test_every_plot_of_a_file_is_one_that_h5web_takes(tmp_path: Path, kind: str) -> None:
    """What silx-kit/h5web asks of NXdata, in `vis-packs/nexus/utils.ts`."""
    path = tmp_path / "map.h5"
    if kind == "verification":
        write_verification([{"element": "Fe", SIGNAL: 0.9, "gain_db": 1.0}], path)
    else:
        export_map(MAKERS[kind](), path)
    with h5py.File(path) as file:
        default = file[file.attrs["default"]]
        groups: list[h5py.Group] = []
        file.visititems(lambda _, node: groups.append(node) if is_nxdata(node) else None)
        assert default[default.attrs["default"]] in groups
        for group in groups:
            assert isinstance(group.attrs["signal"], str)
            signal = plottable(group, group.attrs["signal"])
            for name in group.attrs.get("auxiliary_signals", ()):
                assert plottable(group, name).shape == signal.shape
            errors = f"{signal.name.rsplit('/', 1)[-1]}_errors"
            if errors in group:
                assert plottable(group, errors).shape == signal.shape
            axes = [plottable(group, name) for name in group.attrs["axes"]]
            assert [axis.shape for axis in axes] == [(size,) for size in signal.shape]
            if signal.ndim >= 2:
                assert signal.attrs["interpretation"] == "image"
            assert "title" not in group


def is_nxdata(node: object) -> bool:
    return isinstance(node, h5py.Group) and node.attrs.get("NX_class") == "NXdata"


def test_the_array_of_all_elements_is_read_by_their_names(tmp_path: Path) -> None:
    path = export_map(maps := enhanced(), tmp_path / "map.h5")
    with h5py.File(path, "a") as file:
        stack = file["entry/enhanced"]
        names = ("estimate", "element", "element_index", "x", "y")
        kept = {name: stack[name][()] for name in names}
        attributes = dict(stack.attrs)
        del file["entry"], file["enhanced"]
        group = file.create_group("entry/enhanced")
        group.attrs.update(attributes)
        for name, values in kept.items():
            group[name] = values
    found = read_maps(path)
    assert list(found.elements) == ELEMENTS
    np.testing.assert_allclose(found.maps, maps.estimate.values, rtol=1e-6)


def test_a_nexus_file_says_by_what_and_from_what_it_was_made(tmp_path: Path) -> None:
    with h5py.File(export_map(enhanced(), tmp_path / "map.h5")) as file:
        process = file["entry/process"]
        assert process.attrs["NX_class"] == "NXprocess"
        assert process["program"][()] == b"xrf-sr-plans"
        for key, value in MODEL.items():
            assert process["model"][key].asstr()[()] == value
        settings = process["settings"]
        assert (settings["factor"][()], settings["sampling"].asstr()[()]) == (2, "fly")
        assert (settings["step_um"][()], settings["step_um"].attrs["units"]) == (3.0, "um")
        assert settings["dwell_ms"].attrs["units"] == "ms"
        assert process["source/source_uid"].asstr()[()].startswith("5f3c2a10")
        assert process["notes/data"].asstr()[()] == "the probe is not known: its blur stays"
        assert json.loads(process["attributes/data"][()])["model"] == MODEL


def test_a_map_of_a_file_names_the_file(tmp_path: Path) -> None:
    maps = enhanced(source_uid="")
    path = export_map(maps, tmp_path / "map.h5", source_file="scans/one.h5")
    with h5py.File(path) as file:
        assert file["entry/process/source/source_file"].asstr()[()] == "scans/one.h5"
        assert file["entry/title"].asstr()[()].endswith("super-resolved 2 times, of one.h5")


def test_a_composite_says_which_rescan_each_pixel_is_from(tmp_path: Path) -> None:
    maps = composite()
    with h5py.File(export_map(maps, tmp_path / "survey.h5")) as file:
        stack = file["entry/composite"]
        np.testing.assert_array_equal(stack["source"][:], maps.source.values)
        np.testing.assert_array_equal(stack["value_errors"][:], maps.sigma.values)
        assert texts(stack["rescan_uids"]) == ["fine-0", "fine-1"]
        placements = file["entry/process/placements"]
        np.testing.assert_allclose(placements["dx_um"][:], [0, 0.1])
        assert np.isnan(placements["dy_um"][:]).all()
        assert texts(placements["note"]) == ["flown elsewhere", ""]


def test_the_placements_of_a_thousand_rescans_are_not_too_long(tmp_path: Path) -> None:
    with h5py.File(export_map(composite(1000), tmp_path / "survey.h5")) as file:
        told = json.loads(file["entry/process/attributes/data"][()])
        assert len(told["placements"]) == 1000
        assert "attributes_json" not in file["entry/composite"].attrs


def test_elements_of_different_units_keep_theirs(tmp_path: Path) -> None:
    maps, units = enhanced(), ["counts", "counts/s", "counts/s"]
    photons = np.array([1.0, 0.02, 0.02])
    path = export_map(maps, tmp_path / "map.h5", units=units, photons=photons)
    with h5py.File(path) as file:
        assert [file[f"entry/maps/{name}"].attrs["units"] for name in ELEMENTS] == units
        assert list(file["entry/enhanced/estimate"].attrs["units"]) == units
        expected = maps.estimate.values / photons[:, None, None]
        np.testing.assert_allclose(file["entry/enhanced/estimate"][:], expected, rtol=1e-6)
        assert "units" not in file["entry/enhanced/trusted"].attrs
    with pytest.raises(GridError, match="3 elements, but 1 units"):
        export_map(maps, path, units=["counts"])


def test_names_that_nexus_does_not_allow_are_changed_and_stay_apart() -> None:
    assert group_names(["Fe K", "Fe-K", "maps", "Sr/Rb", "x"]) == [
        *("Fe_K", "Fe_K_2", "maps_2", "Sr_Rb", "x_2")
    ]


@pytest.mark.parametrize("name", ["map.h5", "map.maps.h5", "map.pyxrf.h5"])
def test_our_own_readers_find_values_positions_and_units(name: str, tmp_path: Path) -> None:
    maps = enhanced()
    found = read_layouts(export_map(maps, tmp_path / name), name)
    assert list(found.elements) == ELEMENTS
    np.testing.assert_allclose(found.x_um, X_UM)
    np.testing.assert_allclose(found.y_um, Y_UM)
    assert found.pixel_size_um == pytest.approx(1.5)
    assert found.meta["pixel_size_y_um"] == pytest.approx(1.5)
    # The same maps are in the file in other forms too, which a NeXus reader may tell.
    assert all("read /entry/maps" in note for note in found.meta["notes"])
    photons = as_photons(found).maps
    np.testing.assert_allclose(photons, maps.estimate.values, rtol=1e-6)


@pytest.mark.parametrize("name", ["map.h5", "map.maps.h5", "map.pyxrf.h5"])
def test_rows_keep_their_oblong_pixels(name: str, tmp_path: Path) -> None:
    maps = measured_rows()
    found = read_layouts(export_map(maps, tmp_path / name), name)
    assert (found.pixel_size_um, found.meta["pixel_size_y_um"]) == pytest.approx((1.5, 3.0))
    assert found.maps.shape == (3, 6, 20)


def test_maps_files_have_the_names_of_version_9_and_10(tmp_path: Path) -> None:
    maps = enhanced()
    rates = maps.estimate.values / 0.02
    with h5py.File(export_map(maps, tmp_path / "map.maps.h5")) as file:
        group = file["MAPS"]
        fits = [f"XRF_Analyzed/{name}/Counts_Per_Sec" for name in ("Fitted", "NNLS", "ROI")]
        for place in (*fits, "XRF_fits", "XRF_roi", "XRF_roi_plus"):
            np.testing.assert_allclose(group[place][:], rates, rtol=1e-6)
        for place in ("channel_names", "XRF_Analyzed/Fitted/Channel_Names"):
            assert texts(group[place]) == ELEMENTS
        assert group["channel_units"].shape == (4, 3)
        for place in ("x_axis", "Scan/x_axis"):
            np.testing.assert_allclose(group[place][:] * 1e3, X_UM, atol=1e-6)
            assert group[place].attrs["units"] == "mm"
        np.testing.assert_allclose(group["y_axis"][:] * 1e3, Y_UM, atol=1e-6)
        scalers = dict(zip(texts(group["scaler_names"]), group["scalers"][:], strict=True))
        np.testing.assert_allclose(scalers["ELT1"], 0.02)
        np.testing.assert_allclose(scalers["Zn_sigma"], maps.sigma.values[1] / 0.02, rtol=1e-6)
        np.testing.assert_array_equal(scalers["Fe_trusted"], maps.trusted.values[0])


def test_maps_files_hold_counts_where_the_dwell_is_not_known(tmp_path: Path) -> None:
    path = export_map(enhanced(dwell_ms=None), tmp_path / "map.maps.h5")
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["MAPS/XRF_fits"][:], enhanced().estimate.values)
        assert set(texts(file["MAPS/channel_units"][3])) == {"counts"}
        assert "ELT1" not in texts(file["MAPS/scaler_names"])


def test_the_dwell_follows_from_rates_that_were_read(tmp_path: Path) -> None:
    path = export_map(
        enhanced(dwell_ms=None),
        tmp_path / "map.maps.h5",
        units=["counts/s"] * 3,
        photons=np.full(3, 0.02),
    )
    with h5py.File(path) as file:
        np.testing.assert_allclose(file["MAPS/scalers"][0], 0.02)
        expected = enhanced().estimate.values / 0.02
        np.testing.assert_allclose(file["MAPS/XRF_fits"][:], expected, rtol=1e-6)


def test_pyxrf_files_have_the_position_of_each_pixel(tmp_path: Path) -> None:
    maps = enhanced()
    with h5py.File(export_map(maps, tmp_path / "map.pyxrf.h5")) as file:
        group = file["xrfmap"]
        np.testing.assert_array_equal(group["detsum/xrf_fit"][:], maps.estimate.values)
        assert texts(group["detsum/xrf_fit_name"]) == ELEMENTS
        places = dict(zip(texts(group["positions/name"]), group["positions/pos"][:], strict=True))
        np.testing.assert_array_equal(places["x_pos"], np.tile(X_UM, (12, 1)))
        np.testing.assert_array_equal(places["y_pos"], np.tile(Y_UM[:, None], 20))
        metadata = group["scan_metadata"].attrs
        assert (metadata["param_fast_axis_units"], metadata["param_dwell"]) == ("um", 0.02)
        names = texts(group["scalers/name"])
        sigma = group["scalers/val"][..., names.index("Pb_L_sigma")]
        np.testing.assert_allclose(sigma, maps.sigma.values[2])


@pytest.mark.parametrize(
    ("path", "name"),
    [("a.h5", "nexus"), ("a.NXS", "nexus"), ("a.maps.h5", "maps"), ("a.pyxrf.h5", "pyxrf"),
     ("a.ome.tif", "ome-tiff"), ("a.tiff", "ome-tiff")],
)  # fmt: skip
def test_the_ending_stands_for_a_format(path: str, name: str) -> None:
    assert format_for(path) == name
    assert format_for("anything.dat", name) == name


def test_a_new_file_lies_beside_its_source_unless_it_is_named() -> None:
    source = Path("scans/one.mda")
    assert new_file(source, "_x2") == (Path("scans/one_x2.h5"), "nexus")
    assert new_file(source, "_x2", format="pyxrf") == (Path("scans/one_x2.pyxrf.h5"), "pyxrf")
    assert new_file(source, "_x2", Path("a.ome.tif")) == (Path("a.ome.tif"), "ome-tiff")
    assert new_file(source, "_x2", Path("a.h5"), "maps") == (Path("a.h5"), "maps")


def test_other_formats_are_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'nexus', 'maps', 'pyxrf' or 'ome-tiff'"):
        export_map(enhanced(), tmp_path / "map.h5", "png")
    with pytest.raises(ConfigError, match="the ending stands for no format"):
        export_map(enhanced(), tmp_path / "map.png")


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_cannot_be_written_leaves_the_old_one(name: str, tmp_path, monkeypatch) -> None:
    path = tmp_path / "map"
    path.write_text("old")

    def full(self, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space left"):
        export_map(enhanced(), path, name)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 7), (7, 1), (1, 1)])
def test_small_and_empty_maps_are_written_too(name: str, rows: int, columns: int, tmp_path) -> None:
    small = thin_grid(rows, columns)
    nothing = np.full((1, rows, columns), np.nan)
    maps = ElementalMaps.from_arrays(nothing, small, ["Fe Kα / total"])
    path = export_map(maps, tmp_path / f"map{FORMATS[name].suffixes[0]}")
    assert path.stat().st_size > 0
    if name == "nexus":
        with h5py.File(path) as file:
            image = default_plot(file)["Fe_K_total"]
            assert image.shape == (rows, columns)
            assert image.attrs["long_name"] == "Fe Kα / total (photons)"


def thin_grid(rows: int, columns: int) -> ScanGrid:
    return ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=columns, height_um=rows, step_um=1
    )


def test_a_pyxrf_file_stores_none_of_its_empty_spectra(tmp_path: Path) -> None:
    path = export_map(enhanced(), tmp_path / "map.pyxrf.h5")
    with h5py.File(path) as file:
        counts = file["xrfmap/detsum/counts"]
        assert counts.shape == (12, 20, 4096)
        assert counts.id.get_storage_size() == 0
        assert "no spectra" in counts.attrs["comments"]
