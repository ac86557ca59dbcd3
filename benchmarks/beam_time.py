"""What a survey with rescans finds for its beam time, next to other ways to choose the rescans.

    python benchmarks/beam_time.py [--quick] [--real FOLDER] [--factor 4] [--row-s 0.1]
                                   [--sampling rows] [--validation] [--per-family 9] [--json OUT]
                                   [--two-rounds [SHARE ...]] [--picture PNG] [--write]

A sample is measured coarsely, a rule picks boxes, and the boxes are flown finely. A *target* is a
connected place of the sample that satisfies the query and is at most 30 fine pixels long; it is
found when every one of its pixels is in a box that is flown. The time is that of the survey and of
the boxes, as a share of the time for the whole map with the fine step. The truth is this script's
own; no rule sees it but the oracle. Ours enhances rows, the others get the bicubic map of squares
flown in the same time with the same dose (--sampling fly: ours gets those squares, too).

oracle          the targets themselves, covered as ours are
ours            what the product picks (`rois.pick`): P(match), boxes by value within the time
ours, bicubic   the same rule on the bicubic map and its calibrated interval
threshold       connected places where the bicubic map satisfies the query, by signal per second
threshold + pad the same with half a coarse pixel of margin
X-AutoMap-like  dilated once, margin of 25 %, as X-AutoMap-HXN pads its regions
LoG             blobs of the bicubic map by a Laplacian of Gaussians, boxes of three sigmas
k-means, GMM    clusters of the pixels of the bicubic map, as ROI-Finder has them
two rounds      ours with a share of the time; the rest is spent after those boxes were measured

Recall is by number of targets, by their area and by their signal; `inf` is without a limit on the
time, with the time that it took. Differences to a rule have 95 % intervals of a paired bootstrap
over samples. `predicted` is the share that the product's forecast expected. Held-out phantoms, and
with --real measured maps that no training saw. --validation uses the samples on which the rules
were designed. --write puts what ours finds where `preview` tells it from (`rois.typical_shares`).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from two_rounds import SecondLook, second_boxes

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.measurement import Measurement, Sampling, checked_sampling
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.rois import typical_shares
from xrf_sr_plans.rois.candidates import RescanCost, candidate_boxes, contains, possible_targets
from xrf_sr_plans.rois.cover import cover
from xrf_sr_plans.rois.pick import Picked, pick_regions
from xrf_sr_plans.schema import AnalysisRequest, RescanModel
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.training.phantoms import FAMILIES, TEST_SEED, VALIDATION_SEED, phantom
from xrf_sr_plans.training.samples import Sample, fit_to_blocks, real_samples
from xrf_sr_plans.training.simulated_pairs import Simulation, simulate

LARGEST_PX = 30
"""Longest side of a target in fine pixels."""
SMALLEST_PX = 4
"""Fewest fine pixels of a target."""
BUDGETS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, math.inf)
COUNTS = (10.0, 50.0, 200.0, 1000.0)
PROBE_STEPS = 0.5
BOX_S = 0.5
"""Seconds for the way to each box."""
DWELL_S = 0.01
"""Seconds for each pixel, coarse or fine."""
FAMILIES_WITH_TARGETS = tuple(name for name in sorted(FAMILIES) if name != "gratings")
DESIGN_SEED = VALIDATION_SEED + 500_000
_EIGHT = np.ones((3, 3))

Boxes = np.ndarray
"""Boxes of fine pixels [box, (y0, y1, x0, x1)]."""


@dataclass(frozen=True, eq=False)
class Task:
    """One sample, measured and enhanced, with a query and its targets.

    Parameters
    ----------
    sample
        The sample.
    n99
        Counts per coarse pixel at the 99.9 % quantile.
    query
        What is looked for.
    element
        Index of the element that the query is about.
    threshold
        Photons per coarse pixel that the query asks for.
    truth
        The fine map of that element without noise, in photons per coarse pixel (Y, X).
    enhanced
        The enhanced map, in photons per coarse pixel.
    squares
        The bicubic map of squares, flown in the same time with the same dose (element, Y, X).
    targets
        Pixels of each target: its window and its mask there.
    row_s
        Seconds that a row takes besides its pixels.
    """

    sample: Sample
    n99: float
    query: str
    element: int
    threshold: float
    truth: np.ndarray
    enhanced: EnhancedMaps
    squares: np.ndarray
    targets: list[tuple[tuple[slice, slice], np.ndarray]]
    row_s: float

    @property
    def cost(self) -> RescanCost:
        """How long a box takes."""
        return RescanCost(DWELL_S, self.row_s, BOX_S)

    @property
    def whole_s(self) -> float:
        """Seconds for the whole map with the fine step."""
        return self._seconds(*self.truth.shape)

    @property
    def survey_s(self) -> float:
        """Seconds for the coarse map."""
        factor = self.enhanced.factor
        return self._seconds(*(size // factor for size in self.truth.shape))

    def _seconds(self, rows: int, columns: int) -> float:
        return rows * (columns * DWELL_S + self.row_s)

    @property
    def bicubic(self) -> np.ndarray:
        """The bicubic map of the element that the query is about (Y, X)."""
        return self.squares[self.element]


def targets_of(mask: np.ndarray) -> list[tuple[tuple[slice, slice], np.ndarray]]:
    """Return the connected places of a mask (y, x) that are small enough to be targets."""
    labels, _ = ndimage.label(mask, structure=_EIGHT)
    found = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[window] == number
        if max(inside.shape) <= LARGEST_PX and inside.sum() >= SMALLEST_PX:
            found.append((window, inside))
    return found


def question(truth: np.ndarray, rng: np.random.Generator) -> tuple[int, float] | None:
    """Return an element and a threshold with 3 to 80 targets in at most 12 % of the map, if any."""
    possible = []
    for element, plane in enumerate(truth):
        for quantile in (0.9, 0.95, 0.98, 0.99):
            threshold = float(np.quantile(plane, quantile))
            mask = plane > threshold
            if threshold > 0 and mask.mean() < 0.12 and 3 <= len(targets_of(mask)) <= 80:
                possible.append((element, threshold))
    return possible[rng.integers(len(possible))] if possible else None


def tasks(
    samples: Sequence[Sample], factor: int, row_s: float, sampling: Sampling = "rows"
) -> Iterator[Task]:
    """Yield every sample at every dose, with a question if it has one.

    Others' rules get the bicubic map of squares, which is what is flown today. Ours gets the
    enhanced map of rows, at the same time and dose (or of the same squares, as `sampling` says).
    """
    for number, sample in enumerate(samples):
        maps = fit_to_blocks(sample.maps, factor)
        names = [f"E{index}" for index in range(len(maps))]
        for dose, n99 in enumerate(COUNTS):
            rng = np.random.default_rng([number, dose, factor])
            squares, measured = (
                simulate(
                    maps,
                    Simulation.plain(
                        Measurement(factor, way, PROBE_STEPS, deblur=False), n99, len(maps)
                    ),
                    np.random.default_rng([number, dose, factor, 1]),
                )
                for way in ("fly", sampling)
            )
            asked = question(squares.truth, rng)
            if asked is None:
                continue
            element, threshold = asked
            enhanced = enhance(
                measured.counts,
                elements=names,
                factor=factor,
                step_um=float(factor),
                probe_fwhm_um=PROBE_STEPS * factor,
                sampling=sampling,
                deblur=False,
                dwell_ms=DWELL_S * 1e3 / measured.measurement.fast_pixels,
                device="cpu",
            ).per_coarse_pixel()
            truth = squares.truth[element]
            yield Task(
                sample,
                n99,
                f"{names[element]} > {threshold:.8g}",
                element,
                threshold,
                truth,
                enhanced,
                np.clip(upsample(squares.counts, factor), 0, None),
                targets_of(truth > threshold),
                row_s,
            )


def request_for(task: Task, budget_s: float) -> AnalysisRequest:
    """Return what a survey would ask for with so much time for rescans."""
    enhanced = task.enhanced
    rescans = RescanModel(
        step_um=enhanced.grid.fast.step_um,
        dwell_ms=DWELL_S * 1e3,
        row_overhead_s=task.row_s,
        region_overhead_s=BOX_S,
        budget_s=None if math.isinf(budget_s) else budget_s,
    )
    return AnalysisRequest(
        factor=enhanced.factor, find=task.query, rescans=rescans, max_regions=1000
    )


def picked(task: Task, budget_s: float, enhanced: EnhancedMaps | None = None) -> Picked:
    """Return what the product picks, and its forecast."""
    return pick_regions(enhanced or task.enhanced, request_for(task, budget_s), source_uid="")


def boxes_of(task: Task, picked: Picked) -> Boxes:
    """Return the picked regions as boxes of pixels."""
    grid = task.enhanced.grid
    slow, fast = grid.slow.edges_um, grid.fast.edges_um
    boxes = [
        (
            np.searchsorted(slow, region.y_low_um - 1e-6),
            np.searchsorted(slow, region.y_high_um - 1e-6),
            np.searchsorted(fast, region.x_low_um - 1e-6),
            np.searchsorted(fast, region.x_high_um - 1e-6),
        )
        for region in picked.regions
    ]
    return np.array(boxes, dtype=int).reshape(-1, 4)


def ours(task: Task, budget_s: float) -> Boxes:
    """Return what the product picks."""
    return boxes_of(task, picked(task, budget_s))


def in_two_rounds(task: Task, budget_s: float, *, share: float, look: SecondLook) -> Boxes:
    """Return what the product picks with a share of the time, and what a second look adds."""
    first = ours(task, share * budget_s)
    left_s = budget_s - float(task.cost.seconds(first).sum())
    if math.isinf(budget_s):
        return first
    # Fine pixels are as long in the beam as coarse ones, so they count as many photons.
    counts = np.random.default_rng(0).poisson(np.maximum(task.truth, 0.0)).astype(float)
    counts[~flown(task, first)] = np.nan
    second = second_boxes(task.enhanced, request_for(task, left_s), first, counts, look)
    return np.vstack([first, second])


def ours_on_bicubic(task: Task, budget_s: float) -> Boxes:
    """Return what our rule picks from the bicubic map, with intervals as wide as its errors.

    Of all that is measured here only these widths come from the truth, to bicubic's advantage.
    """
    planes = task.enhanced.dataset
    baseline = task.squares
    error = task.truth - baseline[task.element]
    scale = np.sqrt(np.maximum(baseline, 0) + 1)
    width = np.quantile(np.abs(error) / scale[task.element], 0.9) * scale
    changed = {
        "estimate": baseline,
        "baseline": baseline,
        "lower": baseline - width,
        "upper": baseline + width,
        "sigma": width / 1.645,
        "trusted": np.ones(baseline.shape, dtype=bool),
    }
    dataset = planes.assign({name: (planes["estimate"].dims, v) for name, v in changed.items()})
    return boxes_of(task, picked(task, budget_s, EnhancedMaps(dataset, task.enhanced.grid)))


def oracle(task: Task, budget_s: float) -> Boxes:
    """Return boxes around the targets themselves, joined and chosen as ours are."""
    known = np.zeros(task.truth.shape)
    for window, inside in task.targets:
        known[window][inside] = 1.0
    targets = possible_targets(known, known)
    boxes = candidate_boxes(
        known, targets, targets.weight, task.cost, pad_px=(0, 0), largest_px=known.shape
    )
    held = contains(boxes, targets.boxes)
    chosen = cover(
        held, targets.weight, task.cost.seconds(boxes), budget_s=budget_s, worth_per_s=0.0
    )
    return boxes[chosen]


def _parts(mask: np.ndarray, signal: np.ndarray) -> tuple[Boxes, np.ndarray]:
    """Return the boxes of the connected places of a mask (y, x), and the signal in each."""
    labels, number = ndimage.label(mask, structure=_EIGHT)
    boxes = [
        (rows.start, rows.stop, columns.start, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
    ]
    sums = ndimage.sum_labels(signal, labels, np.arange(1, number + 1))
    return np.array(boxes, dtype=int).reshape(-1, 4), np.asarray(sums, dtype=float)


def _by_rate(task: Task, boxes: Boxes, value: np.ndarray, budget_s: float) -> Boxes:
    """Return the boxes that fit, those with the most value per second first."""
    seconds = task.cost.seconds(boxes)
    chosen, left_s = [], budget_s
    for index in np.argsort(-value / seconds, kind="stable"):
        if seconds[index] <= left_s:
            chosen.append(index)
            left_s -= seconds[index]
    return boxes[chosen]


def _grown(boxes: Boxes, pads: np.ndarray | int, task: Task) -> Boxes:
    height, width = task.truth.shape
    pads = np.broadcast_to(pads, len(boxes))[:, None]
    return np.clip(boxes + pads * np.array([-1, 1, -1, 1]), 0, [height, height, width, width])


def threshold(task: Task, budget_s: float) -> Boxes:
    """Return the connected places where the bicubic map satisfies the query."""
    return _by_rate(task, *_parts(task.bicubic > task.threshold, task.bicubic), budget_s)


def padded_threshold(task: Task, budget_s: float) -> Boxes:
    """Return the same places with a margin of half a coarse pixel."""
    boxes, value = _parts(task.bicubic > task.threshold, task.bicubic)
    return _by_rate(task, _grown(boxes, task.enhanced.factor // 2, task), value, budget_s)


def automap(task: Task, budget_s: float) -> Boxes:
    """Return dilated places with a margin of a quarter of their longer side."""
    mask = ndimage.binary_dilation(task.bicubic > task.threshold, structure=_EIGHT)
    boxes, value = _parts(mask, task.bicubic)
    longer = np.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2])
    return _by_rate(task, _grown(boxes, np.ceil(longer / 4).astype(int), task), value, budget_s)


@lru_cache(maxsize=1)
def _blobs(task: Task) -> tuple[Boxes, np.ndarray]:
    """Return boxes of three sigmas around blobs, and the signal in each."""
    from skimage.feature import blob_log

    plane = task.bicubic
    blobs = blob_log(plane / max(plane.max(), 1e-9), min_sigma=1, max_sigma=10, threshold=0.05)
    kept = [(y, x, s) for y, x, s in blobs if plane[int(y), int(x)] > task.threshold]
    boxes = np.array(
        [(y - 3 * s, y + 3 * s + 1, x - 3 * s, x + 3 * s + 1) for y, x, s in kept]
    ).reshape(-1, 4)
    boxes = _grown(boxes.round().astype(int), 0, task)
    value = np.array([plane[y0:y1, x0:x1].sum() for y0, y1, x0, x1 in boxes])
    return boxes, value


def log_blobs(task: Task, budget_s: float) -> Boxes:
    """Return boxes of three sigmas around blobs whose middle satisfies the query."""
    return _by_rate(task, *_blobs(task), budget_s)


def _clusters(task: Task, fit: Callable[[np.ndarray], np.ndarray]) -> tuple[Boxes, np.ndarray]:
    """Return the places of the cluster of pixels with the highest mean of the wanted element."""
    maps = task.squares
    features = np.sqrt(np.clip(maps.reshape(len(maps), -1).T, 0, None))
    labels = fit(features).reshape(task.truth.shape)
    means = ndimage.mean(task.bicubic, labels, np.arange(labels.max() + 1))
    return _parts(labels == int(np.argmax(means)), task.bicubic)


@lru_cache(maxsize=1)
def _k_means(task: Task) -> tuple[Boxes, np.ndarray]:
    from sklearn.cluster import KMeans

    return _clusters(task, KMeans(4, n_init=2, random_state=0).fit_predict)


@lru_cache(maxsize=1)
def _mixture(task: Task) -> tuple[Boxes, np.ndarray]:
    from sklearn.mixture import GaussianMixture

    return _clusters(task, GaussianMixture(4, random_state=0).fit_predict)


def k_means(task: Task, budget_s: float) -> Boxes:
    """Return the places of the k-means cluster with most of the element."""
    return _by_rate(task, *_k_means(task), budget_s)


def mixture(task: Task, budget_s: float) -> Boxes:
    """Return the places of the Gaussian mixture's component with most of the element."""
    return _by_rate(task, *_mixture(task), budget_s)


