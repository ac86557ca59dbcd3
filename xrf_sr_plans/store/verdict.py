"""`judge`: what the fine maps measured so far say about a model's 90 % intervals.

The interval of the pooled coverage allows for neighboring pixels, and whole fine maps, being right
or wrong together, so that a few unlucky regions don't raise an alarm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy import special

from xrf_sr_plans.store.ledger import Entry

NOMINAL = 0.90
"""Coverage that the intervals are meant to have."""
TOLERATED = 0.87, 0.93
"""A warning needs a pooled coverage outside of this range."""
POOL_PIXELS = 50_000
"""Entries are pooled, beginning with the latest, until they hold this many pixels."""
LEAST_EFFECTIVE = 50
"""With fewer independent pixels than this, the model is not judged."""
CONFIDENCE = 0.99
"""Confidence level of the interval of the pooled coverage."""
ENOUGH_MAPS = 5
"""A new calibration, or the advice to train again, needs at least this many fine maps."""
LARGEST_BIAS = 0.05
"""Relative error of the total counts above which intervals that fail call for new training."""
WORST_GAIN_DB = -0.2
"""Mean PSNR relative to bicubic, in dB, below which a model should be trained again."""

PLACED_MAPS = 3
"""Fine maps that must agree before a fine stage is said to be off always."""
_CERTAIN = 0.995
"""Probability, on either side, from which a mean offset is told."""
LEAST_OFFSET_UM = 0.05
"""Offset in um below which a fine stage is where it should be."""

Judgement = Literal["unknown", "calibrated", "overconfident", "underconfident"]
Recommendation = Literal["fine", "recalibrate", "collect pairs", "retrain"]


@dataclass(frozen=True)
class Verdict:
    """What the latest fine maps say about a model's intervals, and what to do about it.

    Parameters
    ----------
    coverage_90
        Share of the measured pixels that lay inside the 90 % intervals, pooled over `pixels`.
    low, high
        Ends of the 99 % interval of `coverage_90`.
    pixels
        How many pixels were pooled.
    effective_pixels
        How many independent pixels they are worth.
    fine_maps
        How many fine maps they come from.
    judgement
        Whether the intervals are too narrow ("overconfident"), too wide ("underconfident"), right
        ("calibrated"), or whether too little is known to tell.
    recommendation
        What to do. "fine" means that nothing needs to be done.
    warning
        The recommendation and its reason in words; empty where there is nothing to warn about.
    """

    coverage_90: float
    low: float
    high: float
    pixels: int
    effective_pixels: float
    fine_maps: int
    judgement: Judgement
    recommendation: Recommendation
    warning: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types."""
        return asdict(self)


def judge(entries: Sequence[Entry], element: str | None = None) -> Verdict:
    """Pool the latest fine maps of a model and judge its 90 % intervals.

    Neighboring pixels are right or wrong together (see `Entry.effective_pixels`), and so are whole
    fine maps. The interval of the pooled coverage is the wider of those that follow from either. A
    warning needs a pooled coverage outside `TOLERATED` whose interval doesn't hold the nominal
    90 %, so a tiny region never raises one. Intervals of the bicubic fallback were never
    calibrated. They are pooled but not judged.

    Parameters
    ----------
    entries
        Entries of one model and factor in order of time. The latest `POOL_PIXELS` pixels count.
    element
        Only entries of this element are pooled; None stands for all elements.
    """
    from scipy.stats import binomtest

    latest = _latest([entry for entry in entries if element in (None, entry.element)])
    # These arrays have one value per entry, that is, per fine map and element.
    pixels = np.array([entry.pixels for entry in latest], dtype=float)
    if not latest:
        return Verdict(math.nan, 0.0, 1.0, 0, 0.0, 0, "unknown", "fine")
    covered = np.array([entry.coverage_90 for entry in latest])
    weight = pixels / pixels.sum()
    coverage = float(weight @ covered)
    # Variance of the pooled coverage: of a proportion in each entry's independent pixels, or what
    # the differences between whole fine maps show, whichever is larger.
    spread = max(coverage * (1 - coverage), 1e-4)
    independent = np.maximum([entry.effective_pixels for entry in latest], 1.0)
    variance = spread * float((weight**2 / independent).sum())
    maps = sorted({entry.fine_uid for entry in latest})
    if len(maps) >= ENOUGH_MAPS:
        off = weight * (covered - coverage)
        by_map = [
            sum(off[i] for i, entry in enumerate(latest) if entry.fine_uid == uid) for uid in maps
        ]
        between = float(np.square(by_map).sum()) * len(maps) / (len(maps) - 1)
        variance = max(variance, between)
    effective = min(spread / variance, float(pixels.sum()))
    # Rounded to whole trials, because Wilson's interval is one of counts.
    trials = max(1, round(effective))
    hits = binomtest(round(coverage * trials), trials)
    low, high = map(float, hits.proportion_ci(CONFIDENCE, method="wilson"))
    judgement: Judgement = "unknown"
    if effective >= LEAST_EFFECTIVE and latest[-1].model_sha256:
        judgement = "calibrated"
        if coverage < TOLERATED[0] and high < NOMINAL:
            judgement = "overconfident"
        elif coverage > TOLERATED[1] and low > NOMINAL:
            judgement = "underconfident"
    advice, why = _advice(latest, weight, judgement, len(maps))
    warning = ""
    if advice != "fine":
        judged = "all elements" if element is None else element
        warning = (
            f"{advice}: {why}; 90 % intervals of {latest[-1].model} cover {coverage:.3f}"
            f" ({low:.3f}..{high:.3f}) of {judged} in {len(maps)} fine maps"
        )
    return Verdict(
        coverage, low, high, int(pixels.sum()), effective, len(maps), judgement, advice, warning
    )


