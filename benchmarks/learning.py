"""What pairs are worth: a second beamline, the shipped model, and models after 3, 10, 30 pairs.

    python benchmarks/learning.py [--pairs 3 10 30] [--tests 8] [--steps 900] [--picture PNG]
                                  [--json OUT] [--keep FOLDER]

The second beamline has another probe, step, flux and detector than the simulator of the demo, and
a kind of sample that no phantom has: woven fibres, straight and of one width, with grains where
they cross. Pairs are flown by `acquire_pair`, each of a sample of its own, and come into the store
by themselves. After so many of them the shipped model is gone on with, calibrated and compared with
the shipped one (`learning`), which says whether it would be promoted. Then all models are tried on
other samples, whose truth is known:

dB          peak signal-to-noise ratio over the shipped model's, mean over elements; worst: element
coverage    share of the true pixels inside the 90 % intervals
flag        share of the 5 % largest errors on pixels that aren't trusted, and how many those are
recall      share of the targets that are rescanned in 20 % of the time of a fine map, survey
            included (`benchmarks/beam_time.py`)

`ceiling` is the shipped model trained further, as long, on noise-free samples of the very kind, 100
of them: what pairs could teach at best. Of it only dB is told, as it isn't calibrated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from beam_time import Task, ours, question, recalls, targets_of
from bluesky import RunEngine
from scipy import ndimage

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.demo.truth import expected_counts
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.beamline import SimBeamline
from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.learning.compare_models import compare_models
from xrf_sr_plans.learning.stored_areas import lessons_of
from xrf_sr_plans.learning.train_on_pairs import LearningSettings, train_on_pairs
from xrf_sr_plans.measurement import READINGS
from xrf_sr_plans.metrics.image import psnr_db
from xrf_sr_plans.physics.forward import Detector
from xrf_sr_plans.session import start_session
from xrf_sr_plans.sr.estimate import estimate
from xrf_sr_plans.sr.predict import enhance_maps
from xrf_sr_plans.sr.prepare import measurement_of, prepare_maps
from xrf_sr_plans.sr.registry import load_model, load_network, model_path, read_card
from xrf_sr_plans.store.pairs import PairStore, StoredMap
from xrf_sr_plans.training.batches import batch_tensors, predict_batch
from xrf_sr_plans.training.fine_tuning import fine_tune, supervised_loss
from xrf_sr_plans.training.samples import Sample as KnownSample
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch

ELEMENTS = ("Ca", "Fe", "Zn")
SIDE_UM, STEP_UM, PIXEL_UM = 48.0, 0.5, 0.25
"""Side of an area, fine step, and pixels in which samples are painted."""
DWELL_MS = 20.0
FACTORS = (2, 4)
TEST_SEED, CEILING_SEED = 500, 1000
"""Samples from here on are for testing, and for the ceiling; pairs come before."""
CEILING_SAMPLES = 100
SHARE, ROW_S = 0.2, 0.1
WORST = 0.05


def weave(seed: int, size: int = round(1.25 * SIDE_UM / PIXEL_UM)) -> np.ndarray:
    """Return a sample (element, y, x), 0 to 1: woven fibres, and grains where they cross.

    All fibres of a sample have one width; their directions are those of warp and weft.
    """
    rng = np.random.default_rng([seed, 31])
    y, x = np.mgrid[:size, :size] * PIXEL_UM
    turn = rng.uniform(0, np.pi)
    width_um = rng.uniform(0.8, 1.4)
    planes = []
    for angle in (turn, turn + np.pi / 2 + rng.uniform(-0.15, 0.15)):
        across = x * np.cos(angle) + y * np.sin(angle)
        places = np.cumsum(rng.uniform(3.5, 9.0, 30)) - 80.0
        nearest = np.abs(across[..., None] - places).min(axis=-1)
        planes.append(np.clip(1.0 - 2 * np.clip(nearest - width_um / 2, 0, None) / 0.3, 0, 1))
    warp, weft = planes
    cross = ndimage.gaussian_filter(warp * weft, 0.3 / PIXEL_UM)
    labels, number = ndimage.label(cross > 0.3)
    kept = np.concatenate([[False], rng.random(number) < 0.3])[labels]
    soft = ndimage.gaussian_filter(rng.random((size, size)), 4.0 / PIXEL_UM)
    soft = (soft - soft.min()) / np.ptp(soft)
    return np.stack(
        [cross * kept + 0.02, 0.7 * warp + 0.25 * weft + 0.05, weft + 0.1 * soft + 0.05]
    )


def second_beamline(seed: int) -> SimBeamline:
    """Return another beamline than the demo's, with one of these samples on it."""
    sample = Sample.centered(weave(seed), ELEMENTS, PIXEL_UM, counts_p99=40.0, name=f"weave {seed}")
    return make_beamline(
        sample,
        seed=seed,
        probe_fwhm_um=0.8,
        detector=Detector(n_elements=1, dead_time_us=1.5, background_cps=20.0),
        i0_ripple=0.03,
        drift_um_per_s=(0.0004, -0.0003),
        backlash_um=0.1,
        encoder_noise_um=0.03,
    )


