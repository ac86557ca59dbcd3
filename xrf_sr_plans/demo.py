"""`run_demo`: survey a real map on the simulated beamline, and leave a picture and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from bluesky import RunEngine
from rich.table import Table

from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.beamline import SimBeamline
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import checked_factor
from xrf_sr_plans.metrics.image import psnr_db
from xrf_sr_plans.plans.preflight import map_cost
from xrf_sr_plans.review.picture import SurveyView, draw_survey
from xrf_sr_plans.review.record import SurveyRecord, left_out, read_survey, regions_of
from xrf_sr_plans.schema import Documents
from xrf_sr_plans.session import start_session

# Arguments of `coarse_survey_with_sr`, except for the step and the factor.
SURVEY = {
    "x_center_um": 0.0,
    "y_center_um": 0.0,
    "width_um": 120.0,
    "height_um": 40.0,
    "dwell_ms": 10.0,
    "find": "K",
    "pad_um": 1.0,
    "min_size_um": 5.0,
    "budget_s": 90.0,
}
FINE_STEP_UM = 0.5
"""Step of the fine rescans; the survey's step is `factor` times as large."""


def run_demo(out: Path | str, *, factor: int = 2, seed: int = 0) -> dict[str, Any]:
    """Fly a survey with inline rescans, and compare its maps with the truth.

    The sample is the measured map that ships with the package. Its elements and their distribution
    are real, but its pixel size and photon rates were made up. The truth is the noise-free fine map
    that the simulated microscope would give.

    Parameters
    ----------
    out
        Folder in which ``survey.png`` and ``report.json`` are left. It is made if need be.
    factor
        How many times finer the enhanced map is; the fine step is 0.5 um in any case.
    seed
        Seed of the simulator's noise.

    Returns
    -------
    dict
        The report, as written to ``report.json``.

    Raises
    ------
    ConfigError
        A factor or a seed that can't be.
    """
    factor = checked_factor(factor)
    beamline = make_beamline("zagami", seed=seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    documents: Documents = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        documents.append((name, doc))

    run_engine = RunEngine({})
    run_engine.subscribe(keep)
    with start_session(run_engine, beamline, result_sinks=[keep]) as session:
        survey = session.plans["coarse_survey_with_sr"]
        run_engine(survey(**SURVEY, step_um=FINE_STEP_UM * factor, factor=factor))
        session.link.flush(60.0)
    record = read_survey(documents)
    report = make_report(record, beamline, factor=factor)
    (out / "report.json").write_text(json.dumps(report, indent=1))
    draw_survey(_view(record, beamline, report), out / "survey.png")
    return report


def expected_counts(beamline: SimBeamline, grid: ScanGrid, dwell_ms: float) -> np.ndarray:
    """Return the expected photons per pixel of a map on `grid`, as an array (element, y, x).

    Parameters
    ----------
    beamline
        The simulated beamline with its sample.
    grid
        Grid of the map.
    dwell_ms
        Time per pixel in ms.
    """
    edges = grid.fast.edges_um
    rows = [
        beamline.microscope.rates_cps(edges[:-1], edges[1:], float(slow_um))
        for slow_um in grid.slow.centers_um
    ]
    # Each row is (element, x), in counts per second.
    return np.stack(rows, axis=1) * dwell_ms * 1e-3


def make_report(record: SurveyRecord, beamline: SimBeamline, *, factor: int) -> dict[str, Any]:
    """Return the figures of a survey on the simulated beamline, as JSON types.

    Parameters
    ----------
    record
        The survey, with one coarse map.
    beamline
        The simulated beamline that it was flown on.
    factor
        Factor of the enhancement.
    """
    ((_, enhanced),) = record.enhanced.items()
    ((_, coarse),) = record.coarse.items()
    dwell_ms = float(SURVEY["dwell_ms"])
    truth = expected_counts(beamline, enhanced.grid, dwell_ms)
    agreements = record.agreements()
    pixels = sum(row["pixels"] for row in agreements)
    inside = sum(row["pixels"] * row["coverage_90"] for row in agreements)
    return {
        "elements": enhanced.elements,
        "factor": factor,
        "psnr_bicubic_db": _psnr(enhanced, "baseline", truth),
        "psnr_enhanced_db": _psnr(enhanced, "estimate", truth),
        "coverage_90": inside / pixels if pixels else None,
        "coverage_90_of_truth": _coverage_of_truth(enhanced, truth),
        "trusted_share": float(enhanced.trusted.mean()),
        "beam_time_s": _beam_time(record, beamline, enhanced.grid, coarse.grid, dwell_ms),
        "model": {key: enhanced.model[key] for key in ("name", "sha256")},
        "fallback": enhanced.fallback,
        "regions": list(record.regions),
        "agreement": agreements,
        "run_uids": dict(record.run_uids),
        "sample": "Zagami meteorite (EPMA-WDS, pixlise/core, Apache-2.0) with made-up pixel size "
        "and photon rates",
    }


def _psnr(enhanced: EnhancedMaps, name: str, truth: np.ndarray) -> dict[str, float]:
    maps = enhanced.dataset[name].values
    return {
        element: round(float(psnr_db(maps[index], truth[index])), 3)
        for index, element in enumerate(enhanced.elements)
    }


def _coverage_of_truth(enhanced: EnhancedMaps, truth: np.ndarray) -> dict[str, float]:
    inside = (enhanced.lower.values <= truth) & (truth <= enhanced.upper.values)
    return {
        element: round(float(inside[index].mean()), 4)
        for index, element in enumerate(enhanced.elements)
    }


def _beam_time(
    record: SurveyRecord,
    beamline: SimBeamline,
    fine_grid: ScanGrid,
    coarse_grid: ScanGrid,
    dwell_ms: float,
) -> dict[str, float]:
    """Return beam times in seconds, and how many times longer a fine map of everything takes."""
    coarse = map_cost(beamline, coarse_grid, dwell_ms).time_s
    fine = sum(map_cost(beamline, maps.grid, dwell_ms).time_s for maps in record.fine.values())
    full = map_cost(beamline, fine_grid, dwell_ms).time_s
    return {
        "coarse": round(coarse, 2),
        "fine": round(fine, 2),
        "full_fine": round(full, 2),
        "ratio": round(full / (coarse + fine), 3),
    }


def _view(record: SurveyRecord, beamline: SimBeamline, report: dict[str, Any]) -> SurveyView:
    enhanced = list(record.enhanced.values())
    dwell_ms = float(SURVEY["dwell_ms"])
    saved = report["beam_time_s"]["ratio"]
    model = report["model"]["name"]
    captions = {
        element: f"bicubic {report['psnr_bicubic_db'][element]:.1f} dB\n"
        f"enhanced {report['psnr_enhanced_db'][element]:.1f} dB"
        for element in report["elements"]
    }
    return SurveyView(
        coarse=list(record.coarse.values()),
        enhanced=enhanced,
        regions=regions_of(record),
        left_out=left_out(record),
        truth=[expected_counts(beamline, maps.grid, dwell_ms) for maps in enhanced],
        title=f"Simulated survey, {report['factor']}x, model {model}: "
        f"{len(record.fine)} regions rescanned, full fine map / (survey + rescans) = {saved:.1f}"
        " in beam time",
        captions=captions,
    )


def summary_table(report: dict[str, Any]) -> Table:
    """Return the main figures of a report as a table for the terminal."""
    table = Table(title=f"Survey at {report['factor']}x, model {report['model']['name']}")
    for column in ("element", "bicubic (dB)", "enhanced (dB)", "truth inside 90 %"):
        table.add_column(column, justify="right")
    for element in report["elements"]:
        table.add_row(
            element,
            f"{report['psnr_bicubic_db'][element]:.2f}",
            f"{report['psnr_enhanced_db'][element]:.2f}",
            f"{report['coverage_90_of_truth'][element]:.3f}",
        )
    times = report["beam_time_s"]
    covered = report["coverage_90"]
    table.caption = (
        f"beam time: coarse {times['coarse']:.0f} s + fine {times['fine']:.0f} s, instead of "
        f"{times['full_fine']:.0f} s ({times['ratio']:.1f}x); fine pixels inside the predicted "
        f"90 %: {'no rescan' if covered is None else f'{covered:.3f}'}"
    )
    return table
