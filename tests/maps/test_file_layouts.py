"""MAPS, PyXRF, NeXus and npz in the layouts that beamlines write, each at its place."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files import ReadOptions, as_photons, read_maps

NY, NX = 9, 14
_NUMBER = np.arange(NY * NX, dtype=float).reshape(NY, NX)
# No symmetry, and every pixel of an element another number.
MAPS = np.stack([_NUMBER + 5, 1000 - 3 * _NUMBER, _NUMBER**1.5 + 1])
X = 1000 + 2.0 * np.arange(NX)
Y = -40 + 3.0 * np.arange(NY)
PLANES = np.stack(np.meshgrid(X, Y))
NAMES = ("Fe", "Zn", "Cu")


def texts(names):
    return np.array([name.encode() for name in names], "S256")


def assert_is(found, maps=MAPS, names=NAMES):
    assert found.elements == tuple(names)
    np.testing.assert_allclose(found.maps, maps, equal_nan=True)
    np.testing.assert_allclose(found.x_um, X, atol=0.01)
    np.testing.assert_allclose(found.y_um, Y, atol=0.01)
    assert (found.coverage > 0).tolist() == np.isfinite(found.maps[0]).tolist()


def write_maps(path, maps=MAPS, x=X, y=Y, *, place="XRF_Analyzed/NNLS/Counts_Per_Sec", scalers=()):
    with h5py.File(path, "w") as file:
        file[f"MAPS/{place}"] = maps
        older = "XRF_Analyzed" not in place
        names = "channel_names" if older else place.replace("Counts_Per_Sec", "Channel_Names")
        file[f"MAPS/{names}"] = texts(NAMES)
        file["MAPS/Scan/x_axis"], file["MAPS/Scan/y_axis"] = np.asarray(x), np.asarray(y)
        if scalers:
            file["MAPS/Scalers/Names"] = texts(name for name, _ in scalers)
            file["MAPS/Scalers/Values"] = np.stack([values for _, values in scalers])
    return path


@pytest.mark.parametrize(
    "place",
    [
        *(f"XRF_Analyzed/{kind}/Counts_Per_Sec" for kind in ("NNLS", "Fitted", "SVD", "ROI")),
        "XRF_Analyzed/Hybrid_NNLS/Counts_Per_Sec",
        "XRF_fits",
        "XRF_roi_plus",
        "XRF_roi",
    ],
)
def test_every_kind_of_fit_that_maps_has(tmp_path, place):
    assert_is(read_maps(write_maps(tmp_path / "a.h5", place=place)))


def test_fits_that_were_never_made_are_zeros_and_left_out(tmp_path):
    path = write_maps(tmp_path / "a.h5", place="XRF_roi")
    with h5py.File(path, "a") as file:
        file["MAPS/XRF_fits"] = np.zeros_like(MAPS)
    found = read_maps(path)
    assert_is(found)
    assert "MAPS/XRF_fits holds nothing but zeros: left out" in found.notes


def test_maps_in_mm_without_a_unit(tmp_path):
    found = read_maps(write_maps(tmp_path / "a.h5", x=X / 1e3, y=Y / 1e3))
    assert_is(found)
    assert "taken as mm" in found.notes[0]
    options = ReadOptions(axis_unit="um")
    assert read_maps(tmp_path / "a.h5", options=options).pixel_size_um == pytest.approx(0.002)


def test_descending_axes_and_axes_of_each_pixel(tmp_path):
    found = read_maps(write_maps(tmp_path / "a.h5", MAPS[:, ::-1, ::-1], X[::-1], Y[::-1]))
    assert_is(found)
    assert_is(read_maps(write_maps(tmp_path / "b.h5", x=PLANES[0], y=PLANES[1])))
    assert_is(read_maps(write_maps(tmp_path / "c.h5", np.moveaxis(MAPS, 0, 2))))


def test_rows_that_were_never_flown_are_not_measured(tmp_path):
    maps, y = MAPS.copy(), Y.copy()
    maps[:, -3:], y[-3:] = 0, 0
    expected = MAPS.copy()
    expected[:, -3:] = np.nan
    found = read_maps(write_maps(tmp_path / "a.h5", maps, y=y))
    assert_is(found, expected)
    assert "3 rows of zeros: not measured" in found.notes
    # An element that is absent from some rows says nothing of the others.
    maps = MAPS.copy()
    maps[0, 2:4] = 0
    assert_is(read_maps(write_maps(tmp_path / "b.h5", maps)), maps)


def test_scalers_are_the_monitor_and_the_live_time(tmp_path):
    i0, live_s = 1e5 + _NUMBER, np.full((NY, NX), 0.02)
    scalers = (("US_IC", i0[:, ::-1]), ("ELT1", live_s), ("SRcurrent", live_s))
    path = write_maps(tmp_path / "a.h5", MAPS[:, :, ::-1] / 0.02, X[::-1], scalers=scalers)
    found = read_maps(path)
    np.testing.assert_allclose(found.i0, i0)
    photons = as_photons(found)
    np.testing.assert_allclose(photons.maps, MAPS)


def test_counts_of_different_times_are_compared_by_them(tmp_path):
    live_s = np.full((NY, NX), 0.5)
    live_s[:, 0] = 1.2
    np.savez(tmp_path / "a.npz", maps=MAPS, elements=NAMES, units="counts", live_time_s=live_s)
    np.testing.assert_allclose(as_photons(read_maps(tmp_path / "a.npz")).meta["exposure"], live_s)
    np.savez(tmp_path / "a.npz", maps=MAPS, elements=NAMES, units="counts", live_time_s=0.5)
    assert "exposure" not in as_photons(read_maps(tmp_path / "a.npz")).meta


def write_pyxrf(path, maps=MAPS, planes=PLANES, *, unit="um", kind="xrf_fit", names=NAMES):
    with h5py.File(path, "w") as file:
        metadata = file.create_group("xrfmap/scan_metadata")
        metadata.attrs["param_fast_axis_units"] = metadata.attrs["param_slow_axis_units"] = unit
        file[f"xrfmap/detsum/{kind}"] = maps
        file[f"xrfmap/detsum/{kind}_name"] = texts(f"{name}_K" for name in names)
        file["xrfmap/positions/pos"] = planes
        file["xrfmap/positions/name"] = np.array([b"x_pos", b"y_pos"])
        file["xrfmap/scalers/name"] = np.array([b"i0", b"i0_time"])
        file["xrfmap/scalers/val"] = np.stack([_NUMBER, _NUMBER], axis=-1)
    return path


PYXRF = tuple(f"{name}_K" for name in NAMES)


@pytest.mark.parametrize(("unit", "scale"), [("um", 1.0), ("mm", 1e-3), ("nm", 1e3)])
@pytest.mark.parametrize("kind", ["xrf_fit", "xrf_roi"])
def test_pyxrf_says_the_unit_of_its_axes_in_its_metadata(tmp_path, unit, scale, kind):
    path = write_pyxrf(tmp_path / "a.h5", planes=PLANES * scale, unit=unit, kind=kind)
    found = read_maps(path)
    assert_is(found, names=PYXRF)
    np.testing.assert_allclose(found.i0, _NUMBER)


def test_pyxrf_rows_as_they_were_flown(tmp_path):
    planes, maps = PLANES.copy(), MAPS.copy()
    planes[0, 1::2], maps[:, 1::2] = planes[0, 1::2, ::-1], maps[:, 1::2, ::-1]
    assert_is(read_maps(write_pyxrf(tmp_path / "a.h5", maps, planes)), names=PYXRF)


def test_pyxrf_maps_below_a_photon_are_no_counts(tmp_path):
    found = read_maps(write_pyxrf(tmp_path / "a.h5", MAPS * 1e-9))
    with pytest.raises(FileFormatError, match="neither photons nor a rate"):
        as_photons(found)


def nexus(path, fill):
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        fill(entry)
    return path


def data_group(parent, name, signal, axes=("y", "x"), auxiliary=()):
    group = parent.create_group(name)
    group.attrs["NX_class"], group.attrs["signal"] = "NXdata", signal
    if axes:
        group.attrs["axes"] = list(axes)
        group["y"], group["x"] = Y / 1e3, X / 1e3
        group["y"].attrs["units"] = group["x"].attrs["units"] = "mm"
    if auxiliary:
        group.attrs["auxiliary_signals"] = list(auxiliary)
    return group


def test_nexus_with_the_elements_along_any_axis(tmp_path):
    for place in range(3):
        axes = ["y", "x"]
        axes.insert(place, "element")

        def fill(entry, place=place, axes=axes):
            group = data_group(entry, "maps", "data", axes)
            group["data"] = np.moveaxis(MAPS, 0, place)
            group["element"] = texts(NAMES)

        assert_is(read_maps(nexus(tmp_path / "a.nxs", fill)))


def test_nexus_with_a_group_for_each_element(tmp_path):
    def fill(entry):
        for name, values in zip(NAMES, MAPS, strict=True):
            data_group(entry, f"xrf/{name}-Ka", "data")["data"] = values

    found = read_maps(nexus(tmp_path / "a.nxs", fill))
    assert_is(found, MAPS[[0, 2, 1]], ("Fe-Ka", "Cu-Ka", "Zn-Ka"))


def test_nexus_of_the_older_form_and_positions_of_each_pixel(tmp_path):
    def older(entry):
        group = entry.create_group("FeKa")
        group.attrs["NX_class"] = "NXdata"
        group["data"] = MAPS[0]
        group["data"].attrs["signal"], group["data"].attrs["axes"] = 1, "y:x"
        group["y"], group["x"] = Y, X

    assert_is(read_maps(nexus(tmp_path / "a.nxs", older)), MAPS[:1], ("FeKa",))

    def planes(entry):
        group = data_group(entry, "xrf", "Fe", axes=(), auxiliary=NAMES[1:])
        group.attrs["axes"] = ["sample_y", "sample_x"]
        for name, values in zip(NAMES, MAPS, strict=True):
            group[name] = values
        group["sample_x"], group["sample_y"] = PLANES

    assert_is(read_maps(nexus(tmp_path / "b.nxs", planes)))


def test_pymca_results_are_read_and_never_their_uncertainties(tmp_path):
    def fill(entry):
        results = entry.create_group("fit/results")
        for name, scale in (("uncertainties", 0.1), ("parameters", 1.0), ("massfractions", 1e-9)):
            group = data_group(results, name, "Fe", auxiliary=NAMES[1:])
            for element, values in zip(NAMES, MAPS, strict=True):
                group[element] = scale * values
        for element in NAMES:
            results[f"parameters/{element}_errors"] = h5py.SoftLink(
                f"/entry/fit/results/uncertainties/{element}"
            )
        entry["plotselect"] = h5py.SoftLink("/entry/fit/results/parameters")

    path = nexus(tmp_path / "a.h5", fill)
    for default in (None, "plotselect"):
        if default:
            with h5py.File(path, "a") as file:
                file.attrs["default"], file["entry"].attrs["default"] = "entry", default
        found = read_maps(path)
        assert_is(found)
        assert found.meta["layout"] == "NXdata /entry/fit/results/parameters"
        assert found.meta["units"] == dict.fromkeys(NAMES, "counts")


def test_the_default_plot_is_the_one_that_silx_finds(tmp_path):
    get_default = pytest.importorskip("silx.io.nxdata").get_default

    def fill(entry):
        for name, scale in (("first", 2.0), ("second", 1.0)):
            group = data_group(entry, name, "Fe", auxiliary=NAMES[1:])
            for element, values in zip(NAMES, MAPS, strict=True):
                group[element] = scale * values
        entry.attrs["default"], entry.file.attrs["default"] = "second", "entry"

    path = nexus(tmp_path / "a.nxs", fill)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(get_default(file).signal, MAPS[0])
    assert_is(read_maps(path))


def test_spectra_without_names_are_refused(tmp_path):
    def fill(entry):
        data_group(entry, "spectra", "data", axes=())["data"] = np.ones((NY, NX, 64))

    with pytest.raises(FileFormatError, match=r"/entry/spectra/data has the shape \(9, 14, 64\)"):
        read_maps(nexus(tmp_path / "a.nxs", fill))


def test_npz_knows_both_steps_or_all_positions_and_planes_by_name(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, maps=MAPS, elements=NAMES, pixel_size_um=[3.0, 2.0])
    found = read_maps(path)
    assert (found.pixel_size_um, found.pixel_size_y_um) == (2.0, 3.0)
    np.savez(path, maps=MAPS[:, :, ::-1], elements=NAMES, x_um=X[::-1], y_um=Y)
    assert_is(read_maps(path))
    np.savez(path, maps=np.moveaxis(MAPS, 0, 2), elements=NAMES, x_um=X, y_um=Y)
    assert_is(read_maps(path))
    np.savez(path, **dict(zip(NAMES, MAPS, strict=True)), x_um=X, y_um=Y)
    assert_is(read_maps(path))


def test_monitors_are_no_elements():
    from xrf_sr_plans.maps.files.model import is_element

    assert not any(map(is_element, ("I0", "I1", "i0", "It", "COMPTON", "s(Fe_K)", "K1")))
    assert all(map(is_element, ("I", "I_L", "I127", "Fe57", "Zn66", "K_K", "Pb L3", "As-Kα1")))


BINS_KEV = 0.01 * np.arange(1200)


def spectra():
    """Spectra [bin, row, column] with the lines of iron and zinc, and nothing else."""
    found = np.zeros((BINS_KEV.size, NY, NX))
    found[640], found[641] = MAPS[0] * 0.5, MAPS[0] * 0.5
    found[864] = MAPS[1]
    return found


OF_SPECTRA = ReadOptions(elements=("Fe", "Zn"))


def test_spectra_are_cut_at_the_lines_of_elements_that_are_asked_for(tmp_path):
    pytest.importorskip("xraydb", reason="the extra 'files' is not installed")

    def fill(entry):
        group = data_group(entry, "spectra", "data", ("y", "x", "energy"))
        group["data"] = np.moveaxis(spectra(), 0, 2)
        group["energy"] = BINS_KEV * 1e3
        group["energy"].attrs["units"] = "eV"

    path = nexus(tmp_path / "a.nxs", fill)
    found = read_maps(path, options=OF_SPECTRA)
    assert_is(found, MAPS[:2], NAMES[:2])
    assert "lines that overlap are not separated" in found.notes[0]
    with pytest.raises(FileFormatError, match=r"the line of Pb at 10\.551 keV lies outside"):
        read_maps(
            write_pyxrf_spectra(tmp_path / "b.h5"),
            options=ReadOptions(elements=("Pb",), energy_kev=(0.0, 0.005)),
        )


def write_pyxrf_spectra(path):
    write_pyxrf(path)
    with h5py.File(path, "a") as file:
        del file["xrfmap/detsum/xrf_fit"]
        file["xrfmap/detsum/counts"] = np.moveaxis(spectra(), 0, 2)
    return path


def test_spectra_of_pyxrf_need_their_energies_from_the_user(tmp_path):
    pytest.importorskip("xraydb", reason="the extra 'files' is not installed")
    path = write_pyxrf_spectra(tmp_path / "a.h5")
    with pytest.raises(FileFormatError, match="or name elements"):
        read_maps(path)
    with pytest.raises(FileFormatError, match=r"--energy-kev 0,0\.01"):
        read_maps(path, options=OF_SPECTRA)
    options = ReadOptions(elements=("Fe", "Zn_K"), energy_kev=(0.0, 0.01))
    assert_is(read_maps(path, options=options), MAPS[:2], ("Fe", "Zn_K"))


def test_spectra_of_maps_have_their_energies(tmp_path):
    pytest.importorskip("xraydb", reason="the extra 'files' is not installed")
    path = write_maps(tmp_path / "a.h5")
    with h5py.File(path, "a") as file:
        del file["MAPS/XRF_Analyzed"]
        file["MAPS/Spectra/mca_arr"], file["MAPS/Spectra/Energy"] = spectra(), BINS_KEV
    assert_is(read_maps(path, options=OF_SPECTRA), MAPS[:2], NAMES[:2])


def write_larch(path, *, version=2, units="mm", y_first=False, rows=None):
    """Write a map of Larch; it fills rows up with zeros that it has not seen yet."""
    maps, planes = MAPS.copy(), PLANES / {"mm": 1e3, "um": 1.0}[units]
    if rows is not None:
        maps[:, rows:], planes[:, rows:] = 0, 0
    with h5py.File(path, "w") as file:
        root = file.create_group("xrmmap")
        root.attrs.update({"Type": "XRM 2D Map", "Version": f"{version}.0.0", "Last_Row": "8"})
        if version == 1:
            root["roimap/sum_raw"] = np.moveaxis(maps, 0, 2)
            root["roimap/sum_name"] = texts(f"{name} Ka" for name in NAMES)
        else:
            for detector, share in (("mcasum", 1.0), ("mca1", 0.75), ("mca2", 0.25)):
                for name, counts in zip(NAMES, maps, strict=True):
                    region = root.create_group(f"roimap/{detector}/{name} Ka")
                    region["raw"], region["cor"] = share * counts, 1.1 * share * counts
                    region["limits"] = [6.2, 6.6]
            root["scalars/I0"] = np.full((NY, NX), 1e5)
        names = ["Fine X", "Fine Y", "mca realtime"]
        stored = np.stack([*planes, np.full((NY, NX), 50.0)], axis=-1)
        order = [1, 0, 2] if y_first else [0, 1, 2]
        root["positions/pos"] = stored[:, :, order]
        root["positions/name"] = texts(names[place] for place in order)
        root["positions/units"] = texts([units, units, "ms"])
    return path


@pytest.mark.parametrize("known", [{}, {"version": 1}, {"units": "um"}, {"y_first": True}])
def test_maps_of_larch_in_both_of_its_versions(tmp_path, known):
    path = write_larch(tmp_path / "scan_001.h5", **known)
    names = [f"{name} Ka" for name in NAMES]
    for reader in (None, "larch"):
        found = read_maps(path, reader=reader)
        order = [found.elements.index(name) for name in names]
        np.testing.assert_allclose(found.maps[order], MAPS)
        np.testing.assert_allclose(found.x_um, X, atol=0.01)
        np.testing.assert_allclose(found.y_um, Y, atol=0.01)
        assert set(found.meta["units"].values()) == {"counts"}
        assert found.meta["reader"] == "larch"
        assert (found.i0 is None) == (known.get("version") == 1)


def test_the_detector_of_larch_is_added_up_where_its_sum_is_missing(tmp_path):
    path = write_larch(tmp_path / "scan_001.h5")
    with h5py.File(path, "a") as file:
        del file["xrmmap/roimap/mcasum"]
    found = read_maps(path)
    np.testing.assert_allclose(found.maps.sum(axis=0), MAPS.sum(axis=0))


def test_rows_that_larch_has_not_seen_yet_are_holes(tmp_path):
    found = read_maps(write_larch(tmp_path / "scan_001.h5", rows=6))
    assert np.isnan(found.maps[:, 6:]).all()
    assert np.isfinite(found.maps[:, :6]).all()


def test_a_map_of_larch_without_regions_is_refused_by_its_name(tmp_path):
    path = write_larch(tmp_path / "scan_001.h5")
    with h5py.File(path, "a") as file:
        del file["xrmmap/roimap"]
    with pytest.raises(FileFormatError, match=r"map of Larch \(/xrmmap\) without maps of regions"):
        read_maps(path)
