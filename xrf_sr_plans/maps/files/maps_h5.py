"""MAPS HDF5 (APS): the layout of XRF-Maps ("v10") and the older one ("v9")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.spectra import NOTE, bins_kev, regions
from xrf_sr_plans.maps.units import unit_name

CANDIDATES = (
    ("MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec", "MAPS/XRF_Analyzed/NNLS/Channel_Names"),
    ("MAPS/XRF_Analyzed/Fitted/Counts_Per_Sec", "MAPS/XRF_Analyzed/Fitted/Channel_Names"),
    ("MAPS/XRF_Analyzed/Hybrid_NNLS/Counts_Per_Sec", "MAPS/XRF_Analyzed/Hybrid_NNLS/Channel_Names"),
    ("MAPS/XRF_Analyzed/SVD/Counts_Per_Sec", "MAPS/XRF_Analyzed/SVD/Channel_Names"),
    ("MAPS/XRF_Analyzed/ROI/Counts_Per_Sec", "MAPS/XRF_Analyzed/ROI/Channel_Names"),
    ("MAPS/XRF_fits", "MAPS/channel_names"),
    ("MAPS/XRF_roi_plus", "MAPS/channel_names"),
    ("MAPS/XRF_roi", "MAPS/channel_names"),
)
"""Where maps and their channel names may be, the best first.

A fit separates overlapping lines, which regions of interest don't.
"""

SMALLEST_STEP_UM = 0.0095
"""Step below which positions without unit can't be in um: no probe for fluorescence is so small."""

SCALERS = (("MAPS/Scalers/Values", "MAPS/Scalers/Names"), ("MAPS/scalers", "MAPS/scaler_names"))
"""Where scalers and their names may be."""


def read_maps_h5(file: Hdf5File, options: ReadOptions | None = None) -> MapsFile | None:
    """Return the maps of an open HDF5 file, or None where it isn't of this layout.

    Parameters
    ----------
    file
        The open file.
    options
        What the user knows better than the file.

    Raises
    ------
    FileFormatError
        The arrays don't fit together, or an axis has an unknown unit.
    """
    notes: list[str] = []
    maps, values, names = None, "", ""
    for values, names in CANDIDATES:
        found, named = file.find(values), file.find(names)
        if not is_numbers(found) or named is None:
            continue
        maps = file.numbers(found)
        if maps.size and np.any(np.nan_to_num(maps)):
            break
        notes.append(f"{values} holds nothing but zeros: left out")
    if maps is None:
        return _of_spectra(file, options or ReadOptions())
    axes, unit_notes = _axes(file, options or ReadOptions())
    return build(
        maps,
        _names(file.texts(file.find(names)), maps.shape),
        layout=values,
        path=file.shown,
        axes=axes,
        options=options,
        units=_units(file, names),
        live_time=_live_time(file),
        i0=_i0(file),
        meta={"notes": [*notes, *unit_notes]},
    )


def _of_spectra(file: Hdf5File, options: ReadOptions) -> MapsFile | None:
    """Return maps of the elements that are asked for, out of spectra that nobody fitted."""
    spectra = file.find("MAPS/Spectra/mca_arr")
    if not is_numbers(spectra) or spectra.ndim != 3:
        return None
    if not options.elements:
        raise FileFormatError(
            f"{file.shown}: spectra without maps (MAPS/Spectra/mca_arr): fit them in XRF-Maps"
            " first, or name elements (--elements Fe,Zn) to have the counts around their lines"
        )
    counts, listed = file.numbers(spectra), file.find("MAPS/Spectra/Energy")
    if options.energy_kev is not None:
        energies = bins_kev(len(counts), options.energy_kev)
    elif is_numbers(listed):
        energies = np.ravel(file.numbers(listed))
    else:
        raise FileFormatError(
            f"{file.shown}: the energies of its spectra are not in the file: give those of bin 0"
            " and the width of a bin (--energy-kev 0,0.01)"
        )
    axes, unit_notes = _axes(file, options)
    return build(
        regions(counts, energies, options, file.shown),
        options.elements,
        layout="MAPS/Spectra/mca_arr",
        path=file.shown,
        axes=axes,
        options=options,
        units="counts",
        live_time=_live_time(file),
        i0=_i0(file),
        meta={"notes": [NOTE, *unit_notes]},
    )


