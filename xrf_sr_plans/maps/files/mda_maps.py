"""Maps of an MDA file of 2-ID: regions of interest at each point, or cut out of raw spectra.

The sscan record keeps what its detectors said at each point. Where those were regions of interest
of an mca record (``mca1.R16``), their labels (``mca1.R16NM``: Fe Ka), which are saved besides, say
of which element. In a fly scan spectra are written into a file of their own beside this one
(``NAME_*.h5``, ``MAPS_RAW/data_a`` ... [energy bin, row, column] for each element of the
detector), and the same labels with their limits (``R16LO``, ``R16HI``) say where to cut. Elements
of the detector are added up, each by its own limits. Scans of three dimensions
have the spectra at their points (`mda_spectra`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.hdf5 import Hdf5File, is_numbers
from xrf_sr_plans.maps.files.mda import Mda, MdaChannel, read_mda
from xrf_sr_plans.maps.files.mda_spectra import limit_of, regions_of_points
from xrf_sr_plans.maps.files.model import FileAxis, LiveTime, MapsFile, build
from xrf_sr_plans.maps.files.options import ReadOptions

_ROI = re.compile(r"(?P<mca>.*mca\d+)\.R(?P<number>\d+)$")
_LABEL = re.compile(r"(?P<mca>.*mca\d+)\.R(?P<number>\d+)NM$")
_SPECTRA = ("data_a", "data_b", "data_c", "data_d")


def read_mda_maps(
    path: Path, shown: str, options: ReadOptions, before: Callable[[int], None]
) -> MapsFile:
    """Return the maps of an MDA file.

    Parameters
    ----------
    path
        The file.
    shown
        Its name in messages.
    options
        What the user knows better than the file.
    before
        Called before each step, with the number of values that it is going to read.

    Raises
    ------
    FileFormatError
        It is damaged, no scan of two dimensions, or holds neither regions of interest with labels
        nor spectra at its points.
    """
    mda = read_mda(path, shown, before)
    found = _regions_at_points(mda)
    live_time, notes = None, []
    if found is not None:
        names, maps, layout = found
    elif mda.scan.rank == 3:
        names, maps, layout, notes = regions_of_points(mda, labels_of(mda), shown, options, before)
    else:
        spectra = companion(path)
        if spectra is None:
            raise FileFormatError(
                f"{shown}: its scan {mda.scan.name!r} has no regions of interest (mca*.R*) with"
                f" labels (mca*.R*NM), and there are no spectra beside it ({path.stem}_*.h5)"
            )
        names, maps, layout, live_time, notes = _regions_of_spectra(mda, spectra, shown, before)
    axes, more = _axes(mda, shown)
    return build(
        maps,
        names,
        layout=layout,
        path=shown,
        axes=axes,
        options=options,
        units="counts",
        live_time=live_time,
        meta={"reader": "mda", "notes": [*notes, *more]},
    )


def companion(path: Path) -> Path | None:
    """Return the file of raw spectra of an MDA file, in its folder; None where there is none."""
    beside = sorted(path.parent.glob(f"{_escaped(path.stem)}_*.h5"))
    return beside[0] if beside else None


def _escaped(stem: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", stem)


def labels_of(mda: Mda) -> dict[tuple[str, int], str]:
    """Return the label of each region of interest, by mca record and number."""
    labels = {}
    for name, value in mda.extra.items():
        match = _LABEL.fullmatch(name)
        if match is not None and isinstance(value, str) and value.strip():
            labels[match["mca"], int(match["number"])] = value.strip()
    # A record may call "Fe" what the next one calls "Fe Ka".
    whole = set(labels.values())
    return {key: f"{name} Ka" if f"{name} Ka" in whole else name for key, name in labels.items()}


def _regions_at_points(mda: Mda) -> tuple[list[str], np.ndarray, str] | None:
    """Return names and maps [element, row, point] of regions that the scan itself has."""
    labels = labels_of(mda)
    rows = mda.scan.inner
    planes: dict[str, np.ndarray] = {}
    shape = (len(rows), max((row.num for row in rows if row is not None), default=0))
    for index, row in enumerate(rows):
        for channel in () if row is None else row.detectors:
            match = _ROI.fullmatch(channel.name.removesuffix(".VAL"))
            key = None if match is None else (match["mca"], int(match["number"]))
            if key is None or key not in labels:
                continue
            plane = planes.setdefault(labels[key], np.full(shape, np.nan))
            line = plane[index, : len(channel.values)]
            plane[index, : len(channel.values)] = np.nan_to_num(line) + channel.values
    if not planes:
        return None
    return list(planes), np.stack(list(planes.values())), f"MDA {mda.scan.name}, mca*.R*"


def _regions_of_spectra(
    mda: Mda, path: Path, shown: str, before: Callable[[int], None]
) -> tuple[list[str], np.ndarray, str, LiveTime | None, list[str]]:
    """Return names and maps [element, row, column] of regions cut out of raw spectra."""
    labels = labels_of(mda)
    records = sorted({mca for mca, _ in labels}, key=lambda name: (len(name), name))
    planes: dict[str, np.ndarray] = {}
    seen: Counter[str] = Counter()
    with Hdf5File(path, f"{shown} ({path.name})", before) as file:
        present = [file.find(f"MAPS_RAW/{name}") for name in _SPECTRA]
        used = [data for data in present if is_numbers(data)]
        if not used or not records or len(used) > len(records):
            raise FileFormatError(
                f"{shown}: {path.name} has the spectra of {len(used)} detector elements"
                f" (MAPS_RAW/data_a ...), and labels of regions are there for {len(records)}"
            )
        for record, data in zip(records, used, strict=False):
            spectra = file.numbers(data)
            if spectra.ndim != 3:
                raise FileFormatError(
                    f"{shown}: {data.name!r} in {path.name} has the shape {spectra.shape};"
                    " (energy bin, row, column) is needed"
                )
            for (mca, number), label in labels.items():
                if mca != record:
                    continue
                low, high = (limit_of(mda, f"{mca}.R{number}{end}") for end in ("LO", "HI"))
                if 0 <= low <= high < len(spectra):
                    counts = spectra[low : high + 1].sum(axis=0, dtype=float)
                    before_it = planes.get(label)
                    if before_it is not None and before_it.shape != counts.shape:
                        raise FileFormatError(
                            f"{shown}: {data.name!r} in {path.name} has another shape than the"
                            f" elements before it: {spectra.shape}"
                        )
                    seen[label] += 1
                    planes[label] = counts if before_it is None else before_it + counts
        live = file.find("MAPS_RAW/livetime")
        live_time = None
        if is_numbers(live) and live.ndim == 3:
            seconds = file.numbers(live)[: len(used)].mean(axis=0)
            live_time = LiveTime(seconds, "MAPS_RAW/livetime")
    if not planes:
        raise FileFormatError(f"{shown}: no region of interest lies within the spectra")
    some = [name for name, number in seen.items() if number < len(used)]
    notes = ["regions of interest of raw spectra: lines that overlap are not separated"]
    if some:
        notes.append(
            f"{', '.join(some)}: regions of some of the {len(used)} detector elements only"
        )
    layout = f"{path.name} MAPS_RAW"
    return list(planes), np.stack(list(planes.values())), layout, live_time, notes


def _axes(mda: Mda, shown: str) -> tuple[dict[str, FileAxis], list[str]]:
    """Return the positions of each point [row, point] along x and y."""
    outer, rows = mda.scan, mda.scan.inner
    first = next((row for row in rows if row is not None and row.positioners), None)
    if first is None or not outer.positioners:
        raise FileFormatError(f"{shown}: its scan {outer.name!r} moved nothing: no positioners")
    num = max(row.num for row in rows if row is not None)
    fast = np.full((len(rows), num), np.nan)
    for line, row in zip(fast, rows, strict=True):
        if row is not None and row.positioners:
            values = row.positioners[0].values[:num]
            line[: len(values)] = values
    slow = np.full(len(rows), np.nan)
    values = outer.positioners[0].values
    slow[: len(values)] = values
    along, across = first.positioners[0], outer.positioners[0]
    # The motors of a map are of one kind: a positioner without unit has that of the other.
    units = {"along": along.unit or across.unit, "across": across.unit or along.unit}
    notes = []
    if bool(along.unit) != bool(across.unit):
        bare = across if along.unit else along
        notes.append(f"positioner {bare.name!r} has no unit: taken as {units['along']}")
    slow_plane = np.repeat(slow[:, None], num, axis=1)
    fast_axis = FileAxis(fast, units["along"], along.name)
    slow_axis = FileAxis(slow_plane, units["across"], across.name)
    if _letter(along) == "y" and _letter(across) == "x":
        return {"x": slow_axis, "y": fast_axis}, notes
    return {"x": fast_axis, "y": slow_axis}, notes


def _letter(channel: MdaChannel) -> str:
    """Return x or y where the description of a positioner names one of them; else ""."""
    words = re.findall(r"[a-z]+", channel.description.lower())
    named = {word for word in words if word in ("x", "y")}
    return named.pop() if len(named) == 1 else ""
