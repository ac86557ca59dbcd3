"""Values of files become photons, or are refused: rates never pass for counts."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files import MapsFile, as_photons, read_maps
from xrf_sr_plans.maps.files.model import LiveTime
from xrf_sr_plans.maps.photon_step import photon_step
from xrf_sr_plans.maps.value_units import value_unit

COUNTS = np.random.default_rng(0).poisson(20, (2, 24, 32)).astype(float)
# As of a fit: no multiples of anything.
FITTED = COUNTS * 0.98 + np.random.default_rng(1).uniform(0, 0.5, COUNTS.shape)


def rates(maps=FITTED, dwell_s=0.01, units="counts/s", live_time=None) -> MapsFile:
    meta = {"path": "scan.h5", "units": units}
    return MapsFile(maps / dwell_s, ("Fe", "Zn"), 0.5, meta, live_time)


@pytest.mark.parametrize(
    ("unit", "per_s"),
    [("counts/s", 1), ("cts/s", 1), ("Counts_Per_Sec", 1), ("counts per second", 1), ("cps", 1),
     ("kcps", 1e3), ("Hz", 1), ("1/s", 1), ("s^-1", 1), ("counts s-1", 1), ("photons/ms", 1e3),
     ("counts/min", 1 / 60), (b"cts/s", 1), (np.array([b"ph/s"]), 1)],
)  # fmt: skip
def test_rates_are_told_in_whatever_way_they_are_spelled(unit, per_s) -> None:
    found = value_unit(unit)
    assert found.kind == "rate"
    assert found.per_s == pytest.approx(per_s)


@pytest.mark.parametrize("unit", ["counts", "Count", "cts", "photons", "raw counts", " counts\0"])
def test_photons_have_many_names(unit) -> None:
    assert value_unit(unit).kind == "photons"


@pytest.mark.parametrize(
    "unit", ["ug/cm2", "ug/cm^2", "ppm", "wt%", "%", "a.u.", "counts/m", "carat/s", "8-bit counts"]
)
def test_concentrations_and_arbitrary_units_are_neither(unit) -> None:
    assert value_unit(unit).kind == "other"


def test_rates_need_the_dwell_time_and_become_counts_with_it() -> None:
    with pytest.raises(
        FileFormatError, match=r"scan\.h5: values in 'counts/s' \(Fe, Zn\).*--dwell-ms; dwell_ms"
    ):
        as_photons(rates())
    found = as_photons(rates(), dwell_ms=10)
    np.testing.assert_allclose(found.maps, FITTED)
    assert found.meta["units"] == "photons"
    assert "a dwell of 10 ms" not in found.meta["notes"][-1]
    assert "by the dwell of 10 ms" in found.meta["notes"][-1]
    per_ms = as_photons(rates(FITTED, 10.0, "counts/ms"), dwell_ms=10)
    np.testing.assert_allclose(per_ms.maps, FITTED)


def test_the_live_time_in_the_file_is_used_pixel_by_pixel() -> None:
    live_s = np.random.default_rng(2).uniform(0.008, 0.01, COUNTS.shape[1:])
    live_s[3, 4] = 0
    with np.errstate(divide="ignore", invalid="ignore"):
        file = rates(FITTED, live_s, live_time=LiveTime(live_s, "Elapsed_Livetime"))
    file.maps[~np.isfinite(file.maps)] = 0
    found = as_photons(file)
    expected = FITTED.copy()
    expected[:, 3, 4] = np.nan
    np.testing.assert_allclose(found.maps, expected)
    np.testing.assert_allclose(found.meta["exposure"], np.where(live_s > 0, live_s, np.nan))
    assert "'Elapsed_Livetime' (median 9" in found.meta["notes"][-1]
    # Back again, for whoever writes a file in the unit of the one that was read.
    assert found.meta["was"].units == ("counts/s", "counts/s")
    np.testing.assert_allclose(found.meta["was"].photons, np.median(live_s[live_s > 0]))


@pytest.mark.parametrize("live_s", [0.0, np.nan, 1e30, np.zeros((24, 32)), np.full((24, 32), -1.0)])
def test_a_live_time_that_says_nothing_is_as_good_as_none(live_s) -> None:
    with pytest.raises(FileFormatError, match=r"'ELT1' says nothing of it: give the dwell time"):
        as_photons(rates(live_time=LiveTime(np.array(live_s), "ELT1")))


@pytest.mark.parametrize("dwell_s", [1.0, 0.01, 0.0037])
def test_rates_that_are_multiples_of_one_photon_show_their_dwell_time(dwell_s) -> None:
    single = (COUNTS / dwell_s).astype(np.float32).astype(float)
    found = as_photons(rates(single, 1.0))
    np.testing.assert_allclose(found.maps, COUNTS, rtol=1e-5)
    assert "multiples of one photon" in found.meta["notes"][-1]


def test_fine_structure_hides_no_photons() -> None:
    rng, axis = np.random.default_rng(0), np.arange(64)
    sharp = rng.poisson(np.where((axis[:, None] - axis) % 11 < 3, 100.0, 20.0)[None]).astype(float)
    sharp[:, 40:] = rng.poisson(30, sharp[:, 40:].shape)
    assert photon_step(sharp * 50) == pytest.approx(50)


def test_steps_that_are_no_photons_show_nothing() -> None:
    # Rates that were rounded to whole numbers: ten times as noisy as so many photons.
    assert photon_step(np.round(FITTED / 0.01)) is None
    # Expected values have no noise, and a few pixels can be multiples of 2 by chance.
    assert photon_step(np.full((1, 24, 32), 40.0)) is None
    assert photon_step(2 * COUNTS[:, :4, :4]) is None
    assert photon_step(COUNTS - 30) is None


def test_concentrations_are_refused_with_or_without_a_dwell() -> None:
    for dwell_ms in (None, 10.0):
        with pytest.raises(FileFormatError, match=r"scan\.h5: values in 'ug/cm2' \(Fe, Zn\)"):
            as_photons(rates(units="ug/cm2"), dwell_ms=dwell_ms)


def test_one_element_in_another_unit_is_named_and_converted_alone() -> None:
    mixed = {"Fe": "counts", "Zn": "ug/cm2"}
    with pytest.raises(FileFormatError, match=r"values in 'ug/cm2' \(Zn\)"):
        as_photons(rates(units=mixed), dwell_ms=10)
    found = as_photons(rates(FITTED, 1.0, {"Fe": "counts", "Zn": "counts/s"}), dwell_ms=500)
    np.testing.assert_allclose(found.maps[0], FITTED[0])
    np.testing.assert_allclose(found.maps[1], FITTED[1] / 2)
    np.testing.assert_allclose(found.meta["was"].photons, [1.0, 0.5])


def test_the_users_word_on_the_unit_counts_and_a_missing_one_is_told() -> None:
    found = as_photons(rates(FITTED, 1.0, "a.u."), units="counts")
    np.testing.assert_array_equal(found.maps, FITTED)
    assert found.meta["notes"] == []
    assert as_photons(rates(units="")).meta["notes"] == ["values without unit: taken as photons"]


@pytest.mark.parametrize("dwell_ms", [0.0, -1.0, np.nan, np.inf, 1e300])
def test_a_dwell_that_is_none_is_refused(dwell_ms) -> None:
    with pytest.raises(ConfigError, match=r"scan\.h5: dwell_ms is"):
        as_photons(rates(), dwell_ms=dwell_ms)


def test_an_archive_may_hold_units_by_element_and_its_dwell(tmp_path) -> None:
    path = tmp_path / "m.npz"
    units = ["counts/s", "counts"]
    np.savez(path, maps=FITTED, elements=["Fe", "Zn"], units=units, dwell_ms=500.0)
    found = as_photons(read_maps(path))
    np.testing.assert_allclose(found.maps[0], FITTED[0] / 2)
    np.testing.assert_allclose(found.maps[1], FITTED[1])
    assert "'dwell_ms' (median 500 ms)" in found.meta["notes"][-1]


def write_maps_h5(path, place, times=0.01, units=(b"cts/s", b"cts/s"), older=False):
    """A MAPS file with rates, and with the live time in one of the places where it may be."""
    live_s = np.full((24, 32), times)
    with h5py.File(path, "w") as file:
        if older:
            file["MAPS/XRF_roi"], file["MAPS/channel_names"] = FITTED / live_s, [b"Fe", b"Zn"]
            if units:
                file["MAPS/channel_units"] = np.array([units, [b"ug/cm^2"] * 2])
        else:
            group = file.create_group("MAPS/XRF_Analyzed/NNLS")
            group["Counts_Per_Sec"], group["Channel_Names"] = FITTED / live_s, [b"Fe", b"Zn"]
            if units:
                group["Channel_Units"] = np.array(units)
        if place == "spectra":
            file["MAPS/Spectra/Elapsed_Livetime"] = live_s
        elif place == "scalers":
            file["MAPS/Scalers/Names"] = np.array([b"US_IC", b"ELT1", b"ELT2"])
            file["MAPS/Scalers/Values"] = np.stack([live_s * 1e7, live_s, live_s])
        elif place == "old scalers":
            file["MAPS/scaler_names"] = np.array([b"us_ic", b"elt1"])
            file["MAPS/scalers"] = np.stack([live_s * 1e7, live_s])
    return path


@pytest.mark.parametrize("units", [(), (b"cts/s", b"cts/s")])
@pytest.mark.parametrize(
    ("place", "older"), [("spectra", False), ("scalers", False), ("old scalers", True)]
)
def test_maps_files_of_both_generations_give_photons_by_their_live_time(
    tmp_path, place, older, units
) -> None:
    found = as_photons(read_maps(write_maps_h5(tmp_path / "m.h5", place, units=units, older=older)))
    np.testing.assert_allclose(found.maps, FITTED)
    assert "(median 10 ms)" in found.meta["notes"][-1]


@pytest.mark.parametrize("older", [False, True])
def test_maps_files_without_a_live_time_are_refused(tmp_path, older) -> None:
    file = read_maps(write_maps_h5(tmp_path / "m.h5", "none", older=older))
    with pytest.raises(FileFormatError, match=r"m\.h5: values in 'cts/s' \(Fe, Zn\) are rates"):
        as_photons(file)
    np.testing.assert_allclose(as_photons(file, dwell_ms=10).maps, FITTED)


@pytest.mark.parametrize(
    ("units", "time", "time_units"),
    [(("counts/s", "counts/s"), 10.0, "ms"), (("cps", "cps"), 0.01, None),
     (("counts", "counts/s"), np.full((24, 32), 1e4), "us")],
)  # fmt: skip
def test_nexus_files_have_a_unit_for_each_signal_and_a_time(tmp_path, units, time, time_units):
    rates = [FITTED[k] / (1 if unit == "counts" else 0.01) for k, unit in enumerate(units)]
    with h5py.File(tmp_path / "m.nxs", "w") as file:
        group = file.create_group("entry/maps")
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "Fe"
        group.attrs["auxiliary_signals"] = ["Zn"]
        for name, plane, unit in zip(("Fe", "Zn"), rates, units, strict=True):
            group[name] = plane
            group[name].attrs["units"] = unit
        file["entry/count_time"] = time
        if time_units:
            file["entry/count_time"].attrs["units"] = time_units
    found = as_photons(read_maps(tmp_path / "m.nxs"))
    np.testing.assert_allclose(found.maps, FITTED)
    assert "'/entry/count_time' (median 10 ms)" in found.meta["notes"][-1]


def test_fits_of_pyxrf_are_counts_unless_they_say_otherwise(tmp_path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["xrfmap/detsum/xrf_fit"], file["xrfmap/detsum/xrf_fit_name"] = FITTED, [b"Fe", b"Zn"]
    assert as_photons(read_maps(tmp_path / "m.h5")).meta["units"] == "photons"
    with h5py.File(tmp_path / "m.h5", "a") as file:
        file["xrfmap/detsum/xrf_fit"].attrs["units"] = "ug/cm2"
    with pytest.raises(FileFormatError, match="ug/cm2"):
        as_photons(read_maps(tmp_path / "m.h5"))