def fly_pairs(seeds: Sequence[int], store: Path) -> None:
    """Fly a pair of each sample; the analysis puts it into the store."""
    for seed in seeds:
        with start_session(
            RunEngine({}),
            second_beamline(seed),
            settings=AnalysisSettings(pair_dir=str(store), threads=1),
            in_process=True,
            approvals="off",
        ) as session:
            assert session.run_engine is not None
            plan = session.plans["acquire_pair"](
                width_um=SIDE_UM,
                height_um=SIDE_UM,
                x_center_um=0,
                y_center_um=0,
                fine_step_um=STEP_UM,
                dwell_ms=DWELL_MS,
                factors=FACTORS,
            )
            session.run_engine(plan, sample=f"weave {seed}")
            assert session.link.flush(120)


@dataclass(frozen=True, eq=False)
class Trial:
    """A coarse map of a sample that nothing was learnt from, with its truth."""

    coarse: StoredMap
    seed: int
    truth: np.ndarray
    """Photons per pixel of the enhanced map, without noise (element, y, x)."""


def trials(store: Path, seeds: Sequence[int]) -> Iterator[Trial]:
    """Yield the coarse maps that were flown first of each pair, with their truth."""
    for pair in PairStore(store).pairs():
        seed = int(pair.sample.split()[1])
        assert seed in seeds
        seen: set[int] = set()
        for coarse in sorted(pair.coarse, key=lambda one: one.position):
            if coarse.factor in seen:
                continue
            seen.add(coarse.factor)
            measurement = measurement_of(coarse.maps, coarse.factor, deblur=False)
            grid = coarse.maps.grid.refined(measurement.refinement)
            dwell_ms = float(coarse.maps.attrs["dwell_ms"])
            yield Trial(coarse, seed, expected_counts(second_beamline(seed), grid, dwell_ms))


def tried(model: str | None, over: Sequence[Trial]) -> dict[str, Any]:
    """Return the figures of a model on all trials."""
    rows = []
    for trial in over:
        made = enhance_maps(trial.coarse.maps, trial.coarse.factor, model=model, device="cpu")
        for element, truth in enumerate(trial.truth):
            found, low, high, trusted = (
                made.dataset[name].values[element]
                for name in ("estimate", "lower", "upper", "trusted")
            )
            error = np.abs(found - truth) / np.sqrt(truth + 1)
            worst = error >= np.quantile(error, 1 - WORST)
            rows.append(
                {
                    "factor": trial.coarse.factor,
                    "element": ELEMENTS[element],
                    "db": psnr_db(found, truth),
                    "coverage": float(((low <= truth) & (truth <= high)).mean()),
                    "flag": float((~trusted.astype(bool))[worst].mean()),
                    "flagged": float((~trusted.astype(bool)).mean()),
                }
            )
    return {"rows": rows, "recall": [r for trial in over for r in recall_of(model, trial)]}


def recall_of(model: str | None, trial: Trial) -> list[float]:
    """Return the share of the targets that is rescanned, if there is anything to look for."""
    if trial.coarse.factor != max(FACTORS):
        return []
    asked = question(trial.truth[:1], np.random.default_rng(trial.seed))
    if asked is None:
        return []
    element, threshold = asked
    enhanced = enhance_maps(trial.coarse.maps, trial.coarse.factor, model=model, device="cpu")
    task = Task(
        KnownSample(f"weave {trial.seed}", "weave", trial.truth),
        0.0,
        f"{ELEMENTS[element]} > {threshold * enhanced.fast_pixels:.8g}",
        element,
        threshold,
        trial.truth[element],
        enhanced.per_coarse_pixel(),
        trial.truth,
        targets_of(trial.truth[element] > threshold),
        ROW_S,
    )
    boxes = ours(task, max(SHARE * task.whole_s - task.survey_s, 0.0))
    return [recalls(task, boxes)[0]]


