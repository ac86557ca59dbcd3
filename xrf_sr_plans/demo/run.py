"""`run_demo`: survey a sample on the simulated beamline, and leave a picture and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bluesky import RunEngine

from xrf_sr_plans.demo.picture import draw_field
from xrf_sr_plans.demo.question import Question, question_about
from xrf_sr_plans.demo.report import Outcome, make_report
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.devices.sim.beamline import SimBeamline
from xrf_sr_plans.measurement import checked_factor
from xrf_sr_plans.ranges import SEED, check
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.review.picture import draw_survey
from xrf_sr_plans.review.record import left_out, regions_of
from xrf_sr_plans.review.report import write_report
from xrf_sr_plans.review.view import SurveyView
from xrf_sr_plans.schema import Documents
from xrf_sr_plans.session import start_session


def run_demo(
    out: Path | str, *, sample: str = "grains", factor: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Fly a survey with inline rescans, and compare what it found with the truth.

    The sample comes from the measured map that ships with the package: its grains strewn over a
    field ("grains"), or the map itself ("zagami"). Elements and their distribution in the grains
    are real, but pixel size and photon rates were made up, and so is the field. The truth is the
    noise-free fine map that the simulated microscope would give.

    Parameters
    ----------
    out
        Folder in which ``survey.png`` (the element that is looked for), ``elements.png`` (all
        elements), ``report.json`` and ``report.html``, for a browser, are left. It is made if need
        be.
    sample
        "grains" or "zagami".
    factor
        How many times finer the enhanced map is; the fine step is 0.5 um in any case. None: 4 for
        the grains, and 2 for the map itself.
    seed
        Seed of the simulator's noise, and of where the grains lie.

    Returns
    -------
    dict
        The report, as written to ``report.json``.

    Raises
    ------
    ConfigError
        A sample, a factor or a seed that can't be.
    """
    question = question_about(sample)
    factor = checked_factor(question.factor if factor is None else factor)
    check("demo", SEED.flaw("seed", seed))
    beamline = make_beamline(question.sample(seed), seed=seed)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    survey = flown(question, beamline, factor)
    record = survey.record
    outcome = Outcome.of(record, beamline, question)
    report = make_report(outcome)
    (out / "report.json").write_text(json.dumps(report, indent=1))
    draw_field(outcome, report, out / "survey.png")
    draw_survey(_all_elements(outcome, report), out / "elements.png")
    write_report(survey, out / "report.html")
    return report


def flown(question: Question, beamline: SimBeamline, factor: int) -> GrowingSurvey:
    """Fly a survey of the demo, and return it.

    Parameters
    ----------
    question
        What is looked for.
    beamline
        The simulated beamline with its sample.
    factor
        How many times finer than the survey the enhanced map is.
    """
    documents: Documents = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        documents.append((name, doc))

    run_engine = RunEngine({})
    run_engine.subscribe(keep)
    with start_session(run_engine, beamline, result_sinks=[keep]) as session:
        run_engine(session.plans["coarse_survey_with_sr"](**question.arguments(factor)))
        session.link.flush(60.0)
    survey = GrowingSurvey()
    survey.take(documents)
    return survey


def _all_elements(outcome: Outcome, report: dict[str, Any]) -> SurveyView:
    """Return what is drawn of all elements."""
    captions = {
        element: f"no network {report['psnr_bicubic_db'][element]:.1f} dB\n"
        f"enhanced {report['psnr_enhanced_db'][element]:.1f} dB"
        for element in report["elements"]
    }
    record = outcome.record
    return SurveyView(
        coarse=[outcome.coarse],
        enhanced=[outcome.enhanced],
        regions=regions_of(record),
        left_out=left_out(record),
        truth=[outcome.truth],
        title=f"Simulated survey, {report['factor']}x, model {report['model']['name']}: "
        f"{len(record.fine)} regions rescanned, full fine map / (survey + rescans) = "
        f"{report['beam_time_s']['ratio']:.1f} in beam time",
        captions=captions,
    )
