"""Spectra at each point of an MDA file: scans of three dimensions, the innermost over energy bins.

The innermost scan has a detector for each element of the fluorescence detector, an mca record
(``mca1.VAL``). Its regions of interest have labels and limits among the process variables that were
saved besides (``mca1.R16NM``, ``R16LO``, ``R16HI``); else elements are cut out at their lines, by
the calibration of the record (``CALO``, ``CALS``, ``CALQ``) or by the energies that a user gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.mda import Mda, MdaScan
from xrf_sr_plans.maps.files.options import ReadOptions
from xrf_sr_plans.maps.files.spectra import HALF_WIDTH_KEV, NOTE, bins_kev, with_lines

_MCA = re.compile(r"(?P<mca>.*mca\d+)(?:\.VAL)?")
Windows = dict[str, dict[str, tuple[int, int]]]
"""First bin and the one behind the last, by mca record and by name of the region."""


def regions_of_points(
    mda: Mda,
    labels: Mapping[tuple[str, int], str],
    shown: str,
    options: ReadOptions,
    before: Callable[[int], None],
) -> tuple[list[str], np.ndarray, str, list[str]]:
    """Return names and maps [element, row, point] of regions of the spectra at the points.

    Parameters
    ----------
    mda
        What a file of three dimensions holds.
    labels
        Label of each region of interest, by mca record and number.
    shown
        The file, for messages.
    options
        What the user knows better than the file.
    before
        Called before each step, with the number of values that it is going to read.

    Returns
    -------
    tuple
        Names, maps, what was read, and notes.

    Raises
    ------
    FileFormatError
        The innermost scan is none over energy bins, or nothing says which bins are which element.
    """
    points = [point for row in mda.scan.inner if row is not None for point in row.inner]
    first = next((point for point in points if point is not None), None)
    if first is None:
        raise FileFormatError(f"{shown}: its scan {mda.scan.name!r} has no point with data")
    records = _records(first, mda, shown)
    windows = _by_elements(mda, records, first.num, shown, options) if options.elements else {}
    windows = windows or _by_labels(mda, records, labels, first.num)
    names = list(dict.fromkeys(name for of in windows.values() for name in of))
    if not names:
        raise FileFormatError(
            f"{shown}: has spectra of {first.num} bins at its points"
            f" ({', '.join(records.values())}), and nothing says which bins are which element: no"
            " labels (R*NM) with limits within them; name elements (--elements Fe,Zn)"
        )
    rows = mda.scan.inner
    maps = np.full((len(names), len(rows), max(row.num for row in rows if row is not None)), np.nan)
    for place, row in enumerate(rows):
        before(0 if row is None else row.num * first.num * len(records))
        for number, point in enumerate(() if row is None else row.inner[: maps.shape[2]]):
            if point is not None:
                maps[:, place, number] = _counts(point, records, windows, names)
    some = [name for name in names if any(name not in of for of in windows.values())]
    notes = [NOTE]
    if some:
        notes.append(f"{', '.join(some)}: regions of some of the {len(records)} detector elements")
    return names, maps, f"MDA {mda.scan.name}, {', '.join(records.values())}", notes


def limit_of(mda: Mda, name: str) -> int:
    """Return a number that was saved besides, as a whole one; -1 where there is none."""
    value = _number(mda, name)
    return -1 if value is None else int(value)


def _records(scan: MdaScan, mda: Mda, shown: str) -> dict[str, str]:
    """Return the mca records of the innermost scan, by the field of the detector."""
    found = {}
    for channel in scan.detectors:
        match = _MCA.fullmatch(channel.name)
        if match is not None:
            found[channel.field] = match["mca"]
    if not found:
        names = ", ".join(channel.name for channel in scan.detectors[:10]) or "none"
        moved = ", ".join(channel.name for channel in scan.positioners) or "nothing"
        raise FileFormatError(
            f"{shown}: a scan of three dimensions, the innermost of which ({scan.name!r}) moves"
            f" {moved} and reads {names}: no spectra (mca*.VAL); maps have two dimensions"
        )
    return found


def _counts(
    point: MdaScan, records: Mapping[str, str], windows: Windows, names: list[str]
) -> np.ndarray:
    """Return the counts of a point [element]; NaN where its spectrum is not whole."""
    counts = np.zeros(len(names))
    for channel in point.detectors:
        record = records.get(channel.field)
        for name, (first, end) in windows.get(record or "", {}).items():
            inside = channel.values[first:end]
            whole = inside.size == end - first
            counts[names.index(name)] += inside.sum(dtype=float) if whole else np.nan
    return counts


def _by_labels(
    mda: Mda, records: Mapping[str, str], labels: Mapping[tuple[str, int], str], bins: int
) -> Windows:
    found: Windows = {}
    for (mca, number), label in labels.items():
        low, high = (limit_of(mda, f"{mca}.R{number}{end}") for end in ("LO", "HI"))
        if mca in records.values() and 0 <= low <= high < bins:
            found.setdefault(mca, {})[label] = (low, high + 1)
    return found


def _by_elements(
    mda: Mda, records: Mapping[str, str], bins: int, shown: str, options: ReadOptions
) -> Windows:
    options = with_lines(options, shown)
    found: Windows = {}
    for mca in records.values():
        energies = _energies_kev(mda, mca, bins, shown, options)
        for element, line in zip(options.elements, options.lines_kev, strict=True):
            inside = np.flatnonzero(np.abs(energies - line) <= HALF_WIDTH_KEV)
            if not inside.size:
                raise FileFormatError(
                    f"{shown}: the line of {element} at {line:.3f} keV lies outside of the spectra"
                    f" of {mca}, {energies[0]:.3f} to {energies[-1]:.3f} keV"
                )
            found.setdefault(mca, {})[element] = (int(inside[0]), int(inside[-1]) + 1)
    return found


def _energies_kev(mda: Mda, mca: str, bins: int, shown: str, options: ReadOptions) -> np.ndarray:
    """Return the energy of each bin [bin], as the user or the record says it."""
    if options.energy_kev is not None:
        return bins_kev(bins, options.energy_kev)
    offset, slope, quadratic = (_number(mda, f"{mca}.CAL{which}") for which in "OSQ")
    if offset is None or not slope:
        raise FileFormatError(
            f"{shown}: the energies of the spectra of {mca} are not in the file (CALO, CALS): give"
            " that of bin 0 and the width of a bin (--energy-kev 0,0.01)"
        )
    number = np.arange(bins)
    energies = offset + slope * number + (quadratic or 0.0) * number**2
    if not (np.isfinite(energies).all() and (np.diff(energies) > 0).all()):
        raise FileFormatError(
            f"{shown}: the calibration of {mca} ({offset:g}, {slope:g}, {quadratic or 0:g}) makes"
            " no energies that rise from bin to bin: give --energy-kev"
        )
    return energies


def _number(mda: Mda, name: str) -> float | None:
    value = mda.extra.get(name)
    return float(value[0]) if isinstance(value, np.ndarray) and value.size else None
