"""Open exported maps with the programs they are for, and check what those find.

Run it with a Python that has the programs (``scripts/check_exports.sh`` makes one)::

    python scripts/check_exports.py make FOLDER    # with this package
    python scripts/check_exports.py check FOLDER   # with the programs

Each line says what a program found. A program that isn't installed is left out, and said so. The
exit code is 1 where anything is wrong.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

ELEMENTS = ["Fe", "Zn", "Pb_L"]
COLUMNS, ROWS, STEP_UM, X_UM, Y_UM, DWELL_S = 20, 12, 1.5, 1000.25, -40.5, 0.02
NAMES = {"enhanced": "estimate", "composite": "value", "rows": "counts"}


def pattern(rows: int = ROWS) -> np.ndarray:
    """Return photons (element, y, x), all different within an element."""
    y, x = np.indices((rows, COLUMNS))
    return np.stack([100.0 * (index + 1) * y + x + 1 for index in range(len(ELEMENTS))])


def make(folder: Path) -> None:
    """Write an enhanced map, a composite one and a map of rows in all formats."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from support.maps_to_export import composite, enhanced, measured_rows
    from xrf_sr_plans.store.exports import FORMATS, export_map

    folder.mkdir(parents=True, exist_ok=True)
    for name, maps in {
        "enhanced": enhanced(),
        "composite": composite(),
        "rows": measured_rows(),
    }.items():
        for format_name, one in FORMATS.items():
            export_map(maps, folder / f"{name}{one.suffixes[0]}", format_name)


def near(found: object, expected: object, what: str) -> None:
    """Raise AssertionError where two arrays differ by more than rounding (NaN: not measured)."""
    found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    if found.shape != expected.shape:
        raise AssertionError(f"{what}: shape {found.shape}, expected {expected.shape}")
    measured = np.isfinite(found)
    if measured.mean() < 0.9 or not np.allclose(found[measured], expected[measured], rtol=1e-5):
        raise AssertionError(f"{what}: {found.ravel()[:4]}, expected {expected.ravel()[:4]}")