ARMS: dict[str, Callable[[Task, float], Boxes]] = {
    "oracle": oracle,
    "ours": ours,
    "ours, bicubic": ours_on_bicubic,
    "threshold": threshold,
    "threshold + pad": padded_threshold,
    "X-AutoMap-like": automap,
    "LoG": log_blobs,
    "k-means": k_means,
    "GMM": mixture,
}
LOOKS = {
    "two rounds, blind": SecondLook(whole=False, blind=True),
    "two rounds, recalibrated": SecondLook(continuity=False, whole=False),
    "two rounds, continuity": SecondLook(rescale=False, whole=False),
    "two rounds, all": SecondLook(),
}
"""Ways to look again (`--two-rounds`)."""
MEASURES = ("number", "area", "signal")


def flown(task: Task, boxes: Boxes) -> np.ndarray:
    """Return the pixels that are in any of the boxes (y, x)."""
    inside = np.zeros(task.truth.shape, dtype=bool)
    for y0, y1, x0, x1 in boxes.tolist():
        inside[y0:y1, x0:x1] = True
    return inside


def recalls(task: Task, boxes: Boxes) -> tuple[float, float, float]:
    """Return the shares of the targets found by number, by area and by signal."""
    held = flown(task, boxes)
    found = np.array([held[window][inside].all() for window, inside in task.targets], dtype=float)
    area = np.array([inside.sum() for _, inside in task.targets], dtype=float)
    signal = np.array([task.truth[window][inside].sum() for window, inside in task.targets])
    number, by_area, by_signal = (
        float((found * weight).sum() / weight.sum())
        for weight in (np.ones_like(area), area, signal)
    )
    return number, by_area, by_signal


