"""HDF5 files of all layouts, and ways to damage them, for `mutations.py`."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from mutating import Rng, Subject, mutated_bytes, pick

from xrf_sr_plans.maps.files import read_maps
from xrf_sr_plans.maps.files.hdf5_layouts import read_layouts

COUNTS = np.random.default_rng(0).poisson(20, (3, 12, 16)).astype("f4")
NAMES = np.array([b"Fe", b"Zn", b"Pb_L"])
PUBLIC_EVERY = 100
"""One in so many HDF5 files is read as users read it, in a process of its own; the others here."""


def hdf5_families(folder: Path) -> dict[str, list[Subject]]:
    """Return the files of each family of HDF5, as the old and the new format of the library."""
    fillers: dict[str, list[Callable[[h5py.File], None]]] = {
        "MAPS": [_maps],
        "PyXRF": [_pyxrf_sum, _pyxrf_elements],
        "NeXus": [_nexus],
        "PyMca HDF5": [_pymca],
        "Larch": [_larch],
    }
    families: dict[str, list[Subject]] = {}
    for name, fills in fillers.items():
        home = folder / name
        home.mkdir()
        read = hdf5_reader(home / "maps.h5")
        for fill in fills:
            for version in ("earliest", "latest"):
                content = io.BytesIO()
                with h5py.File(content, "w", libver=version) as file:
                    fill(file)
                subject = Subject(name, content.getvalue(), read, mutated_hdf5, is_hdf5=True)
                families.setdefault(name, []).append(subject)
    return families


def _maps(file: h5py.File) -> None:
    place = file.create_group("MAPS/XRF_Analyzed/NNLS")
    place.create_dataset("Counts_Per_Sec", data=COUNTS, chunks=(1, 12, 16), compression=4)
    place["Channel_Names"] = NAMES
    for name, num in (("x", 16), ("y", 12)):
        file[f"MAPS/Scan/{name}_axis"] = 0.5 * np.arange(num)
        file[f"MAPS/Scan/{name}_axis"].attrs["units"] = "mm"


def _pyxrf_sum(file: h5py.File) -> None:
    file["xrfmap/detsum/xrf_fit"], file["xrfmap/detsum/xrf_fit_name"] = COUNTS, NAMES
    _pyxrf_positions(file)
    file["xrfmap/scalers/val"] = np.full((12, 16, 1), 1e5)
    file["xrfmap/scalers/name"] = np.array([b"i0"])
    about = file.create_group("xrfmap/scan_metadata")
    about.attrs["param_fast_axis_units"], about.attrs["param_dwell"] = "mm", 0.1


def _pyxrf_elements(file: h5py.File) -> None:
    for name in ("det1", "det2"):
        file[f"xrfmap/{name}/xrf_fit"] = COUNTS / 2
        file[f"xrfmap/{name}/xrf_fit_name"] = NAMES
    _pyxrf_positions(file)


def _pyxrf_positions(file: h5py.File) -> None:
    axes = np.broadcast_arrays(np.arange(16.0), np.arange(12.0)[:, None])
    file["xrfmap/positions/pos"] = np.stack(axes)
    file["xrfmap/positions/name"] = np.array([b"x_pos", b"y_pos"])


def _nexus(file: h5py.File) -> None:
    group = file.create_group("entry/maps")
    file.attrs["default"], file["entry"].attrs["default"] = "entry", "maps"
    group.attrs["NX_class"], group.attrs["signal"] = "NXdata", "data"
    group.attrs["axes"] = ["element", "y", "x"]
    group["data"] = COUNTS
    group["element"] = np.array([name.decode() for name in NAMES], dtype=object)
    group["x"], group["y"] = np.arange(16.0), np.arange(12.0)
    group["x"].attrs["units"] = group["y"].attrs["units"] = np.bytes_(b"um")
    file["entry/soft"] = h5py.SoftLink("/entry/maps")


def _pymca(file: h5py.File) -> None:
    entry = file.create_group("scan1")
    file.attrs["NX_class"], entry.attrs["NX_class"] = "NXroot", "NXentry"
    file.attrs["default"], entry.attrs["default"] = "scan1", "plotselect"
    results = entry.create_group("xrf_fit/results")
    names = [name.decode() for name in NAMES]
    for kind, planes in (("uncertainties", np.sqrt(COUNTS)), ("parameters", COUNTS)):
        group = results.create_group(kind)
        group.attrs["NX_class"], group.attrs["signal"] = "NXdata", names[0]
        group.attrs["auxiliary_signals"] = names[1:]
        for name, plane in zip(names, planes, strict=True):
            group[name] = plane
    for name in names:
        results[f"parameters/{name}_errors"] = h5py.SoftLink(f"{results.name}/uncertainties/{name}")
    entry["plotselect"] = h5py.SoftLink(f"{results.name}/parameters")


def _larch(file: h5py.File) -> None:
    root = file.create_group("xrmmap")
    root.attrs["Type"] = "XRM 2D Map"
    # HDF5 lists groups by their names.
    for name, counts in zip(("Fe Ka", "Pb La", "Zn Ka"), COUNTS, strict=True):
        root[f"roimap/mcasum/{name}/raw"] = counts
    axes = np.broadcast_arrays(np.arange(16.0), np.arange(12.0)[:, None])
    root["positions/pos"] = np.stack(axes, axis=-1)
    root["positions/name"] = np.array([b"Fine X", b"Fine Y"])
    root["positions/units"] = np.array([b"um", b"um"])


def hdf5_reader(path: Path) -> Callable[[bytes, bool], object]:
    """Return what reads a file here, or as users do."""

    def read(content: bytes, as_users: bool) -> object:
        path.write_bytes(content)
        if as_users:
            return read_maps(path)
        os.chdir(path.parent)
        return read_layouts(path, path.name)

    return read


def mutated_hdf5(rng: Rng, content: bytes) -> bytes:
    """Damage bytes, or members by way of h5py."""
    if rng.random() < 0.6:
        return mutated_bytes(rng, content)
    memory = io.BytesIO(content)
    with h5py.File(memory, "a") as file:
        members: list[str] = []
        file.visit(members.append)
        for _ in range(int(rng.integers(1, 3))):
            with contextlib.suppress(Exception):
                change_member(rng, file, pick(rng, members))
    return memory.getvalue()


def change_member(rng: Rng, file: h5py.File, name: str) -> None:
    """Put something else in the place of a group, a data set or an attribute."""
    way = int(rng.integers(5))
    if way == 0:
        del file[name]
    elif way == 1:
        link = (
            h5py.SoftLink("/"),
            h5py.SoftLink(f"/{name}"),
            h5py.SoftLink("/nowhere"),
            h5py.ExternalLink("/etc/passwd", "/x"),
            h5py.ExternalLink("none.h5", "/x"),
        )
        del file[name]
        file[name] = pick(rng, link)
    elif way == 2:
        del file[name]
        shape = pick(rng, ((), (0,), (0, 3, 4), (3, 12), (3, 12, 16), (1, 10**5, 10**5), (5,)))
        kind = pick(rng, ("f4", "f8", "u1", "i8", "S3", "S40000", "c8", "?", "V4"))
        file.create_dataset(name, shape=shape, dtype=kind)
    elif way == 3:
        del file[name]
        file[name] = pick(
            rng,
            (
                np.array(["a", "b"], dtype=h5py.string_dtype()),
                np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
                np.full((3, 12, 16), np.nan),
                np.full((3, 12, 16), -1.8e308),
                np.arange(3, dtype=h5py.enum_dtype({"A": 0, "B": 1, "C": 2})),
                h5py.Empty("f4"),
                np.array([b"\xff\xfe", b"Fe", b"Fe"]),
            ),
        )
    else:
        key = pick(rng, ("units", "signal", "axes", "NX_class", "default", "auxiliary_signals"))
        values = (
            "mm",
            "parsec",
            "",
            7,
            np.arange(3),
            ["a", "b"],
            b"\xff",
            h5py.Empty("S1"),
            file.ref,
            np.zeros(7000),
            "..",
            "/entry/maps",
            "x" * 60_000,
        )
        file[name].attrs[key] = pick(rng, values)