@dataclass(frozen=True)
class StageOffset:
    """Mean offset (x, y) of a fine stage, in um, over the latest fine maps that it flew."""

    dx_um: float
    dy_um: float
    fine_maps: int


def stage_offset(entries: Sequence[Entry]) -> StageOffset | None:
    """Return by how much a fine stage is always off, or None where it isn't.

    The fine maps of the latest survey count, because every change of sample or optics may move
    what the stages have in common. At least `PLACED_MAPS` have to agree within their spread.

    Parameters
    ----------
    entries
        Entries in order of time. The last one says which survey and which stage it is about.
    """
    last = entries[-1] if entries else None
    if last is None or not last.stage:
        return None
    offsets = {
        entry.fine_uid: (entry.dx_um, entry.dy_um)
        for entry in entries
        if (entry.stage, entry.survey_uid) == (last.stage, last.survey_uid)
        and entry.dx_um is not None
        and entry.dy_um is not None
    }
    if len(offsets) < PLACED_MAPS:
        return None
    # (fine map, axis)
    um = np.array(list(offsets.values()))
    mean, error = um.mean(axis=0), um.std(axis=0, ddof=1) / math.sqrt(len(um))
    # Of a few maps the spread itself is hardly known (Student's distribution).
    far = float(special.stdtrit(len(um) - 1, _CERTAIN))
    if not (np.abs(mean) > np.maximum(far * error, LEAST_OFFSET_UM)).any():
        return None
    return StageOffset(float(mean[0]), float(mean[1]), len(um))


def _latest(entries: Sequence[Entry]) -> list[Entry]:
    latest: list[Entry] = []
    pixels = 0
    for entry in reversed(entries):
        latest.append(entry)
        pixels += entry.pixels
        if pixels >= POOL_PIXELS:
            break
    return latest[::-1]


def _advice(
    latest: Sequence[Entry], weight: np.ndarray, judgement: Judgement, fine_maps: int
) -> tuple[Recommendation, str]:
    if judgement == "unknown":
        return "fine", "too few independent pixels to tell"
    gain = _mean([entry.psnr_enhanced_db - entry.psnr_baseline_db for entry in latest], weight)
    bias = _mean([entry.bias for entry in latest], weight)
    if fine_maps >= ENOUGH_MAPS and gain < WORST_GAIN_DB:
        return "retrain", f"the prediction is {-gain:.2f} dB worse than bicubic"
    if judgement == "calibrated":
        return "fine", ""
    # Regions are chosen where much is predicted, so predictions are somewhat too high there. That
    # is the model's fault only where its intervals don't cover it.
    if fine_maps >= ENOUGH_MAPS and abs(bias) > LARGEST_BIAS:
        return "retrain", f"predicted counts are off by {100 * bias:+.1f} %"
    if fine_maps >= ENOUGH_MAPS:
        return "recalibrate", f"intervals are {judgement}"
    return "collect pairs", f"intervals are {judgement}"


def _mean(values: Sequence[float], weight: np.ndarray) -> float:
    """Return the weighted mean of the finite values, or 0 (an empty map has no PSNR)."""
    array = np.asarray(values, dtype=float)
    known = np.isfinite(array)
    return float(np.average(array[known], weights=weight[known])) if known.any() else 0.0
