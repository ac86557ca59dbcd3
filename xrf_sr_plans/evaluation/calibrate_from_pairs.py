"""A beamline's own pairs to a calibration of its own, beside a copy of the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import AssemblyError, ConfigError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import FACTORS, factor_not_allowed
from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.common_pixels import CommonPlanes, common_planes
from xrf_sr_plans.metrics.deconvolution import hidden_coverage
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.sr.intervals import Calibration, table_key, to_json
from xrf_sr_plans.sr.predict import enhance_maps
from xrf_sr_plans.sr.prepare import measurement_of
from xrf_sr_plans.sr.registry import model_path, read_calibration, read_card
from xrf_sr_plans.store.pairs import PairStore, StoredPair

STRETCHES = np.geomspace(0.1, 10.0, 21)
MOST_PIXELS = 4000
"""So many pixels of each map, evenly spread, are looked at."""
LEAST_PIXELS = 400
COUNTED_EVERY = 4
"""The coverage of the counts is computed on every so many pixels.

It takes long, and only its response to the width of the intervals matters.
"""
LEAST_RESPONSE = 0.01
"""Where coverage of the fine counts changes less than this between 0.8 and 1.25 times the right
width, their noise hides how wide the intervals should be."""
Curve = np.ndarray
"""Coverage at each of `STRETCHES`."""


@dataclass(frozen=True)
class MapCoverage:
    """What one fine map of one element says about the intervals.

    Parameters
    ----------
    counted
        Coverage of the fine counts by intervals widened by counting noise
        (`metrics.calibration.covered`).
    true
        Of what is behind the counts, as far as they tell (`metrics.deconvolution`).
    """

    pixels: int
    counted: Curve
    true: Curve


@dataclass(frozen=True)
class FactorReport:
    """What the pairs of one factor say.

    Parameters
    ----------
    factor
        Key of the tables of intervals (`sr.intervals.table_key`), such as "2" or "2 rows".
    maps, pairs, pixels
        How many maps of single elements, pairs and pixels it rests on.
    coverage_before, coverage_after
        Of the 90 % intervals, on the same pairs (in-sample).
    coverage_left_out
        On each pair with the stretch from the others; NaN with fewer than two pairs.
    stretch
        By which the intervals are widened; 1 where it can't be told, and `reason` says why.
    """

    factor: str
    maps: int
    pairs: int
    pixels: int
    coverage_before: float
    coverage_after: float
    coverage_left_out: float
    stretch: float
    reason: str = ""


@dataclass(frozen=True)
class CalibrationReport:
    """A new calibration and what it rests on; `model` is what to select it by."""

    model: Path
    calibration: str
    replaces: str
    factors: tuple[FactorReport, ...]


def calibrate_from_pairs(
    pair_dir: str | Path | Iterable[str | Path], model: str | None, out: str | Path
) -> CalibrationReport:
    """Stretch a model's intervals so that they cover 90 % of a beamline's own pairs.

    One number per factor: a handful of pairs can't fill the table of the calibration that ships.
    Pairs with a problem are left out, and so are rescans, which were chosen for what was predicted
    there (`benchmarks/within_survey.py`).
    The fine maps' own counting noise is accounted for (`metrics.deconvolution`), the
    displacement found when the pair was stored is taken out, and each element of each map weighs
    alike. Weights, card and trust boundary are copied beside the new calibration, under a name
    that contains its id; nothing is overwritten.

    Parameters
    ----------
    pair_dir
        Folder(s) of the pair store.
    model
        Name or file; None: the default.
    out
        Folder for the new files.

    Raises
    ------
    ConfigError
        No pair of a factor that the model knows, or too few pixels.
    ModelError
        Wrong weights.
    FileFormatError
        A damaged pair.
    """
    folders = [pair_dir] if isinstance(pair_dir, str | Path) else list(pair_dir)
    path = model_path(model)
    card = read_card(path)
    known = read_calibration(path, card)
    seen: dict[str, list[tuple[str, MapCoverage]]] = {}
    others: set[int] = set()
    left_out: list[str] = []
    for folder in folders:
        for pair in PairStore(folder).pairs():
            others |= {coarse.factor for coarse in pair.coarse} - set(FACTORS)
            if pair.problem or pair.source == "rescan":
                what = pair.problem or "a rescan, which says nothing of other places"
                left_out.append(f"{pair.pair_uid}: {what}")
                continue
            for key, coverage in pair_coverages(pair, known, model):
                seen.setdefault(key, []).append((pair.pair_uid, coverage))
    if not seen:
        reasons = [factor_not_allowed(factor) for factor in sorted(others)]
        reasons += left_out[:5]
        where = f"no whole pair to calibrate with in {[*map(str, folders)]}"
        raise ConfigError("; ".join([where, *reasons]))
    reports = tuple(factor_report(key, found) for key, found in sorted(seen.items()))
    pairs = sorted({uid for found in seen.values() for uid, _ in found})
    changed = stretched(
        known,
        {report.factor: report.stretch for report in reports},
        f"stretched on {len(pairs)} own pairs ({pairs[0]}...)",
    )
    target = _write(path, changed, Path(out))
    return CalibrationReport(target, read_calibration(target, card).id, known.id, reports)


def pair_coverages(
    pair: StoredPair, calibration: Calibration, model: str | None
) -> Iterator[tuple[str, MapCoverage]]:
    """Yield the key of the tables and the coverage of each element of each coarse map of a pair."""
    for coarse in pair.coarse:
        registered = pair.registration.get(coarse.position)
        if coarse.factor not in FACTORS or (registered is not None and registered.problem):
            continue
        key = table_key(calibration.as_read(measurement_of(coarse.maps, coarse.factor)))
        made = enhance_maps(coarse.maps, coarse.factor, model=model)
        moved = _moved(made, registered)
        try:
            for planes in common_planes(moved, pair.fine.maps, coarse.maps):
                coverage = map_coverage(planes)
                if coverage is not None:
                    yield key, coverage
        except AssemblyError:
            continue


def map_coverage(planes: CommonPlanes) -> MapCoverage | None:
    """Return the coverage as the intervals are stretched; None with fewer than `LEAST_PIXELS`."""
    fields = planes.predicted
    valid = np.isfinite(planes.value) & (planes.unit > 0)
    for name in ("estimate", "lower", "upper"):
        valid &= np.isfinite(fields[name])
    pixels = int(valid.sum())
    if pixels < LEAST_PIXELS:
        return None
    places = np.flatnonzero(valid)[:: max(1, pixels // MOST_PIXELS)]
    made, low, high = (fields[name].flat[places] for name in ("estimate", "lower", "upper"))
    unit = planes.unit.flat[places]
    counts = planes.value.flat[places] / unit
    true = hidden_coverage(counts, made, low, high, STRETCHES, unit)
    counts, unit = (plane[::COUNTED_EVERY] for plane in (counts, unit))
    made, low, high = (stabilise(plane[::COUNTED_EVERY]) for plane in (made, low, high))
    counted = [
        covered(
            counts,
            unstabilise(made),
            unstabilise(made - stretch * (made - low)),
            unstabilise(made + stretch * (high - made)),
            unit,
        ).mean()
        for stretch in STRETCHES
    ]
    return MapCoverage(pixels, np.array(counted), true)


def pooled(maps: Sequence[MapCoverage]) -> tuple[Curve, Curve]:
    """Return the mean coverage of the truth and of the counts; all maps weigh alike."""
    true, counted = (np.mean([getattr(m, name) for m in maps], 0) for name in ("true", "counted"))
    return true, counted


def stretched(calibration: Calibration, by: dict[str, float], source: str) -> Calibration:
    """Return a calibration with some of its tables stretched, with an id of its own.

    `by` has the stretches by `sr.intervals.table_key`.
    """
    sides: dict[str, Any] = {}
    for name in ("lower", "upper"):
        table = dict(getattr(calibration, name))
        for key, stretch in by.items():
            table[key] = np.round(stretch * np.array(table[key]), 4).tolist()
        sides[name] = table
    # The trust boundary has a file of its own.
    regime = calibration.regime.model_copy(update={"blobs": None, "regularity": None})
    source = f"{calibration.source}; {source}"
    return calibration.model_copy(update={**sides, "regime": regime, "source": source})


def _moved(made: EnhancedMaps, registration: PairRegistration | None) -> EnhancedMaps:
    """Put a prediction where the fine map shows the same things."""
    shift = (0.0, 0.0) if registration is None else (registration.dx_um, registration.dy_um)
    dx, dy = (value if np.isfinite(value) else 0.0 for value in shift)
    fast = replace(made.grid.fast, start_um=made.grid.fast.start_um - dx)
    slow = replace(made.grid.slow, start_um=made.grid.slow.start_um - dy)
    grid: ScanGrid = replace(made.grid, fast=fast, slow=slow)
    return EnhancedMaps(made.dataset, grid)


def factor_report(key: str, found: Sequence[tuple[str, MapCoverage]]) -> FactorReport:
    """Return what the maps of some pairs say, each with the uid of its pair, about one factor."""
    true, counted = pooled([one for _, one in found])
    stretch, reason = solve(true, counted)
    left_out = []
    for uid in sorted({uid for uid, _ in found}):
        others = [one for other, one in found if other != uid]
        if others:
            alone, _ = pooled([one for other, one in found if other == uid])
            left_out.append(at_stretch(alone, solve(*pooled(others))[0]))
    return FactorReport(
        factor=key,
        maps=len(found),
        pairs=len({uid for uid, _ in found}),
        pixels=sum(one.pixels for _, one in found),
        coverage_before=at_stretch(true, 1.0),
        coverage_after=at_stretch(true, stretch),
        coverage_left_out=float(np.mean(left_out)) if left_out else float("nan"),
        stretch=stretch,
        reason=reason,
    )


def solve(true: Curve, counted: Curve, level: float = 0.9) -> tuple[float, str]:
    """Return the stretch at which the true coverage reaches `level`, and why not where it is 1."""
    if true[-1] < level:
        return float(STRETCHES[-1]), f"not even {STRETCHES[-1]:g} times the width covers {level}"
    above = int(np.flatnonzero(true >= level)[0])
    found = float(STRETCHES[0])
    if above:
        span = true[above - 1 : above + 1]
        share = (level - span[0]) / max(float(span[1] - span[0]), 1e-12)
        logs = np.log(STRETCHES[above - 1 : above + 1])
        found = round(float(np.exp(logs[0] + share * (logs[1] - logs[0]))), 4)
    response = at_stretch(counted, 1.25 * found) - at_stretch(counted, 0.8 * found)
    if response < LEAST_RESPONSE:
        return 1.0, f"coverage hardly depends on the width ({response:.3f}): fly longer fine maps"
    return found, ""


def at_stretch(curve: Curve, stretch: float) -> float:
    """Return the coverage at a stretch between those of `STRETCHES`."""
    return float(np.interp(np.log(stretch), np.log(STRETCHES), curve))


def _write(path: Path, calibration: Calibration, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{path.stem}-{calibration.id}"
    target = out / f"{stem}.safetensors"
    (out / f"{stem}.calibration.json").write_text(json.dumps(to_json(calibration), indent=1) + "\n")
    for suffix in (".json", ".trust.json", ".safetensors"):
        source = path.with_suffix(suffix)
        if source.exists():
            shutil.copyfile(source, out / f"{stem}{suffix}")
    return target
