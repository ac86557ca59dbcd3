"""PyXRF HDF5 (NSLS-II): ``xrfmap/detsum/{xrf_fit, xrf_roi, ..._name}``, ``xrfmap/positions``."""

from __future__ import annotations

from typing import Any

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.spectra import NOTE, bins_kev, regions
from xrf_sr_plans.maps.units import unit_name

_AXES = ("fast", "slow")
_MONITORS = ("i0", "sclr1_ch4", "xbpm2_sum", "sclr_i0")


def read_pyxrf_h5(file: Hdf5File, options: ReadOptions | None = None) -> MapsFile | None:
    """Return the fitted maps of an open HDF5 file, or None where it isn't of this layout.

    The fits of the summed spectra are read where they are there, else the fits of each detector,
    added up; where nothing was fitted, sums over regions of interest.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The file holds spectra but no fitted maps, its arrays don't fit together, or its positions
        have an unknown unit.
    """
    scan = file.find("xrfmap")
    if scan is None:
        return None
    kind, fits = "", {}
    for kind in ("xrf_fit", "xrf_roi"):
        fits = _fits(file, scan, kind)
        if fits:
            break
    if not fits:
        return _of_spectra(file, options or ReadOptions())
    chosen = ["detsum"] if "detsum" in fits else list(fits)
    maps = file.numbers(fits[chosen[0]][0])
    names = file.texts(fits[chosen[0]][1])
    for name in chosen[1:]:
        more, named = file.numbers(fits[name][0]), file.texts(fits[name][1])
        if more.shape != maps.shape or named != names:
            raise FileFormatError(
                f"{file.shown}: xrfmap/{name}/{kind} has the shape {more.shape} for {named};"
                f" that of {chosen[0]} is {maps.shape} for {names}"
            )
        maps = maps + more
    return build(
        maps,
        names,
        layout=f"xrfmap/{'+'.join(chosen)}/{kind}",
        path=file.shown,
        axes=_axes(file),
        options=options,
        units=_unit(file, fits[chosen[0]][0], maps),
        live_time=_dwell(file),
        i0=_i0(file),
    )


def _of_spectra(file: Hdf5File, options: ReadOptions) -> MapsFile:
    """Return maps of the elements that are asked for, out of spectra that nobody fitted."""
    spectra = file.find("xrfmap/detsum/counts")
    if not is_numbers(spectra) or spectra.ndim != 3 or not options.elements:
        raise FileFormatError(
            f"{file.shown}: PyXRF file without fitted maps: looked for xrfmap/detsum/xrf_fit,"
            " xrf_roi and their names; fit the spectra in PyXRF first, or name elements"
            " (--elements Fe,Zn) to have the counts around their lines"
        )
    if options.energy_kev is None:
        raise FileFormatError(
            f"{file.shown}: the energies of its spectra are not in the file: give those of bin 0"
            " and the width of a bin (--energy-kev 0,0.01)"
        )
    counts = np.moveaxis(file.numbers(spectra), 2, 0)
    energies = bins_kev(len(counts), options.energy_kev)
    return build(
        regions(counts, energies, options, file.shown),
        options.elements,
        layout="xrfmap/detsum/counts",
        path=file.shown,
        axes=_axes(file),
        options=options,
        units="counts",
        live_time=_dwell(file),
        i0=_i0(file),
        meta={"notes": [NOTE]},
    )


def _fits(file: Hdf5File, scan: Any, kind: str) -> dict[str, tuple[Any, Any]]:
    """Return maps and names of each detector and of their sum, as far as they are there."""
    found = {}
    for name in file.members(scan) if hasattr(scan, "keys") else ():
        if name.startswith("det"):
            fit, named = file.find(f"{name}/{kind}", scan), file.find(f"{name}/{kind}_name", scan)
            if fit is not None and named is not None:
                found[name] = fit, named
    return found


def _unit(file: Hdf5File, fit: Any, maps: np.ndarray) -> str:
    """Return the unit of the maps.

    PyXRF itself writes none: its fits are areas of peaks, in counts. Maps that were normalised or
    quantified afterwards say nothing of it but by values below a single photon.
    """
    unit = unit_name(file.attribute(fit, "units"))
    if unit:
        return unit
    largest = float(np.max(np.nan_to_num(maps), initial=0.0))
    return "counts" if largest >= 1 or largest == 0 else f"no counts: at most {largest:.2g}"


def _i0(file: Hdf5File) -> np.ndarray | None:
    """Return the flux monitor among the scalers [row, column]."""
    values, named = file.find("xrfmap/scalers/val"), file.find("xrfmap/scalers/name")
    if not is_numbers(values) or not is_texts(named) or values.ndim != 3:
        return None
    for index, name in enumerate(file.texts(named)[: values.shape[2]]):
        if name.lower() in _MONITORS:
            return file.numbers(values)[..., index]
    return None


def _dwell(file: Hdf5File) -> LiveTime | None:
    """Return the dwell time in the scan's metadata; None where they have none."""
    metadata = file.find("xrfmap/scan_metadata")
    dwell_s = None if metadata is None else file.attribute(metadata, "param_dwell")
    if isinstance(dwell_s, int | float | np.number):
        return LiveTime(np.array(float(dwell_s)), "xrfmap/scan_metadata, param_dwell")
    return None


def _axes(file: Hdf5File) -> dict[str, FileAxis]:
    place = "xrfmap/positions/pos"
    measured, named = file.find(place), file.find("xrfmap/positions/name")
    if measured is None:
        return {}
    names = [] if named is None else file.texts(named)
    # One plane [row, column] of measured positions for each axis.
    positions = file.numbers(measured)
    if positions.ndim != 3 or positions.shape[0] < 2:
        return {}
    # By name, since the order of x and y differs between beamlines.
    y_first = bool(names) and "y" in names[0].lower()
    x, y = (positions[1], positions[0]) if y_first else (positions[0], positions[1])
    stored = file.attribute(measured, "units")
    units = dict.fromkeys("xy", stored) if stored is not None else _axis_units(file)
    return {"x": FileAxis(x, units["x"], place), "y": FileAxis(y, units["y"], place)}


def _axis_units(file: Hdf5File) -> dict[str, Any]:
    """Return the units of x and y in the scan's metadata, None where they have none."""
    metadata = file.find("xrfmap/scan_metadata")
    if metadata is None:
        return {"x": None, "y": None}
    fast, slow = (file.attribute(metadata, f"param_{axis}_axis_units") for axis in _AXES)
    fast = slow if fast is None else fast
    slow = fast if slow is None else slow
    if unit_name(fast) != unit_name(slow) and "y" in unit_name(
        file.attribute(metadata, "param_fast_axis")
    ):
        fast, slow = slow, fast
    return {"x": fast, "y": slow}