def measured(task: Task, arms: Sequence[str]) -> dict[str, Any]:
    """Return recalls and shares of time of all rules on one task."""
    row: dict[str, Any] = {
        "sample": task.sample.name,
        "kind": task.sample.kind,
        "n99": task.n99,
        "targets": len(task.targets),
    }
    row["predicted"] = [0.0] * len(BUDGETS)
    for arm in arms:
        found = []
        for number, share in enumerate(BUDGETS):
            budget_s = share * task.whole_s - task.survey_s
            boxes = np.empty((0, 4), dtype=int)
            if budget_s > 0 and arm == "ours":
                own = picked(task, budget_s)
                boxes = boxes_of(task, own)
                row["predicted"][number] = own.forecast.share_found if own.forecast else 0.0
            elif budget_s > 0:
                boxes = ARMS[arm](task, budget_s)
            time_s = task.survey_s + float(task.cost.seconds(boxes).sum())
            found.append((*recalls(task, boxes), time_s / task.whole_s))
        row[arm] = found
    return row


def difference(
    rows: Sequence[dict[str, Any]], arm: str, other: str, at: int, measure: int = 0
) -> tuple[float, float, float]:
    """Return the mean difference in recall, and the 95 % interval of a bootstrap over samples."""
    samples = sorted({row["sample"] for row in rows})
    means = np.array(
        [
            np.mean([r[arm][at][measure] - r[other][at][measure] for r in rows if r["sample"] == s])
            for s in samples
        ]
    )
    rng = np.random.default_rng(0)
    drawn = means[rng.integers(len(means), size=(4000, len(means)))].mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


