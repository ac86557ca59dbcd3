"""Measure whether coarse counts can tell where bicubic would have been better than the model.

    python benchmarks/gate.py [--real FOLDER] [--per-family 2] [--gratings 8]

A gate that puts bicubic in the place of an element's estimate has to know, from the coarse counts
alone, where the model loses. Tried, on validation phantoms (never test seeds) and real maps:

- self-test: the counts are split in halves; one half is made coarser once more by the forward
  model and enhanced; where bicubic predicts the other half better, bicubic is used. 0, 0.5 and 1:
  by how many dB at least.
- regular: bicubic where more than half of the map is so regular that it may be an alias
  (`sr.aliasing`); the shares are limits.

Printed: mean gain over bicubic, worst element, elements lost by more than 0.1 dB, of how many, and
how many of those that the gate catches were losers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS, unstabilise
from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.aliasing import regular
from xrf_sr_plans.sr.estimate import run_network
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.training.phantoms import VALIDATION_SEED, phantom
from xrf_sr_plans.training.samples import Sample, fit_to_blocks, phantom_samples, real_samples
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

LEVELS = (50.0, 200.0, 1000.0, float("inf"))
LIMITS = (0.5, 0.6, 0.7)
LOST_DB = -0.1
HALF_WAY_NOISE = 82 / 128
"""Noise variance of a four-point cubic interpolation half-way, relative to that of a pixel."""


@dataclass(frozen=True)
class Found:
    """One element: what the model gains over bicubic, and what the gates see."""

    kind: str
    factor: int
    gain_db: float
    predicted_db: float
    regular: tuple[float, ...]


def run(counts: np.ndarray, measurement: Measurement, network: Any) -> np.ndarray:
    """Return the model's estimate."""
    made, _ = run_network(counts, Scale.of(counts), measurement, network, "cpu")
    return consistency.project(counts, unstabilise(made.astype(float)), measurement)


def gain_db(ours: np.ndarray, bicubic: np.ndarray) -> np.ndarray:
    """Return the gain from mean square errors."""
    return 10 * np.log10(np.maximum(bicubic, 1e-9) / np.maximum(ours, 1e-9))


def self_test(
    counts: np.ndarray, measurement: Measurement, network: Any, rng: np.random.Generator
) -> np.ndarray:
    """Return the gain, in dB per element, that the model has one scale further down."""
    factor = measurement.factor
    whole = np.rint(fit_to_blocks(counts, factor)).astype(int)
    kept = rng.binomial(whole, 0.5)
    coarse = coarsen(kept, factor, measurement.sampling)
    # As many photons as the variance of the mean stands for: noise as the model knows it.
    photons = factor**2 if measurement.sampling == "area" else factor / HALF_WAY_NOISE
    made = run(coarse * photons, measurement, network) / photons
    plain = np.clip(upsample(coarse, factor), 0, None)
    held = whole - kept
    noise = held.mean(axis=(1, 2))
    errors = [np.square(m - held).mean(axis=(1, 2)) - noise for m in (made, plain)]
    return gain_db(*errors)


def elements(samples: list[Sample], network: Any) -> Iterator[Found]:
    """Yield what is found on every element of all samples, factors and doses."""
    for number, sample in enumerate(samples):
        for factor in COARSER_FACTORS:
            for level in LEVELS:
                rng = np.random.default_rng([3, number, factor])
                maps = fit_to_blocks(sample.maps, factor)
                measurement = Measurement(factor)
                pair = simulate(maps, Simulation.plain(measurement, level, len(maps)), rng)
                unit = 1.0 if level < 1e9 else NOISE_FREE_COUNTS
                counts, truth = pair.counts * unit, pair.truth * unit
                plain = np.clip(upsample(counts, factor), 0, None)
                both = run(counts, measurement, network), plain
                gains = gain_db(*(np.square(m - truth).mean(axis=(1, 2)) for m in both))
                predicted = self_test(counts, measurement, network, rng)
                shares = [regular(counts, limit).mean(axis=(1, 2)) for limit in LIMITS]
                for index, gain in enumerate(gains):
                    seen = tuple(float(share[index]) for share in shares)
                    yield Found(sample.kind, factor, float(gain), float(predicted[index]), seen)


def line(name: str, found: list[Found], gated: np.ndarray) -> str:
    """Return a line of the table: the gains with bicubic where `gated`."""
    gains = np.array([one.gain_db for one in found])
    after, lost = np.where(gated, 0.0, gains), gains < LOST_DB
    return (
        f"  {name:18s}{after.mean():+7.2f}{after.min():+7.2f}{(after < LOST_DB).sum():5d}"
        f" of {gains.size}; caught {gated.sum()}, of them losers {(gated & lost).sum()}\n"
    )


def main() -> None:
    """Print a block per group of samples and factor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-family", type=int, default=2)
    parser.add_argument("--gratings", type=int, default=8, help="phantoms of that family")
    options = parser.parse_args()
    torch.set_num_threads(1)
    _, _, network = load_model(options.model)
    samples = list(phantom_samples(options.per_family, VALIDATION_SEED))
    more = range(VALIDATION_SEED + options.per_family, VALIDATION_SEED + options.gratings)
    samples += [Sample(f"gratings-{n}", "gratings", phantom("gratings", n)) for n in more]
    real = list(real_samples(options.real)) if options.real else []
    found = list(elements([*samples, *real], network))
    measured = {sample.kind for sample in real}
    groups = {
        "gratings": lambda one: one.kind == "gratings",
        "other phantoms": lambda one: one.kind not in measured | {"gratings"},
        "real maps": lambda one: one.kind in measured,
    }
    for group, belongs in groups.items():
        for factor in COARSER_FACTORS:
            part = [one for one in found if belongs(one) and one.factor == factor]
            if part:
                sys.stdout.write(f"{group}, {factor}x\n{block(part)}")


def block(found: list[Found]) -> str:
    """Return the lines of all gates."""
    predicted = np.array([one.predicted_db for one in found])
    text = line("no gate", found, np.zeros(len(found), dtype=bool))
    for least in (0.0, 0.5, 1.0):
        text += line(f"self-test {least:g} dB", found, predicted < -least)
    for index, limit in enumerate(LIMITS):
        text += line(f"regular {limit:g}", found, np.array([o.regular[index] > 0.5 for o in found]))
    return text


if __name__ == "__main__":
    main()
