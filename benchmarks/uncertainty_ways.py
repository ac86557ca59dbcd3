"""Ways to state an uncertainty, trained, calibrated and tested on equal terms.

    python benchmarks/uncertainty_ways.py [--cpu-s 60] [--real FOLDER] [--json OUT]

Each network gets the same processor seconds of training (`training.short_runs`), then the same
conformal calibration on phantoms of the calibration seeds (with --real also on the meteorite's
calibration columns), and is tested on phantoms of the validation seeds and, with --real, on the
tissue block that neither training nor this calibration saw. The ensembles: three members with a
third of the budget each, and three with the whole of it (three times the training).

cost      processor time of a prediction over that of a network with the estimate alone
gain      dB of PSNR over bicubic
coverage  of the 90 % intervals (0.90 is right)
width     geometric mean of their widths over those of bicubic, conformalised by the same groups
ranking   what dropping the 20 % most uncertain pixels removes of the error, of an oracle's
ause      area between the sparsification curves of the stated uncertainty and the oracle's
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from uncertainty_variants import (
    PASSES,
    Dropout,
    Evidential,
    Plain,
    Quantiles,
    Several,
    Sigma,
)

from xrf_sr_plans.measurement import COARSER_FACTORS, ENLARGED_SQUARES
from xrf_sr_plans.metrics.calibration import error_ranking, sparsification
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.conformal import fit
from xrf_sr_plans.sr.intervals import Calibration, intervals
from xrf_sr_plans.sr.network import conditions_of
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.sr.tiled_inference import has_fast_bf16
from xrf_sr_plans.training.budgeted_training import Budget, train_within
from xrf_sr_plans.training.calibrate_model import (
    Predicted,
    predict_baseline,
    scores,
    simulated_pairs,
)
from xrf_sr_plans.training.phantoms import CALIBRATION_SEED, VALIDATION_SEED
from xrf_sr_plans.training.real_maps import calibration_maps, training_maps, validation_maps
from xrf_sr_plans.training.samples import Sample, phantom_samples
from xrf_sr_plans.training.simulated_pairs import Pair, Samples, draw_simulation, simulate

SIDE = 96
"""Of the pieces of samples that are measured, in fine pixels."""
CPU = torch.device("cpu")


class Told(NamedTuple):
    """A prediction and how far the truth may lie from it, before calibration; stabilised."""

    made: np.ndarray
    down: np.ndarray
    up: np.ndarray


Way = Callable[[Pair, Scale], Told]


def network_way(network: nn.Module) -> Way:
    """Predict with a network that returns a `Spread`, projected onto the counts as `enhance`."""

    def told(pair: Pair, scale: Scale) -> Told:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, has_fast_bf16(CPU)):
            counts = torch.from_numpy(pair.counts).float()[None]
            known = conditions_of(scale.low[None], scale.span[None], [pair.measurement])
            out = network(counts, known, pair.measurement.factor)
        made, down, up = (maps[0].float().numpy() for maps in (out.stabilised, out.down, out.up))
        counted = consistency.project(pair.counts, unstabilise(made), pair.measurement)
        return Told(stabilise(counted), down, up)

    return told


def bicubic(pair: Pair, _scale: Scale) -> Told:
    """Interpolate; the same uncertainty everywhere, in stabilised counts."""
    plain = predict_baseline(pair)
    return Told(stabilise(plain.estimate), plain.sigma, plain.sigma)


def simulated(samples: list[Sample], seed: int, repeats: int = 1) -> list[Pair]:
    """Return drawn measurements of samples by 2 and 4, the same for every way."""
    many = {sample.kind: repeats for sample in samples}
    return [
        pair
        for _, pair, _ in simulated_pairs(samples, reads=ENLARGED_SQUARES, repeats=many, seed=seed)
    ]


def pieces(maps: Iterable[np.ndarray], name: str) -> list[Sample]:
    """Cut squares of `SIDE` from the corner of maps (element, y, x)."""
    return [Sample(name, name, whole[:, :SIDE, :SIDE]) for whole in maps]


def phantoms(n_per_family: int, first_seed: int) -> list[Sample]:
    """Paint phantoms and cut a square from each."""
    return pieces((one.maps for one in phantom_samples(n_per_family, first_seed)), "phantoms")


def calibrate(way: Way, pairs: list[Pair]) -> Calibration:
    """Fit the conformal factors of a way."""
    rng = np.random.default_rng(0)
    found = []
    for pair in pairs:
        scale = Scale.of(pair.counts)
        told = way(pair, scale)
        side = np.where(stabilise(pair.truth) < told.made, told.down, told.up)
        found.append(scores(Predicted(pair, unstabilise(told.made), side, scale), rng))
    return fit(found, "0" * 64, "comparison")


def test(way: Way, known: Calibration, pair: Pair) -> list[dict[str, float]]:
    """Return the figures of each element of a pair."""
    scale, factor = Scale.of(pair.counts), pair.measurement.factor
    told = way(pair, scale)
    low = intervals(known, pair.measurement, told.made, told.down, scale).lower
    high = intervals(known, pair.measurement, told.made, told.up, scale).upper
    error, width = unstabilise(told.made) - pair.truth, high - low
    plain = np.clip(upsample(pair.counts, factor), 0, None) - pair.truth
    return [
        {
            "factor": factor,
            "gain": 10
            * np.log10((np.mean(plain[k] ** 2) + 1e-9) / (np.mean(error[k] ** 2) + 1e-9)),
            "coverage": float(np.mean((low[k] <= pair.truth[k]) & (pair.truth[k] <= high[k]))),
            "width": float(width[k].mean()),
            "ranking": error_ranking(error[k], width[k]),
            "ause": sparsification(error[k], width[k]).ause,
        }
        for k in range(len(error))
    ]


def cost(network: nn.Module, plain: nn.Module) -> float:
    """Return the processor time of a prediction over that of a plain one; best of seven each.

    64 x 64 pixels, 5 elements, x 2; in turn, so that other work on the machine favours nobody.
    """
    sample = next(phantom_samples(1, CALIBRATION_SEED, size=128))
    drawn = draw_simulation(np.random.default_rng(0), 2, 5)
    flown = replace(drawn, measurement=replace(drawn.measurement, sampling="fly"))
    pair = simulate(sample.maps, flown, np.random.default_rng(0))
    scale, times = Scale.of(pair.counts), np.full((9, 2), np.inf)
    for turn in range(1, 9):
        for index, one in enumerate((network, plain)):
            way, begin = network_way(one), time.process_time()
            way(pair, scale)
            times[turn, index] = time.process_time() - begin
    ours, least = times[2:].min(axis=0)
    return float(ours / least)


def trained(make: type[nn.Module], samples: Samples, cpu_s: float, seed: int = 0) -> nn.Module:
    """Train a variant from a seed."""
    torch.manual_seed(seed)
    network = make()
    steps = train_within(network, samples, Budget(cpu_s, seed=seed, maps_per_batch=8), make.loss)  # type: ignore[attr-defined]
    print(f"# {make.__name__}, seed {seed}: {steps} steps", flush=True)
    return network


def candidates(samples: Samples, cpu_s: float) -> Iterator[tuple[str, nn.Module]]:
    """Train, and yield each way with its name."""
    ours = trained(Sigma, samples, cpu_s)
    yield "sigma head (ours)", ours
    yield "quantile heads", trained(Quantiles, samples, cpu_s)
    yield "evidential head", trained(Evidential, samples, cpu_s)
    dropout = trained(Dropout, samples, cpu_s)
    yield f"MC dropout, {PASSES} passes", Several([dropout] * PASSES, learned=False)
    yield "MC dropout and sigma head", Several([dropout] * PASSES)
    yield (
        "ensemble of 3, a third each",
        Several([trained(Sigma, samples, cpu_s / 3, seed) for seed in (1, 2, 3)]),
    )
    more = [trained(Sigma, samples, cpu_s, seed) for seed in (4, 5)]
    yield "ensemble of 3, 3 x trained", Several([ours, *more])


def summary(
    found: list[dict[str, float]], baseline: list[dict[str, float]]
) -> dict[str, dict[str, float]]:
    """Return the mean figures by factor; widths relative to those of `baseline`."""
    lines = {}
    for factor in COARSER_FACTORS:
        ours, theirs = ([r for r in rows if r["factor"] == factor] for rows in (found, baseline))
        ratio = [np.log(a["width"] / b["width"]) for a, b in zip(ours, theirs, strict=True)]
        means = {
            name: float(np.nanmean([row[name] for row in ours]))
            for name in ("gain", "coverage", "ranking", "ause")
        }
        lines[f"{factor}x"] = {**means, "width": float(np.exp(np.mean(ratio)))}
    return lines


def main() -> None:
    """Print the table, and JSON where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu-s", type=float, default=60.0, help="of training, per candidate")
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--n-phantoms", type=int, default=180)
    parser.add_argument("--per-family", type=int, default=5, help="calibration and test phantoms")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(1)
    real = training_maps(options.real) if options.real else []
    samples = Samples.make(options.n_phantoms, 0, real)
    known = simulated(phantoms(options.per_family, CALIBRATION_SEED), 0)
    tests = {"phantoms": simulated(phantoms(options.per_family, VALIDATION_SEED), 1)}
    if options.real:
        zagami = pieces(calibration_maps(options.real).values(), "zagami")
        known += simulated(zagami, 2, 5)
        c3 = pieces(validation_maps(options.real).values(), "tissue C3")
        tests["tissue C3"] = simulated(c3, 3, 5)

    def assessed(way: Way) -> dict[str, list[dict[str, float]]]:
        calibration = calibrate(way, known)
        return {
            kind: [row for pair in pairs for row in test(way, calibration, pair)]
            for kind, pairs in tests.items()
        }

    baseline, plain = assessed(bicubic), Plain()
    lines: list[dict[str, Any]] = []
    heads = ("cost", "kind", "x", "gain", "coverage", "width", "ranking", "ause")
    print(f"{'way':<28}" + "".join(f"{head:>10}" for head in heads), flush=True)
    for name, network in [("bicubic", None), *candidates(samples, options.cpu_s)]:
        price = cost(network, plain) if network is not None else 0.0
        found = assessed(network_way(network)) if network is not None else baseline
        for kind, rows in found.items():
            for factor, line in summary(rows, baseline[kind]).items():
                lines.append({"way": name, "cost": price, "kind": kind, "factor": factor, **line})
                cells = "".join(f"{line[head]:10.3f}" for head in heads[3:])
                print(f"{name:<28}{price:10.2f}{kind:>10.10}{factor:>10}{cells}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(lines, indent=1))


if __name__ == "__main__":
    main()