def ceiling(over: Sequence[Trial], steps: int) -> dict[str, Any]:
    """Return the dB of the shipped model after training on noise-free samples of the very kind."""
    path = model_path(None)
    network = load_network(path, read_card(path))
    calibration = load_model(None)[1]
    factor = round(STEP_UM / PIXEL_UM)
    painted = [weave(CEILING_SEED + number) for number in range(CEILING_SAMPLES)]
    # On the fine step, as a fine map would show them with no end of photons.
    maps = [
        one[:, : one.shape[1] // factor * factor, : one.shape[2] // factor * factor]
        .reshape(len(one), one.shape[1] // factor, factor, one.shape[2] // factor, factor)
        .mean(axis=(2, 4))
        .astype(np.float32)
        for one in painted
    ]
    samples = Samples([], maps)
    reads = [reading for reading in READINGS if reading[0] in FACTORS]

    def loss(step: int) -> torch.Tensor:
        drawn = random_batch(
            samples,
            7,
            step,
            maps_per_batch=8,
            coarse_px=24,
            only_elements=1 + step % len(ELEMENTS),
            reads=reads,
        )
        batch = batch_tensors(drawn)
        return supervised_loss(predict_batch(network, batch), batch)

    fine_tune(network, loss, steps=steps, learning_rate=3e-4)
    rows = []
    for trial in over:
        maps_ = trial.coarse.maps
        measurement = measurement_of(maps_, trial.coarse.factor, deblur=False)
        fields, _ = estimate(
            prepare_maps(maps_), maps_.elements, measurement, calibration, network.eval(), "cpu"
        )
        for element, truth in enumerate(trial.truth):
            rows.append(
                {
                    "factor": trial.coarse.factor,
                    "element": ELEMENTS[element],
                    "db": psnr_db(fields["estimate"][element], truth),
                }
            )
    return {"rows": rows, "recall": []}


def table(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for each model and factor; dB are those over the shipped model's."""
    base = [row["db"] for row in found["shipped"]["rows"]]
    lines = []
    for name, result in found.items():
        gains = np.array([row["db"] for row in result["rows"]]) - base
        for factor in FACTORS:
            chosen = np.array([row["factor"] == factor for row in result["rows"]])
            elements = np.array([row["element"] for row in result["rows"]])
            line: dict[str, Any] = {"model": name, "factor": factor, "db": gains[chosen].mean()}
            line["worst"] = min(gains[chosen & (elements == one)].mean() for one in ELEMENTS)
            for figure in ("coverage", "flag", "flagged"):
                values = [row.get(figure, np.nan) for row in result["rows"]]
                line[figure] = float(np.mean(np.array(values)[chosen]))
            last = factor == max(FACTORS) and result["recall"]
            line["recall"] = float(np.mean(result["recall"])) if last else np.nan
            lines.append(line)
    return lines


def draw(lines: Sequence[dict[str, Any]], numbers: Sequence[int], path: Path) -> None:
    """Save dB and coverage by the number of pairs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    names = ["shipped", *(f"{number} pairs" for number in numbers)]
    for factor, color in zip(FACTORS, ("#1b6ca8", "#d95f02"), strict=True):
        of = {line["model"]: line for line in lines if line["factor"] == factor}
        places = range(len(names))
        left.plot(places, [of[name]["db"] for name in names], "o-", color=color, label=f"{factor}x")
        left.axhline(of["ceiling"]["db"], color=color, linestyle=":", linewidth=1)
        right.plot(places, [of[name]["coverage"] for name in names], "o-", color=color)
    left.set_ylabel("dB over the shipped model\n(dotted: ceiling)")
    left.legend(frameon=False)
    right.axhline(0.9, color="grey", linestyle="--", linewidth=1)
    right.set_ylabel("coverage of the 90 % intervals")
    for axis in (left, right):
        axis.set_xticks(range(len(names)), names, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[3, 10, 30])
    parser.add_argument("--tests", type=int, default=8)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder of stores and models")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        home = options.keep or Path(temporary)
        seeds = range(TEST_SEED, TEST_SEED + options.tests)
        if not (home / "tests").exists():
            fly_pairs(seeds, home / "tests")
        over = list(trials(home / "tests", seeds))
        found = {"shipped": tried(None, over)}
        done, verdicts = 0, {}
        for number in options.pairs:
            fly_pairs(range(done, number), home / "pairs")
            done = number
            name = f"{number} pairs"
            out = home / name.replace(" ", "-")
            settings = LearningSettings(pairs=home / "pairs", out=out, steps=options.steps)
            model = train_on_pairs(settings)
            lessons = lessons_of(PairStore(home / "pairs"))
            compared = compare_models(model, None, lessons.held_out)
            verdicts[name] = {
                "promotes": compared.promotes,
                "reasons": compared.reasons,
                "areas": [len(lessons.learn), len(lessons.held_out), len(lessons.left_out)],
            }
            print(f"{name}: {verdicts[name]}", flush=True)
            found[name] = tried(str(model), over)
        found["ceiling"] = ceiling(over, options.steps)
    lines = table(found)
    print(f"{'':12}{'x':>3}{'dB':>8}{'worst':>8}{'coverage':>10}{'flag':>7}{'of':>7}{'recall':>8}")
    for line in lines:
        print(
            f"{line['model']:12}{line['factor']:3}{line['db']:+8.2f}{line['worst']:+8.2f}"
            f"{line['coverage']:10.3f}{line['flag']:7.2f}{line['flagged']:7.2f}{line['recall']:8.2f}"
        )
    if options.picture:
        draw(lines, options.pairs, options.picture)
    if options.json:
        options.json.write_text(json.dumps({"table": lines, "verdicts": verdicts}, indent=1))


if __name__ == "__main__":
    main()
