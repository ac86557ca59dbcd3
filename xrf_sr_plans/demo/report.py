"""`make_report`: the figures of a demo, beside the truth and beside what was possible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.table import Table

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.demo.question import DWELL_MS, Question
from xrf_sr_plans.demo.truth import expected_counts, rescanned
from xrf_sr_plans.devices.sim.beamline import SimBeamline
from xrf_sr_plans.evaluation.targets import TrueTargets, inside
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.metrics.image import psnr_db
from xrf_sr_plans.plans.preflight import map_cost
from xrf_sr_plans.plans.two_stages import grid_extents_um, region_way_s
from xrf_sr_plans.review.record import SurveyRecord
from xrf_sr_plans.rois.candidates import RescanCost

_MAPS = ("bicubic", "enhanced", "composite")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a survey of the demo measured and found, and the truth.

    Parameters
    ----------
    record
        The survey, with one coarse map.
    beamline
        The simulated beamline that it was flown on.
    question
        What was looked for.
    coarse, enhanced
        The coarse map and its enhancement.
    truth
        Photons per measured pixel of the coarse map without noise, on the enhanced grid
        (element, y, x).
    targets
        What there was to find.
    """

    record: SurveyRecord
    beamline: SimBeamline
    question: Question
    coarse: ElementalMaps
    enhanced: EnhancedMaps
    truth: np.ndarray
    targets: TrueTargets

    @classmethod
    def of(cls, record: SurveyRecord, beamline: SimBeamline, question: Question) -> Outcome:
        """Compare a survey with the sample that it was flown on."""
        (coarse,), (enhanced,) = record.coarse.values(), record.enhanced.values()
        truth = expected_counts(beamline, enhanced.grid, DWELL_MS / enhanced.fast_pixels)
        # Queries are asked in photons per step.
        plane = truth[enhanced.elements.index(question.element)] * enhanced.fast_pixels
        targets = TrueTargets.above(plane, question.above, question.fewest_px)
        return cls(record, beamline, question, coarse, enhanced, truth, targets)

    @cached_property
    def composite(self) -> CompositeMap:
        """One map of the survey: measured where it was rescanned, else estimated."""
        return self.record.composite()

    @cached_property
    def rescanned(self) -> np.ndarray:
        """The pixels that were rescanned (y, x)."""
        return rescanned(self.enhanced.grid, self.record.fine.values())

    @property
    def cost(self) -> RescanCost:
        """How long a box of fine pixels takes."""
        model = self.beamline.rescanning.time_model
        way_s = region_way_s(self.beamline, grid_extents_um(self.coarse.grid))
        return RescanCost(DWELL_MS * 1e-3 * model.dwell_scale, model.overhead_s, way_s)

    def map_s(self, grid: ScanGrid, dwell_ms: float = DWELL_MS) -> float:
        """Return how long it takes to fly a map, in s."""
        return map_cost(self.beamline, grid, dwell_ms).time_s


