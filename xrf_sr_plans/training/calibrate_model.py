"""Estimate the calibration of a model from samples it was not trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import READINGS, Reading
from xrf_sr_plans.physics.counting import NOISE_FREE_COUNTS, stabilise, unstabilise
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.bicubic import baseline_of
from xrf_sr_plans.sr.conformal import Scores, fit
from xrf_sr_plans.sr.estimate import run_network
from xrf_sr_plans.sr.evidence import evidence, stated_level
from xrf_sr_plans.sr.intervals import Calibration, Regime, bounded, groups, to_json
from xrf_sr_plans.sr.registry import load_network, model_path, read_card
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel
from xrf_sr_plans.training.kinds import all_kinds
from xrf_sr_plans.training.phantoms import CALIBRATION_SEED
from xrf_sr_plans.training.samples import Sample, fit_to_blocks
from xrf_sr_plans.training.simulated_pairs import (
    Pair,
    Simulation,
    draw_reading,
    draw_simulation,
    simulate,
)

PHANTOMS_PER_FAMILY = 10
"""Number of phantoms of each family that a model is calibrated on."""
CLEAR_SHARE = 0.25
"""Share of the measurements without noise to speak of."""
PIXELS_PER_MAP = 1000
"""Number of random fine pixels of each element map that enter, so that all maps weigh alike."""


@dataclass(frozen=True)
class Predicted:
    """A simulated pair with what the network makes of it."""

    pair: Pair
    estimate: np.ndarray
    """(element, Y, X) in photons per coarse pixel, as the pair's truth."""
    sigma: np.ndarray
    """Standard deviation of the stabilised estimate before calibration, (element, Y, X)."""
    scale: Scale
    known: np.ndarray | None = None
    """`sr.evidence.evidence` of the counts."""


def predict_pair(pair: Pair, network: Any) -> Predicted:
    """Run the network on a pair as `enhance` would."""
    how, pixels = pair.measurement, pair.measurement.fast_pixels
    scale = Scale.of(per_coarse_pixel(pair.counts, how))
    stabilised, sigma = run_network(pair.counts, scale, how, network, "cpu")
    projected = consistency.project(pair.counts, unstabilise(stabilised) / pixels, how)
    known = evidence(pair.counts, how, scale)
    return Predicted(pair, projected * pixels, sigma, scale, known)


def predict_baseline(pair: Pair) -> Predicted:
    """Return the baseline of a pair, as uncertain everywhere in stabilised counts.

    Conformalised by the same groups, it is what the intervals of a model are compared with.
    """
    how = pair.measurement
    made = baseline_of(pair.counts, how) * how.fast_pixels
    return Predicted(pair, made, np.ones_like(made), Scale.of(per_coarse_pixel(pair.counts, how)))


def scores(predicted: Predicted, rng: np.random.Generator, kind: str = "") -> Scores:
    """Return the scores of a random subset of the pixels."""
    made = stabilise(predicted.estimate)
    sigma = bounded(predicted.sigma, predicted.scale)
    level = stated_level(sigma)
    score = (stabilise(predicted.pair.truth) - made) / sigma
    planes = score, groups(made, predicted.scale), np.log(sigma) - level[:, None, None]
    n_elements = len(score)
    keep = rng.integers(score[0].size, size=(n_elements, PIXELS_PER_MAP))
    pick = [np.take_along_axis(v.reshape(n_elements, -1), keep, 1).ravel() for v in planes]
    clear = predicted.scale.span >= Regime().smallest_range
    known = predicted.known
    return Scores(
        measurement=predicted.pair.measurement,
        group=pick[1],
        score=pick[0],
        fill=np.repeat(predicted.scale.fill, PIXELS_PER_MAP),
        roughness=float(predicted.scale.roughness[clear].max(initial=0.0)),
        kind=kind,
        known=None if known is None else np.concatenate([known, level[:, None]], axis=-1),
        relative=None if known is None else pick[2],
    )


def simulated_pairs(
    samples: Iterable[Sample],
    *,
    reads: Sequence[Reading] = READINGS,
    repeats: dict[str, int] | None = None,
    seed: int = 0,
) -> Iterator[tuple[Sample, Pair, np.random.Generator]]:
    """Yield simulated measurements of samples.

    Parameters
    ----------
    samples
        What is measured.
    reads
        In which ways; those that a network reads.
    repeats
        How many measurements of each are simulated, by kind of sample (default 1), so that few
        real samples can weigh as much as many phantoms.
    seed
        Of noise, probes and doses.
    """
    for number, sample in enumerate(samples):
        for factor, pixels in reads:
            for repeat in range((repeats or {}).get(sample.kind, 1)):
                rng = np.random.default_rng([seed, number, factor, repeat, pixels])
                maps = fit_to_blocks(sample.maps, factor)
                sampling = draw_reading(rng, factor, {(factor, pixels)})
                drawn = draw_simulation(rng, factor, maps.shape[0], sampling)
                yield sample, simulate(maps, _without_defects(drawn, rng), rng), rng


def simulated_scores(
    network: Any, samples: Iterable[Sample], *, repeats: dict[str, int] | None = None, seed: int = 0
) -> Iterator[Scores]:
    """Yield the scores of a network on `simulated_pairs`; without one, those of the baseline."""
    reads = READINGS if network is None else network.reads
    for sample, pair, rng in simulated_pairs(samples, reads=reads, repeats=repeats, seed=seed):
        made = predict_baseline(pair) if network is None else predict_pair(pair, network)
        yield scores(made, rng, sample.kind)


def _without_defects(simulation: Simulation, rng: np.random.Generator) -> Simulation:
    """Return a simulation without defects; more often than in training without noise, too.

    Where there is no noise all errors are unseen structure, which differs most between kinds.
    """
    level = simulation.n99
    if rng.random() < CLEAR_SHARE:
        level = (NOISE_FREE_COUNTS,) * len(level)
    return replace(simulation, row_shift_steps=0.0, i0_corrected=True, n99=level)


def calibrate_model(
    model: str | Path | None,
    *,
    real_maps: Path | None,
    n_per_family: int = PHANTOMS_PER_FAMILY,
    seed: int = 0,
) -> Calibration:
    """Calibrate a model and write the result beside its weights; return it.

    Raises
    ------
    ModelError
        No such model, or damaged weights.
    """
    path = model_path(model)
    card = read_card(path)
    network = load_network(path, card)
    samples = all_kinds(n_per_family, CALIBRATION_SEED, real_maps)
    counted = _kinds(samples)
    source = "simulated measurements of " + ", ".join(f"{n} x {kind}" for kind, n in counted)
    repeats = fair_repeats(samples, 2 * n_per_family)
    found = simulated_scores(network, samples, repeats=repeats, seed=seed)
    calibration = fit(found, card.sha256, source)
    file = path.with_suffix(".calibration.json")
    temporary = file.with_suffix(".part")
    temporary.write_text(json.dumps(to_json(calibration), indent=1) + "\n")
    os.replace(temporary, file)
    return calibration


def fair_repeats(samples: Sequence[Sample], least: int) -> dict[str, int]:
    """Return how often to measure each sample, by kind, so that each kind is met `least` times."""
    return {kind: max(1, round(least / count)) for kind, count in _kinds(samples)}


def _kinds(samples: Sequence[Sample]) -> list[tuple[str, int]]:
    names = [sample.kind for sample in samples]
    return [(kind, names.count(kind)) for kind in sorted(set(names))]
