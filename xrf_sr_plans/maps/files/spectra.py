"""Elemental maps out of spectra: the counts around an element's line, summed.

A region of interest separates no lines that overlap, and holds the background beneath the line.
It is what is left where nobody fitted the spectra, and only where the user names the elements.
Energies of lines are those of xraydb (Elam, Ravel and Sieber 2002, Radiat. Phys. Chem. 63, 121).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xrf_sr_plans.errors import FileFormatError, MissingExtraError
from xrf_sr_plans.maps.files.model import symbol
from xrf_sr_plans.maps.files.options import ReadOptions

HALF_WIDTH_KEV = 0.12
"""Half the width of a region: about the resolution of a silicon drift detector at iron."""

LARGEST_K_KEV = 20.0
"""Energy of the strongest K line above which an element is told by its L line, if none is named."""

NOTE = "regions of interest of raw spectra: lines that overlap are not separated"


def line_kev(element: str, owner: str) -> float:
    """Return the energy of the line by which an element is told.

    Parameters
    ----------
    element
        Fe, or with its line: Fe_K, Pb_L, Au_M.
    owner
        What has the spectra, for messages.

    Raises
    ------
    FileFormatError
        It is no element, or has no such line.
    MissingExtraError
        xraydb is not installed.
    """
    name = symbol(element)
    if not name:
        raise FileFormatError(f"{owner}: {element!r} is no element, such as Fe, Fe_K or Pb_L")
    try:
        import xraydb
    except ImportError as error:
        raise MissingExtraError("energies of lines", "files") from error
    asked = element.removeprefix(name).strip(" _-")[:1]
    lines = {"K": "Ka1", "L": "La1", "M": "Ma"}
    for shell in asked or "KLM":
        found = xraydb.xray_lines(name).get(lines[shell])
        if found is not None and (asked or found.energy / 1e3 <= LARGEST_K_KEV):
            return float(found.energy) / 1e3
    raise FileFormatError(f"{owner}: {element!r} has no line between 0 and {LARGEST_K_KEV:g} keV")


def with_lines(options: ReadOptions, owner: str) -> ReadOptions:
    """Return options that know the energies of the lines of their elements.

    They are looked up before a file is opened: loading the table takes longer than to read a file.

    Raises
    ------
    FileFormatError
        As `line_kev`.
    MissingExtraError
        xraydb is not installed.
    """
    if not options.elements or options.lines_kev:
        return options
    lines_kev = tuple(line_kev(element, owner) for element in options.elements)
    return replace(options, lines_kev=lines_kev)


def regions(
    spectra: np.ndarray, energies_kev: np.ndarray, options: ReadOptions, owner: str
) -> np.ndarray:
    """Return the counts of each element [element, row, column].

    Parameters
    ----------
    spectra
        Counts [energy bin, row, column].
    energies_kev
        Energy of each bin [energy bin], in keV.
    options
        The elements, and the energies of their lines.
    owner
        What has the spectra, for messages.

    Raises
    ------
    FileFormatError
        The energies don't rise bin by bin, or a line lies outside of them.
    MissingExtraError
        xraydb is not installed.
    """
    energies_kev = np.asarray(energies_kev, dtype=float)
    rises = energies_kev.ndim == 1 and len(energies_kev) == len(spectra) > 1
    if not rises or not (np.diff(energies_kev) > 0).all():
        raise FileFormatError(
            f"{owner}: the energies of its {len(spectra)} bins don't rise from bin to bin"
        )
    found = []
    options = with_lines(options, owner)
    for element, line in zip(options.elements, options.lines_kev, strict=True):
        if not energies_kev[0] <= line <= energies_kev[-1]:
            raise FileFormatError(
                f"{owner}: the line of {element} at {line:.3f} keV lies outside of its spectra,"
                f" {energies_kev[0]:.3f} to {energies_kev[-1]:.3f} keV"
            )
        inside = np.abs(energies_kev - line) <= HALF_WIDTH_KEV
        found.append(spectra[inside].sum(axis=0, dtype=float))
    return np.stack(found)


def bins_kev(number: int, energy_kev: tuple[float, float]) -> np.ndarray:
    """Return the energy of each bin, from that of bin 0 and the width of a bin, in keV."""
    offset, width = energy_kev
    return offset + width * np.arange(number)