def axes(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the centers along y and x of the map with so many rows."""
    return Y_UM + STEP_UM * ROWS / rows * np.arange(rows), X_UM + STEP_UM * np.arange(COLUMNS)


def rows_of(name: str) -> int:
    """Return how many rows a map has: those of rows lie twice as far apart as its pixels."""
    return ROWS // 2 if name == "rows" else ROWS


def silx(folder: Path, name: str) -> str:
    """Let silx find the default plot, as `silx view` does."""
    import silx.io
    from silx.io import nxdata

    with silx.io.open(str(folder / f"{name}.h5")) as file:
        data = nxdata.get_default(file)
        assert data is not None, "no default plot"
        assert data.is_valid, data.issues
        assert data.is_image, f"a plot of {data.signal_ndim} dimensions"
        near(data.signal[()], pattern(rows_of(name))[0], "signal")
        for axis, expected in zip(data.axes, axes(rows_of(name)), strict=True):
            near(axis[()], expected, "axis")
        assert list(data.auxiliary_signals_dataset_names) == ELEMENTS[1:]
        if name != "rows":
            near(data.errors[()] ** 2, pattern()[0], "errors")
        for group in (*(f"entry/{element}" for element in ELEMENTS), f"entry/{kind_of(name)}"):
            assert nxdata.is_valid_nxdata(file[group]), f"{group} is no valid NXdata"
        return f"image of {data.signal_dataset_name}, with {data.auxiliary_signals_names}"


def kind_of(name: str) -> str:
    """Return the name of the group that has all elements in one array."""
    return "measured" if name == "rows" else name


def nexusformat(folder: Path, name: str) -> str:
    """Let nexusformat, which NeXpy is made of, find the default plot."""
    import nexusformat.nexus as nx

    root = nx.nxload(str(folder / f"{name}.h5"))
    data = root.plottable_data
    assert data is not None, "no plottable data"
    assert data.is_plottable(), "not plottable"
    assert data.plot_rank == 2, f"a plot of {data.plot_rank} dimensions"
    near(data.nxsignal.nxvalue, pattern(rows_of(name))[0], "signal")
    for axis, expected in zip(data.nxaxes, axes(rows_of(name)), strict=True):
        near(axis.nxvalue, expected, "axis")
        assert axis.units == "um", axis.units
    if name != "rows":
        near(np.asarray(data.nxerrors.nxvalue) ** 2, pattern()[0], "errors")
    # What NeXpy shows beside the plot, which reads every group.
    assert "process:NXprocess" in root.tree
    stack = root["entry"][kind_of(name)]
    near(stack.nxsignal.nxvalue, pattern(rows_of(name)), "all elements")
    return f"plots {data.nxsignal.nxname} in {data.nxsignal.units}"


def scippnexus(folder: Path, name: str) -> str:
    """Load the array of all elements with scippnexus."""
    import scippnexus as sx

    with sx.File(str(folder / f"{name}.h5")) as file:
        data = file["entry"]["maps"][...]
        near(
            data[ELEMENTS[1]].values if ELEMENTS[1] in data else data.values,
            pattern(rows_of(name))[1],
            "map",
        )
        near(data.coords["x"].values, axes(rows_of(name))[1], "axis")
        return f"{type(data).__name__} of {dict(data.sizes)}"


def pymca(folder: Path, name: str) -> str:
    """Let PyMca find the maps, as its ROI imaging and RGB correlator do."""
    from PyMca5.PyMcaCore import NexusTools
    from PyMca5.PyMcaIO import NexusUtils
    from silx.io import nxdata
    from silx.io import open as open_file

    # What its file tree and its RGB correlator use.
    with open_file(str(folder / f"{name}.h5")) as file:
        assert "/entry/maps" in NexusTools.getNXdataList(file, "/entry")
        assert NexusTools.getTitle(file, "/entry")
        plot = nxdata.get_default(file)
        assert plot is not None, "no default plot"
        maps = NexusUtils.selectDatasets(plot.group, match=lambda one: one.ndim in (1, 2))
        assert [one.name.split("/")[-1] for one in maps] == ELEMENTS
        for one, expected in zip(maps, pattern(rows_of(name)), strict=True):
            near(one[()], expected, one.name)
        return f"maps {[one.name for one in maps]}"


def pyxrf(folder: Path, name: str) -> str:
    """Load a file into PyXRF as its window does when it is opened there."""
    from pyxrf.model.fileio import FileIOModel, read_hdf_APS

    path = folder / f"{name}.pyxrf.h5"
    images, spectra, metadata = read_hdf_APS(str(folder), path.name)
    fitted = images[f"{name}_fit"]
    for element, expected in zip(ELEMENTS, pattern(rows_of(name)), strict=True):
        near(fitted[element], expected, element)
    y_um, x_um = axes(rows_of(name))
    near(images["positions"]["x_pos"], np.tile(x_um, (len(y_um), 1)), "x")
    near(images["positions"]["y_pos"], np.tile(y_um[:, None], len(x_um)), "y")
    assert metadata["param_fast_axis_units"] == "um"
    model = FileIOModel(working_directory=str(folder))
    model.file_path = str(path)
    assert any(key.endswith("_fit") for key in model.img_dict), list(model.img_dict)
    return f"{len(ELEMENTS)} fitted maps, {len(spectra)} set of spectra"


def tifffile(folder: Path, name: str) -> str:
    """Read an OME-TIFF with tifffile, and its metadata with ome-types."""
    import ome_types
    import tifffile

    path = folder / f"{name}.ome.tif"
    with tifffile.TiffFile(path) as file:
        assert file.is_ome, "no OME-TIFF"
        first = file.series[0]
        assert (first.axes, first.name) == ("CYX", NAMES[name]), (first.axes, first.name)
        near(first.asarray(), pattern(rows_of(name)), "map")
        images = [series.name for series in file.series]
    told = ome_types.from_tiff(path)
    pixels = told.images[0].pixels
    assert [channel.name for channel in pixels.channels] == ELEMENTS
    sizes = (pixels.physical_size_x, pixels.physical_size_y)
    near(sizes, (STEP_UM, STEP_UM * ROWS / rows_of(name)), "pixel sizes")
    assert pixels.physical_size_x_unit.value == "µm"
    near((pixels.planes[0].position_x, pixels.planes[0].position_y), (X_UM, Y_UM), "positions")
    return f"images {images}"


def maps_file(folder: Path, name: str) -> str:
    """Read a MAPS file by the names that scripts for versions 9 and 10 use."""
    import h5py

    with h5py.File(folder / f"{name}.maps.h5", "r") as file:
        maps = file["MAPS"]
        for values, names in (
            ("XRF_fits", "channel_names"),
            ("XRF_roi", "channel_names"),
            ("XRF_Analyzed/NNLS/Counts_Per_Sec", "XRF_Analyzed/NNLS/Channel_Names"),
        ):
            assert [text.decode() for text in maps[names]] == ELEMENTS
            near(maps[values][:] * DWELL_S, pattern(rows_of(name)), values)
        near(maps["x_axis"][:] * 1e3, axes(rows_of(name))[1], "x in mm")
        near(maps["y_axis"][:] * 1e3, axes(rows_of(name))[0], "y in mm")
        return f"version {maps['version'][0]:g}, {maps['scalers'].shape[0]} scalers"


PROGRAMS: dict[str, tuple[str, Callable[[Path, str], str]]] = {
    "silx": ("silx", silx),
    "nexusformat": ("nexusformat", nexusformat),
    "scippnexus": ("scippnexus", scippnexus),
    "PyMca": ("PyMca5", pymca),
    "PyXRF": ("pyxrf", pyxrf),
    "OME-TIFF": ("ome_types", tifffile),
    "MAPS": ("h5py", maps_file),
}
"""What must be importable for a check, and the check, by the name of the program."""


def check(folder: Path) -> bool:
    """Run all checks; return whether none failed."""
    good = True
    for program, (module, found) in PROGRAMS.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            print(json.dumps({"program": program, "left out": str(error)}))
            continue
        for name in NAMES:
            try:
                line = {"program": program, "map": name, "found": found(folder, name)}
            except Exception as error:  # noqa: BLE001  another program's error is what this is about
                good = False
                line = {
                    "program": program,
                    "map": name,
                    "WRONG": f"{type(error).__name__}: {error}",
                }
            print(json.dumps(line, ensure_ascii=False))
    return good


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        make(where)
    elif not check(where):
        raise SystemExit(1)