def _names(texts: list[str], shape: tuple[int, ...]) -> list[str]:
    """Return the names of the channels; MAPS pads the list with others behind them."""
    if not shape or len(texts) in (shape[0], shape[-1]):
        return texts
    return texts[: shape[0]]


def _units(file: Hdf5File, names: str) -> str | list[str]:
    """Return the unit of each channel; MAPS has always divided by the live time."""
    place = names.replace("Channel_Names", "Channel_Units").replace("_names", "_units")
    found = file.find(place)
    if not is_texts(found):
        return "counts/s"
    # The older layout has more rows, with the units of quantified values.
    units = file.texts(found)[: found.shape[-1]]
    return [unit or "counts/s" for unit in units]


def _live_time(file: Hdf5File) -> LiveTime | None:
    """Return by what XRF-Maps divided the counts, or the live times among the scalers."""
    found = file.find("MAPS/Spectra/Elapsed_Livetime")
    if is_numbers(found):
        return LiveTime(file.numbers(found), "MAPS/Spectra/Elapsed_Livetime")
    # One for each element of the detector: ELT1, ELT2 ...
    chosen, place = _scalers(file, lambda name: name.startswith("ELT"))
    return None if chosen is None else LiveTime(chosen.mean(axis=0), f"{place}, ELT")


def _i0(file: Hdf5File) -> np.ndarray | None:
    """Return the ion chamber upstream of the sample [row, column]."""
    chosen, _ = _scalers(file, lambda name: name == "US_IC")
    return None if chosen is None else chosen[0]


def _scalers(file: Hdf5File, is_wanted: Callable[[str], bool]) -> tuple[np.ndarray | None, str]:
    """Return scalers [scaler, row, column] by their names, and where they are."""
    for values, names in SCALERS:
        scalers, named = file.find(values), file.find(names)
        if not is_numbers(scalers) or not is_texts(named) or scalers.ndim != 3:
            continue
        listed = file.texts(named)[: len(scalers)]
        chosen = [index for index, name in enumerate(listed) if is_wanted(name.strip().upper())]
        if chosen:
            return file.numbers(scalers)[chosen], values
    return None, ""


def _axes(file: Hdf5File, options: ReadOptions) -> tuple[dict[str, FileAxis], list[str]]:
    """Return the positions, and what was guessed of their unit.

    MAPS writes none. The motors of 2-ID-E are in mm, those of the Bionanoprobe in um; a step that
    is smaller than any probe tells mm.
    """
    axes = {}
    for name in "xy":
        for place in (f"MAPS/Scan/{name}_axis", f"MAPS/{name}_axis"):
            axis = file.find(place)
            if axis is not None:
                axes[name] = FileAxis(file.numbers(axis), file.attribute(axis, "units"), place)
                break
    if not axes or options.axis_unit or any(unit_name(axis.unit) for axis in axes.values()):
        return axes, []
    steps = [step for axis in axes.values() if (step := _step(axis.centers)) > 0]
    if not steps or min(steps) >= SMALLEST_STEP_UM:
        return axes, []
    note = (
        f"axes without unit and a step of {min(steps):.3g}: taken as mm (if it is another unit,"
        " give it: --axis-unit)"
    )
    return {name: replace(axis, unit="mm") for name, axis in axes.items()}, [note]


def _step(positions: np.ndarray) -> float:
    """Return the median distance of neighbours that differ; 0 where none do."""
    steps = np.concatenate(
        [np.abs(np.diff(positions, axis=axis)).ravel() for axis in range(positions.ndim)]
    )
    steps = steps[(steps > 0) & (steps < 1e30)]
    return float(np.median(steps)) if steps.size else 0.0