def table(rows: Sequence[dict[str, Any]], arms: Sequence[str]) -> list[str]:
    """Return recall by number / area / signal for each rule and budget, as lines of Markdown."""
    heads = [f"{share:.0%}" for share in BUDGETS[:-1]]
    lines = [
        f"| rule | {' | '.join(heads)} | no limit | its time |",
        "|---" * (len(heads) + 3) + "|",
    ]
    for arm in arms:
        values = np.mean([row[arm] for row in rows], axis=0)
        cells = [" / ".join(f"{value:.2f}" for value in cell[:3]) for cell in values]
        lines.append(f"| {arm} | {' | '.join(cells)} | {values[-1][3]:.0%} |")
    return lines


def report(rows: Sequence[dict[str, Any]], arms: Sequence[str], title: str) -> list[str]:
    """Return the table of one kind of samples, and the differences that count."""
    if not rows:
        return [f"{title}: no sample has a question"]
    targets = sum(row["targets"] for row in rows)
    lines = [f"{title}: {len(rows)} maps, {targets} targets", "", *table(rows, arms), ""]
    at = BUDGETS.index(0.2)
    for other in ("threshold", "threshold + pad", "X-AutoMap-like", "ours, bicubic"):
        if other in arms and "ours" in arms:
            mean, low, high = difference(rows, "ours", other, at)
            lines.append(f"ours - {other} at 20 %: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    for arm in (arm for arm in arms if arm.startswith("two rounds") and "ours" in arms):
        for share in (0.1, 0.15, 0.2, 0.3):
            mean, low, high = difference(rows, arm, "ours", BUDGETS.index(share))
            lines.append(f"{arm} - ours at {share:.0%}: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
    lines += ["", *_predictions(rows), "", *losses(rows, at)]
    return lines


def _predictions(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return the predicted share of the targets beside the one that was found, for each budget."""
    if "ours" not in rows[0]:
        return []
    told = np.mean([row["predicted"] for row in rows], axis=0)
    real = np.mean([[found[0] for found in row["ours"]] for row in rows], axis=0)
    heads = [f"{share:.0%}" if math.isfinite(share) else "no limit" for share in BUDGETS]
    both = [f"{one:.2f} / {other:.2f}" for one, other in zip(told, real, strict=True)]
    return ["predicted / found: " + ", ".join(map(": ".join, zip(heads, both, strict=True)))]


def losses(rows: Sequence[dict[str, Any]], at: int) -> list[str]:
    """Return the kinds and doses in which bicubic + threshold is significantly ahead of ours."""
    found = []
    for kind in sorted({row["kind"] for row in rows}):
        for n99 in COUNTS:
            cell = [row for row in rows if row["kind"] == kind and row["n99"] == n99]
            if len(cell) > 1 and {"ours", "threshold"} <= set(cell[0]):
                mean, _, high = difference(cell, "ours", "threshold", at)
                if high < 0:
                    found.append(f"{kind} at {n99:g}: {mean:+.3f}")
    return [f"significantly behind bicubic + threshold: {'; '.join(found) or 'nowhere'}"]


def samples(options: argparse.Namespace) -> dict[str, list[Sample]]:
    """Return the samples by where they come from."""
    first = DESIGN_SEED if options.validation else TEST_SEED + 900
    number = 1 if options.quick else options.per_family
    size = 128 if options.quick else 256
    found = {
        "phantoms": [
            Sample(f"{family}-{seed}", family, phantom(family, seed, size=size))
            for family in FAMILIES_WITH_TARGETS
            for seed in range(first, first + number)
        ]
    }
    if options.real:
        found["real maps"] = list(real_samples(Path(options.real)))
    return found


def draw(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace, path: Path) -> None:
    """Draw the recall by number of each rule over the share of the time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(results), 4.2), layout="constrained")
    panels = figure.subplots(1, len(results), squeeze=False, sharey=True)[0]
    shares = np.array(BUDGETS[:-1])
    for axis, (title, rows) in zip(panels, results.items(), strict=True):
        for number, arm in enumerate(options.arms):
            recall = np.mean([[found[0] for found in row[arm][:-1]] for row in rows], axis=0)
            bold = arm in ("ours", "oracle")
            axis.plot(
                shares,
                recall,
                label=arm,
                color=f"C{number}",
                linewidth=2.4 if bold else 1.2,
                linestyle="-" if bold else "--",
                marker="o",
                markersize=3,
            )
        axis.set(
            title=f"{title}, {options.factor}x, {options.row_s:g} s a row",
            xlabel="survey and rescans, share of a fine map's time",
            ylim=(0, 1),
        )
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("share of the targets found")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=8, loc="outside right center")
    figure.savefig(path, dpi=110)


