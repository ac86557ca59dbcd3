"""What the fine maps so far say of a model: its coverage, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from xrf_sr_plans.store.ledger import Entry

NOMINAL = 0.90


TOLERATED = 0.87, 0.93


"""Pooled coverage of 90 % intervals outside of this is warned about."""


POOL_PIXELS = 50_000


"""The latest so many pixels are looked at."""


LEAST_EFFECTIVE = 50


"""With fewer independent pixels nothing is said."""


CONFIDENCE = 0.99


ENOUGH_MAPS = 5


"""From so many fine maps on a calibration can be estimated anew."""


LARGEST_BIAS = 0.05


WORST_GAIN_DB = -0.2


Judgement = Literal["unknown", "calibrated", "overconfident", "underconfident"]


Recommendation = Literal["fine", "recalibrate", "collect pairs", "retrain"]


@dataclass(frozen=True)
class Verdict:
    """What the latest fine maps say about a model's intervals, and what to do about it.

    Parameters
    ----------
    coverage_90, low, high
        Pooled over `pixels`, with its 99 % interval.
    effective_pixels
        How many independent ones they are worth.
    warning
        In words; empty where there is nothing to warn about.
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
        """Return JSON types."""
        return asdict(self)


def judge(entries: Sequence[Entry], element: str | None = None) -> Verdict:
    """Pool the latest `POOL_PIXELS` of entries (in the order of time; of one element or of all).

    Neighbouring pixels are right or wrong together (`Entry.effective_pixels`), and so are whole
    fine maps: the interval is the wider one of what both allow. A warning needs a pooled coverage
    outside `TOLERATED` whose interval doesn't hold the nominal 90 %, so a tiny region never
    raises one. A fallback's intervals were never calibrated: they are pooled but not judged.
    """
    from xrf_sr_plans.metrics.hallucination import wilson_interval

    latest = _latest([one for one in entries if element in (None, one.element)])
    pixels = np.array([one.pixels for one in latest], dtype=float)
    if not latest:
        return Verdict(math.nan, 0.0, 1.0, 0, 0.0, 0, "unknown", "fine")
    covered = np.array([one.coverage_90 for one in latest])
    weight = pixels / pixels.sum()
    coverage = float(weight @ covered)
    spread = max(coverage * (1 - coverage), 1e-4)
    each = np.maximum([one.effective_pixels for one in latest], 1.0)
    variance = spread * float((weight**2 / each).sum())
    maps = sorted({one.fine_uid for one in latest})
    if len(maps) >= ENOUGH_MAPS:
        off = weight * (covered - coverage)
        by_map = [sum(off[i] for i, one in enumerate(latest) if one.fine_uid == m) for m in maps]
        between = float(np.square(by_map).sum()) * len(maps) / (len(maps) - 1)
        variance = max(variance, between)
    effective = min(spread / variance, float(pixels.sum()))
    # Rounded to whole trials: Wilson's interval is one of counts.
    trials = max(1, round(effective))
    low, high = wilson_interval(round(coverage * trials), trials, CONFIDENCE)
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
        of = "all elements" if element is None else element
        warning = (
            f"{advice}: {why}; 90 % intervals of {latest[-1].model} cover {coverage:.3f}"
            f" ({low:.3f}..{high:.3f}) of {of} in {len(maps)} fine maps"
        )
    return Verdict(
        coverage, low, high, int(pixels.sum()), effective, len(maps), judgement, advice, warning
    )


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
    gain = _mean([one.psnr_enhanced_db - one.psnr_baseline_db for one in latest], weight)
    bias = _mean([one.bias for one in latest], weight)
    if fine_maps >= ENOUGH_MAPS and gain < WORST_GAIN_DB:
        return "retrain", f"the prediction is {-gain:.2f} dB worse than bicubic"
    if judgement == "calibrated":
        return "fine", ""
    # Regions are chosen where much is predicted, so predictions lie somewhat high there; only
    # where the intervals don't cover that is it the model's fault.
    if fine_maps >= ENOUGH_MAPS and abs(bias) > LARGEST_BIAS:
        return "retrain", f"predicted counts are off by {100 * bias:+.1f} %"
    if fine_maps >= ENOUGH_MAPS:
        return "recalibrate", f"intervals are {judgement}"
    return "collect pairs", f"intervals are {judgement}"


def _mean(values: Sequence[float], weight: np.ndarray) -> float:
    """Weighted mean of what is known; 0 where nothing is (an empty map has no PSNR)."""
    array = np.asarray(values, dtype=float)
    known = np.isfinite(array)
    return float(np.average(array[known], weights=weight[known])) if known.any() else 0.0
