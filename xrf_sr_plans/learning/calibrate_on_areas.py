"""The intervals of a model that has learnt: calibrated on phantoms, then stretched on own pairs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.evaluation.calibrate_from_pairs import (
    COUNTED_EVERY,
    LEAST_PIXELS,
    MOST_PIXELS,
    STRETCHES,
    FactorReport,
    MapCoverage,
    factor_report,
    stretched,
)
from xrf_sr_plans.learning.map_figures import fields_of
from xrf_sr_plans.metrics.calibration import covered
from xrf_sr_plans.metrics.deconvolution import hidden_coverage
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.sr.intervals import Calibration, table_key, to_json
from xrf_sr_plans.sr.registry import load_model, read_calibration, read_card
from xrf_sr_plans.training.calibrate_model import calibrate_model
from xrf_sr_plans.training.paired_areas import PairedArea


def calibrate_on_areas(
    path: Path, areas: Sequence[PairedArea], *, n_per_family: int
) -> tuple[FactorReport, ...]:
    """Calibrate a model on phantoms and photographs, then stretch its intervals on areas.

    Without areas that tell, the calibration stays that of the phantoms. Rescans don't tell: what is
    right where much was predicted is too narrow elsewhere (`benchmarks/within_survey.py`). As
    `evaluation.calibrate_from_pairs`, but on fine maps that lie on the coarse ones row by row.

    Parameters
    ----------
    path
        Weights of the model, beside which the calibration is written.
    areas
        What was held out, or, for want of that, what was learnt from.
    n_per_family
        Phantoms of each family.

    Returns
    -------
    tuple
        What the areas say, by factor.
    """
    calibrate_model(path, real_maps=None, n_per_family=n_per_family)
    known = read_calibration(path, read_card(path))
    _, _, network = load_model(path)
    seen: dict[str, list[tuple[str, MapCoverage]]] = {}
    for area in areas:
        if area.was_chosen:
            continue
        uid = area.name.partition("/")[0]
        for key, coverage in area_coverages(area, network, known):
            seen.setdefault(key, []).append((uid, coverage))
    reports = tuple(factor_report(key, found) for key, found in sorted(seen.items()))
    if reports:
        number = len({uid for found in seen.values() for uid, _ in found})
        by = {report.factor: report.stretch for report in reports}
        changed = stretched(known, by, f"stretched on {number} own pairs")
        file = path.with_suffix(".calibration.json")
        temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
        temporary.write_text(json.dumps(to_json(changed), indent=1) + "\n")
        temporary.replace(file)
    return reports


def area_coverages(
    area: PairedArea, network: Any, calibration: Calibration
) -> Iterator[tuple[str, MapCoverage]]:
    """Yield the key of the tables of intervals and the coverage of each element of an area."""
    key = table_key(calibration.as_read(area.measurement))
    fields = fields_of(area.counts, area.measurement, network, calibration)
    for element in range(len(area.elements)):
        worth = area.worth[element]
        places = np.flatnonzero(area.measured & (worth > 0))
        if len(places) < LEAST_PIXELS:
            continue
        pixels, places = len(places), places[:: max(1, len(places) // MOST_PIXELS)]
        made, low, high = (
            fields[name][element].flat[places] for name in ("estimate", "lower", "upper")
        )
        unit = worth.flat[places]
        # Values between pixels may be below 0, photons can't.
        counts = np.maximum(area.target[element].flat[places], 0) / unit
        true = hidden_coverage(counts, made, low, high, STRETCHES, unit)
        counted = _counted(*(one[::COUNTED_EVERY] for one in (counts, made, low, high, unit)))
        yield key, MapCoverage(pixels, counted, true)


def _counted(
    counts: np.ndarray, made: np.ndarray, low: np.ndarray, high: np.ndarray, unit: np.ndarray
) -> np.ndarray:
    """Return the coverage of the counts at each of `STRETCHES`."""
    center, below, above = (stabilise(plane) for plane in (made, low, high))
    return np.array(
        [
            covered(
                counts,
                unstabilise(center),
                unstabilise(center - by * (center - below)),
                unstabilise(center + by * (above - center)),
                unit,
            ).mean()
            for by in STRETCHES
        ]
    )
