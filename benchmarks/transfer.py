"""Coverage on a kind of sample that the calibration has not seen, and after a few pairs of it.

    python benchmarks/transfer.py --real FOLDER [--model NAME] [--per-family 4]

Three calibrations of the same weights, tested on the real samples of one kind: phantoms only;
phantoms and the *other* kind of real sample; the latter stretched, by one number, on a handful of
samples of the kind itself (up to half of them, in every combination: mean and scatter), tested on
the rest. 0.90 is right.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from xrf_sr_plans.evaluation.calibrate_from_pairs import stretched
from xrf_sr_plans.sr.conformal import Scores, beyond, conformal_quantile, fit
from xrf_sr_plans.sr.intervals import Calibration, table_key
from xrf_sr_plans.sr.registry import load_network, model_path, read_card
from xrf_sr_plans.training.calibrate_model import simulated_scores
from xrf_sr_plans.training.phantoms import CALIBRATION_SEED
from xrf_sr_plans.training.samples import Sample, phantom_samples, real_samples


def coverage(calibration: Calibration, maps: list[Scores], key: str) -> float:
    """Return the share of pixels within the intervals of one key, each map weighing alike."""
    shares = []
    for item in maps:
        if table_key(item.measurement) == key:
            shares.append(np.mean(beyond(calibration, item) <= 1))
    return float(np.mean(shares))


def adapted_to(calibration: Calibration, maps: list[Scores]) -> Calibration:
    """Stretch all intervals of a factor so that they hold 90 % of the pixels of some maps."""
    found: dict[str, list[np.ndarray]] = {}
    for item in maps:
        found.setdefault(table_key(item.measurement), []).append(beyond(calibration, item))
    by = {f: conformal_quantile(np.concatenate(parts), 0.9) for f, parts in found.items()}
    return stretched(calibration, by, f"{len(maps)} maps")


def handfuls(samples: list[list[Scores]]) -> Iterator[tuple[list[Scores], list[Scores]]]:
    """Yield the scores of each half (rounded down) of the samples, and of the rest."""
    for chosen in itertools.combinations(range(len(samples)), len(samples) // 2):
        parts: tuple[list[Scores], list[Scores]] = ([], [])
        for index, one in enumerate(samples):
            parts[index not in chosen].extend(one)
        yield parts


def main() -> None:
    """Print coverage by kind, factor and calibration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, required=True)
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = model_path(options.model)
    card = read_card(path)
    network = load_network(path, card)

    def scored(samples: list[Sample], repeats: int) -> list[Scores]:
        many = {sample.kind: repeats for sample in samples}
        return list(simulated_scores(network, samples, repeats=many))

    def each_of(samples: list[Sample], repeats: int) -> list[list[Scores]]:
        found = scored(samples, repeats)
        size = len(found) // len(samples)
        return [found[low : low + size] for low in range(0, len(found), size)]

    phantoms = scored(list(phantom_samples(options.per_family, CALIBRATION_SEED)), 1)
    real = list(real_samples(options.real))
    by_kind = {
        kind: each_of([sample for sample in real if sample.kind == kind], options.repeats)
        for kind in sorted({sample.kind for sample in real})
    }
    heads = ("factor", "phantoms", "+ others", "+ pairs", "scatter", "within")
    sys.stdout.write(" " * 12 + "".join(f"{head:>10s}" for head in heads) + "\n")
    for kind, samples in by_kind.items():
        others = [m for name, some in by_kind.items() if name != kind for one in some for m in one]
        alone = fit(phantoms, card.sha256, "phantoms")
        mixed = fit([*phantoms, *others], card.sha256, "phantoms and others")
        every = [item for one in samples for item in one]
        adapted = [(adapted_to(mixed, few), rest) for few, rest in handfuls(samples)]
        for factor in sorted(mixed.lower):
            after = [coverage(known, rest, factor) for known, rest in adapted]
            figures = [coverage(known, every, factor) for known in (alone, mixed)]
            figures += [float(np.mean(after)), float(np.std(after))]
            figures.append(float(np.mean(np.abs(np.array(after) - 0.9) <= 0.03)))
            cells = "".join(f"{value:10.3f}" for value in figures)
            sys.stdout.write(f"{kind:12s}{factor:>10}{cells}\n")


if __name__ == "__main__":
    main()