def write_typical(results: dict[str, list[dict[str, Any]]], factor: int) -> None:
    """Write what ours finds, by share of the time, for the preview of surveys."""
    path = Path(typical_shares.__file__).with_name(typical_shares.FILE_NAME)
    known = json.loads(path.read_text(encoding="utf-8"))
    recall = {
        title.replace(" ", "_"): np.mean([[f[0] for f in row["ours"][:-1]] for row in rows], axis=0)
        for title, rows in results.items()
    }
    measured = {name: values.round(3).tolist() for name, values in recall.items()}
    known[str(factor)] = {"time": list(BUDGETS[:-1]), **measured}
    path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--real")
    parser.add_argument("--factor", type=int, default=4, choices=(2, 4))
    parser.add_argument("--row-s", type=float, default=0.1)
    parser.add_argument("--sampling", default="rows", choices=("rows", "fly"))
    parser.add_argument("--validation", action="store_true")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--per-family", type=int, default=9)
    parser.add_argument("--two-rounds", nargs="*", type=float, metavar="SHARE")
    parser.add_argument("--json")
    parser.add_argument("--picture")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.two_rounds is not None:
        for share in options.two_rounds or [0.5]:
            for name, look in LOOKS.items():
                arm = f"{name}, {share:.0%} first"
                ARMS[arm] = partial(in_two_rounds, share=share, look=look)
                options.arms.append(arm)
    results = {}
    for title, some in samples(options).items():
        flown_as = checked_sampling(options.sampling)
        given = tasks(some, options.factor, options.row_s, flown_as)
        rows = [measured(task, options.arms) for task in given]
        results[title] = rows
        print("\n".join(report(rows, options.arms, f"{title}, {options.factor}x")), flush=True)
        print()
    if options.picture:
        draw(results, options, Path(options.picture))
    if options.write:
        write_typical(results, options.factor)
    if options.json:
        Path(options.json).write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    main()
