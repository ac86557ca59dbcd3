"""`as_photons`: the values of a map file as detected photons, or a refusal in words.

Everything that follows takes the values for photons: their counting noise, how much of the map is
structure, how wide the intervals are. So this is the door that a file's values pass first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.files.model import MapsFile
from xrf_sr_plans.maps.photon_step import photon_step
from xrf_sr_plans.maps.value_units import ValueUnit, value_unit

LONGEST_DWELL_MS = 1e7
"""Dwell time of a pixel above which the unit must be wrong: nearly three hours."""

SAME_TIME = 0.02
"""Relative spread of the times of pixels, up to which they count as the same."""


@dataclass(frozen=True, eq=False)
class Was:
    """In which units the values of a file were before they became photons.

    Parameters
    ----------
    units
        Unit of each element, as it is spelled in the file.
    photons
        Photons of a value of 1 in that unit (element,), in a pixel that was counted for the median
        of the live times.
    """

    units: tuple[str, ...]
    photons: np.ndarray


def units_of(file: MapsFile) -> list[ValueUnit]:
    """Return the unit of the values of each element."""
    units = file.meta.get("units")
    if isinstance(units, Mapping):
        return [value_unit(units.get(name)) for name in file.elements]
    return [value_unit(units)] * len(file.elements)


def as_photons(
    file: MapsFile, *, dwell_ms: float | None = None, units: str | None = None
) -> MapsFile:
    """Return a map file whose values are detected photons.

    Rates are multiplied by the time that each pixel was counted: the one that is given, the live
    time in the file, or the dwell time that the values themselves show (`maps.photon_step`). Values
    without unit count as photons, and a note says so. Anything else (concentrations, arbitrary
    units) is refused: how many photons a unit stands for differs from element to element, and the
    file doesn't say it.

    Parameters
    ----------
    file
        What `read_maps` returned.
    dwell_ms
        How long each pixel was counted, in ms. It replaces the live time in the file, and is
        needed for rates where the file has none and their steps don't show it.
    units
        Unit of all values. It replaces what the file says.

    Returns
    -------
    MapsFile
        Its ``units`` are photons. Two more entries of its `meta` lead back: ``was``, a `Was` with
        the units before, and, where each pixel was counted for a time of its own, ``exposure``,
        the times in seconds [row, column].

    Raises
    ------
    ConfigError
        The dwell is not above 0, or longer than `LONGEST_DWELL_MS`.
    FileFormatError
        The values are rates without a time, or neither photons nor rates. The message names the
        file, the elements, the unit and what to give.
    """
    path = file.meta.get("path", "the map")
    if dwell_ms is not None and not 0 < dwell_ms <= LONGEST_DWELL_MS:
        raise ConfigError(
            f"{path}: dwell_ms is {dwell_ms}; it must be above 0 and at most {LONGEST_DWELL_MS:g}"
        )
    each = units_of(file) if units is None else [value_unit(units)] * len(file.elements)
    _refuse_others(each, file.elements, path)
    notes = list(file.meta.get("notes", ()))
    if any(unit.kind == "missing" for unit in each):
        notes.append("values without unit: taken as photons")
    maps, exposure = file.maps, None
    # Photons of a value of 1 in a typical pixel (element,).
    photons = np.ones(len(each))
    if any(unit.kind == "rate" for unit in each):
        seconds, source = _seconds(file, dwell_ms, each, path)
        # (element, 1, 1), times seconds [row, column] or one number.
        per_s = np.array([unit.per_s if unit.kind == "rate" else np.nan for unit in each])
        factor = per_s[:, None, None] * seconds
        maps = maps * np.where(np.isnan(per_s)[:, None, None], 1.0, factor)
        exposure = seconds if seconds.ndim else None
        photons = np.where(np.isnan(per_s), 1.0, per_s * float(np.nanmedian(seconds)))
        notes.append(f"{_which(each, file.elements, 'rate')} turned into photons by {source}")
    elif dwell_ms is None and (times := _times_that_differ(file)) is not None:
        exposure = times
        notes.append("pixels were counted for different times: compared by them")
    was = Was(tuple(unit.name or "photons" for unit in each), photons)
    meta = {**file.meta, "units": "photons", "notes": notes, "was": was}
    if exposure is not None:
        meta["exposure"] = exposure
    return replace(file, maps=maps, meta=meta)


def unit_notes(file: MapsFile) -> list[str]:
    """Return what to tell where values that are no photons are used as proportions only."""
    each = units_of(file)
    return [
        f"{_which(each, file.elements, kind)}: only their proportions are used"
        for kind in ("rate", "other")
        if any(unit.kind == kind for unit in each)
    ]


def _refuse_others(each: Sequence[ValueUnit], elements: Sequence[str], path: str) -> None:
    if any(unit.kind == "other" for unit in each):
        raise FileFormatError(
            f"{path}: {_which(each, elements, 'other')} are neither photons nor a rate, and how"
            " many photons they stand for is not known: give the counts or the counts/s that they"
            " were made of, or, if they are photons, say so where they are enhanced"
            " (xrf-sr enhance --units counts; units='counts')"
        )


def _which(each: Sequence[ValueUnit], elements: Sequence[str], kind: str) -> str:
    """Return the elements whose unit is of a kind, and the units, in words."""
    chosen = [
        (name, unit.name) for name, unit in zip(elements, each, strict=True) if unit.kind == kind
    ]
    units = " and ".join(dict.fromkeys(repr(unit[:40]) for _, unit in chosen))
    names = [name for name, _ in chosen]
    shown = ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
    return f"values in {units} ({shown})"


def _seconds(
    file: MapsFile, dwell_ms: float | None, each: Sequence[ValueUnit], path: str
) -> tuple[np.ndarray, str]:
    """Return the time that pixels were counted, in s, and where it comes from in words."""
    if dwell_ms is not None:
        return np.array(dwell_ms / 1e3), f"the dwell of {dwell_ms:g} ms"
    says_nothing = ""
    if file.live_time is not None:
        place, seconds = file.live_time.place, np.asarray(file.live_time.seconds, dtype=float)
        # Without live time nothing was counted there.
        seconds = np.where((seconds > 0) & (seconds <= LONGEST_DWELL_MS / 1e3), seconds, np.nan)
        if np.isfinite(seconds).mean() > 0.5:
            median_ms = 1e3 * float(np.nanmedian(seconds))
            return seconds, f"the live time in {place!r} (median {median_ms:.4g} ms)"
        says_nothing = f", and {place!r} says nothing of it"
    dwell_s = _shown_by_steps(file, each)
    if dwell_s is not None:
        shown = f"a dwell of {dwell_s * 1e3:.4g} ms, since all of them are multiples of one photon"
        return np.array(dwell_s), f"{shown} in that time (give --dwell-ms if it was another)"
    raise FileFormatError(
        f"{path}: {_which(each, file.elements, 'rate')} are rates, not photons, and the file"
        f" doesn't say how long each pixel was counted{says_nothing}: give the dwell time"
        " (--dwell-ms; dwell_ms)"
    )


def _times_that_differ(file: MapsFile) -> np.ndarray | None:
    """Return how long each pixel was counted [row, column], where that is not the same for all."""
    if file.live_time is None or np.ndim(file.live_time.seconds) != 2:
        return None
    seconds = np.asarray(file.live_time.seconds, dtype=float)
    seconds = np.where((seconds > 0) & (seconds <= LONGEST_DWELL_MS / 1e3), seconds, np.nan)
    measured = np.isfinite(file.maps).any(axis=0)
    known = seconds[measured & np.isfinite(seconds)]
    if known.size < 0.9 * max(np.count_nonzero(measured), 1):
        return None
    return seconds if np.std(known) > SAME_TIME * np.mean(known) else None


def _shown_by_steps(file: MapsFile, each: Sequence[ValueUnit]) -> float | None:
    """Return the dwell time, in s, that the steps of the rates show; None where they don't."""
    per_s = [unit.per_s for unit in each if unit.kind == "rate"]
    if len(set(per_s)) > 1:
        return None
    rates = file.maps[[unit.kind == "rate" for unit in each]]
    step = photon_step(rates * per_s[0])
    return None if step is None or step < 1e3 / LONGEST_DWELL_MS else 1 / step