def make_report(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a survey on the simulated beamline, as JSON types.

    Parameters
    ----------
    outcome
        The survey and the truth.
    """
    record, enhanced, truth = outcome.record, outcome.enhanced, outcome.truth
    agreements = record.agreements()
    pixels = sum(row["pixels"] for row in agreements)
    covered = sum(row["pixels"] * row["coverage_90"] for row in agreements)
    times = _beam_time(outcome)
    maps = {
        "psnr_bicubic_db": enhanced.baseline.values,
        "psnr_enhanced_db": enhanced.estimate.values,
        "psnr_composite_db": outcome.composite.value.values,
    }
    return {
        "sample": outcome.question.about,
        "elements": enhanced.elements,
        "factor": enhanced.factor,
        "targets": _found(outcome, times),
        "beam_time_s": times,
        **{name: _psnr(enhanced.elements, planes, truth) for name, planes in maps.items()},
        "coverage_90": covered / pixels if pixels else None,
        "coverage_90_of_truth": _coverage_of_truth(enhanced, truth),
        "trusted_share": float(enhanced.trusted.mean()),
        "measured_share_of_composite": float(outcome.composite.measured.values.mean()),
        "model": {key: enhanced.model[key] for key in ("name", "sha256")},
        "fallback": enhanced.fallback,
        "regions": list(record.regions),
        "agreement": agreements,
        "run_uids": dict(record.run_uids),
    }


def _found(outcome: Outcome, times: dict[str, float]) -> dict[str, Any]:
    """Return what was looked for and found, what was forecast, and what was possible."""
    targets, cost = outcome.targets, outcome.cost
    recall = targets.recall(outcome.rescanned)
    forecast = outcome.enhanced.dataset.attrs.get("forecast") or {}
    oracle = inside(targets.oracle(cost, times["fine"]), targets.label.shape)
    least_s = times["coarse"] + targets.oracle_least_s(cost, recall.number)
    return {
        "find": outcome.question.find,
        "true": len(targets),
        "found": int(targets.found(outcome.rescanned).sum()),
        "recall": recall.to_dict(),
        "forecast": dict(forecast),
        "oracle_recall_in_the_same_time": targets.recall(oracle).to_dict(),
        "oracle_time_for_the_same_recall_s": round(least_s, 2),
        "oracle_ratio_for_the_same_recall": round(times["full_fine"] / least_s, 3),
    }


def _psnr(elements: list[str], maps: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        element: round(float(psnr_db(maps[index], truth[index])), 3)
        for index, element in enumerate(elements)
    }


def _coverage_of_truth(enhanced: EnhancedMaps, truth: np.ndarray) -> dict[str, float]:
    within = (enhanced.lower.values <= truth) & (truth <= enhanced.upper.values)
    return {
        element: round(float(within[index].mean()), 4)
        for index, element in enumerate(enhanced.elements)
    }


def _beam_time(outcome: Outcome) -> dict[str, float]:
    """Return beam times in seconds, and how many times longer a fine map of everything takes.

    The way to each region counts as in the survey's own budget.
    """
    coarse = outcome.map_s(outcome.coarse.grid, DWELL_MS / outcome.enhanced.fast_pixels)
    fine_maps = outcome.record.fine.values()
    fine = sum(outcome.map_s(maps.grid) + outcome.cost.box_s for maps in fine_maps)
    full = outcome.map_s(outcome.enhanced.grid)
    return {
        "coarse": round(coarse, 2),
        "fine": round(fine, 2),
        "full_fine": round(full, 2),
        "ratio": round(full / (coarse + fine), 3),
    }


def summary_tables(report: dict[str, Any]) -> list[Table]:
    """Return the main figures of a report as tables for the terminal."""
    return [_table_of_targets(report), _table_of_maps(report)]


def _table_of_targets(report: dict[str, Any]) -> Table:
    found, times = report["targets"], report["beam_time_s"]
    table = Table(title=f"{found['find']}: {found['found']} of {found['true']} targets found")
    heads = ("", "by number", "by area", "by signal", "beam time (s)", "full fine map / it")
    for column in heads:
        table.add_column(column, justify="right")

    def row(name: str, recall: dict[str, float], time_s: float) -> None:
        shares = (f"{recall[key]:.2f}" for key in ("number", "area", "signal"))
        table.add_row(name, *shares, f"{time_s:.0f}", f"{times['full_fine'] / time_s:.1f}")

    spent_s = times["coarse"] + times["fine"]
    row("found", found["recall"], spent_s)
    row("oracle, same time", found["oracle_recall_in_the_same_time"], spent_s)
    share = f"{found['recall']['number']:.2f}"
    least_s, ratio = (
        found[f"oracle_{name}_for_the_same_recall{unit}"]
        for name, unit in (("time", "_s"), ("ratio", ""))
    )
    table.add_row("oracle, same share", share, "", "", f"{least_s:.0f}", f"{ratio:.1f}")
    if found["forecast"]:
        table.add_row("forecast", f"{found['forecast']['share_found']:.2f}", "", "", "", "")
    table.caption = (
        f"beam time: coarse {times['coarse']:.0f} s + fine {times['fine']:.0f} s, instead of "
        f"{times['full_fine']:.0f} s ({times['ratio']:.1f}x); {report['sample']}"
    )
    return table


def _table_of_maps(report: dict[str, Any]) -> Table:
    table = Table(title=f"Maps at {report['factor']}x, model {report['model']['name']}")
    heads = ("element", "no network (dB)", "enhanced (dB)", "composite (dB)", "truth inside 90 %")
    for column in heads:
        table.add_column(column, justify="right")
    for element in report["elements"]:
        levels = (report[f"psnr_{name}_db"][element] for name in _MAPS)
        table.add_row(
            element,
            *(f"{level:.2f}" for level in levels),
            f"{report['coverage_90_of_truth'][element]:.3f}",
        )
    covered = report["coverage_90"]
    table.caption = (
        "fine pixels inside the predicted 90 %: "
        f"{'no rescan' if covered is None else f'{covered:.3f}'}"
    )
    return table
