"""MAPS HDF5 (APS): the layout of XRF-Maps ("v10") and the older one ("v9")."""

from __future__ import annotations

from xrf_sr_plans.maps.files.hdf5 import Hdf5File, is_numbers, is_texts
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions

CANDIDATES = (
    ("MAPS/XRF_Analyzed/NNLS/Counts_Per_Sec", "MAPS/XRF_Analyzed/NNLS/Channel_Names"),
    ("MAPS/XRF_Analyzed/Fitted/Counts_Per_Sec", "MAPS/XRF_Analyzed/Fitted/Channel_Names"),
    ("MAPS/XRF_Analyzed/ROI/Counts_Per_Sec", "MAPS/XRF_Analyzed/ROI/Channel_Names"),
    ("MAPS/XRF_fits", "MAPS/channel_names"),
    ("MAPS/XRF_roi", "MAPS/channel_names"),
)
"""Where maps and their channel names may be, the best first.

A fit separates overlapping lines, which regions of interest don't.
"""

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
    for values, names in CANDIDATES:
        found, named = file.find(values), file.find(names)
        if found is not None and named is not None:
            break
    else:
        return None
    maps = file.numbers(found)
    return build(
        maps,
        _names(file.texts(named), maps.shape),
        layout=values,
        path=file.shown,
        axes=_axes(file),
        options=options,
        units=_units(file, names),
        live_time=_live_time(file),
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
    for values, names in SCALERS:
        scalers, named = file.find(values), file.find(names)
        if not is_numbers(scalers) or not is_texts(named) or scalers.ndim != 3:
            continue
        # One for each element of the detector: ELT1, ELT2 ...
        chosen = [
            index
            for index, name in enumerate(file.texts(named)[: len(scalers)])
            if name.strip().upper().startswith("ELT")
        ]
        if chosen:
            return LiveTime(file.numbers(scalers)[chosen].mean(axis=0), f"{values}, ELT")
    return None


def _axes(file: Hdf5File) -> dict[str, FileAxis]:
    axes = {}
    for name in "xy":
        for place in (f"MAPS/Scan/{name}_axis", f"MAPS/{name}_axis"):
            axis = file.find(place)
            if axis is not None:
                centers = file.numbers(axis)
                axes[name] = FileAxis(centers, file.attribute(axis, "units"), place)
                break
    return axes
