"""Whether the rescans of a survey make the intervals of the rest of it more right.

    python benchmarks/within_survey.py [--real FOLDER] [--per-family 3] [--validation] [--json OUT]

A sample is surveyed with rows at 4x, and what the product picks in 20 % of the time of a fine map
is flown (`benchmarks/beam_time.py`). The errors found there say by how much the intervals should
be stretched (the factor with which 90 % of the errors are inside interval and counting noise
together, drawn to 1 where little was flown). Then the coverage of the *other* pixels of the element
that was looked for is taken, with the intervals as they are and stretched. `off` is the mean
distance of a map's coverage from 0.90.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from beam_time import (
    DESIGN_SEED,
    FAMILIES_WITH_TARGETS,
    Task,
    flown,
    ours,
    tasks,
)
from two_rounds import PRIOR_COARSE_PX

from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.training.phantoms import TEST_SEED, phantom
from xrf_sr_plans.training.samples import Sample, real_samples

FACTOR, ROW_S, SHARE = 4, 0.1, 0.2
FACTORS = np.geomspace(0.25, 4.0, 65)
"""Factors that are tried."""
WAYS = ("as they are", "own factor")


def coverages(task: Task) -> dict[str, float] | None:
    """Return the coverage of the pixels that weren't flown, by way; None where none was flown.

    Of the element that was looked for: of the others the truth isn't kept.
    """
    boxes = ours(task, max(SHARE * task.whole_s - task.survey_s, 0.0))
    inside = flown(task, boxes)
    if not inside.any() or inside.all():
        return None
    counts = np.random.default_rng(0).poisson(np.maximum(task.truth, 0.0)).astype(float)
    estimate, low, high = (
        task.enhanced.dataset[field].values[task.element]
        for field in ("estimate", "lower", "upper")
    )

    own = factor_of(counts[inside], *(field[inside] for field in (estimate, low, high)))

    def covered(stretch: float) -> float:
        within = (estimate - stretch * (estimate - low) <= task.truth) & (
            task.truth <= estimate + stretch * (high - estimate)
        )
        return float(within[~inside].mean())

    return {"as they are": covered(1.0), "own factor": covered(own), "factor": own}


def factor_of(counts: np.ndarray, estimate: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """Return the factor of the intervals' width with which they hold 90 % of the counts (pixel,).

    Intervals and counting noise are added in quadrature. The factor is drawn to 1 as if
    `PRIOR_COARSE_PX` had been seen with intervals that are right.
    """
    error = counts - estimate
    side = np.where(error > 0, high - estimate, estimate - low)
    noise = NORMAL_90**2 * (np.maximum(estimate, 0.0) + 1.0)
    inside = [np.mean(error**2 <= (factor * side) ** 2 + noise) for factor in FACTORS]
    best = FACTORS[min(int(np.searchsorted(np.maximum.accumulate(inside), 0.9)), len(FACTORS) - 1)]
    seen = counts.size / FACTOR**2
    return float(best ** (seen / (seen + PRIOR_COARSE_PX)))


def rows_of(samples: list[Sample]) -> Iterator[dict[str, Any]]:
    """Yield the coverages of every task, with its kind and dose."""
    for task in tasks(samples, FACTOR, ROW_S):
        found = coverages(task)
        if found is not None:
            yield {"kind": task.sample.kind, "n99": task.n99, **found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real")
    parser.add_argument("--per-family", type=int, default=3)
    parser.add_argument("--validation", action="store_true", help="the samples of the design")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    first = DESIGN_SEED if options.validation else TEST_SEED
    samples = [
        Sample(f"{family}-{seed}", family, phantom(family, first + seed, size=192))
        for family in FAMILIES_WITH_TARGETS
        for seed in range(options.per_family)
    ]
    real = [] if options.real is None or options.validation else real_samples(Path(options.real))
    rows = list(rows_of([*samples, *real]))
    kinds = sorted({row["kind"] for row in rows})
    print(
        f"{'':16}{'maps':>5}{'as they are':>13}{'off':>7}{'stretched':>11}{'off':>7}{'factor':>8}"
    )
    for kind in [*kinds, "all"]:
        chosen = [row for row in rows if kind in ("all", row["kind"])]
        before, after = (np.array([row[way] for row in chosen]) for way in WAYS[:2])
        factor = math.exp(np.mean([math.log(row["factor"]) for row in chosen]))
        print(
            f"{kind:16}{len(chosen):5}{before.mean():13.3f}{np.abs(before - 0.9).mean():7.3f}"
            f"{after.mean():11.3f}{np.abs(after - 0.9).mean():7.3f}{factor:8.2f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
