"""The survey: fly coarsely, look at the enhanced maps, map finely what is worth it."""

from __future__ import annotations

from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.measurement import Factor
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.map_run import ROW_ATTEMPTS
from xrf_sr_plans.plans.request import SurveyWish
from xrf_sr_plans.plans.return_to_start import returning_to_start
from xrf_sr_plans.plans.survey_choice import settled_survey
from xrf_sr_plans.plans.survey_flight import SurveyFlight, SurveyOutcome


@plan
def coarse_survey_with_sr(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    step_um: float | None = None,
    dwell_ms: float | None = None,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    find: str | None = None,
    factor: Factor | None = None,
    sampling: schema.PixelChoice | None = None,
    fine_step_um: float | None = None,
    fine_dwell_ms: float | None = None,
    time_s: float | None = None,
    counts_per_s: float | None = None,
    budget_s: float | None = None,
    max_dose: float | None = None,
    rescan: schema.RescanMode = "inline",
    approval_timeout_s: float = 900.0,
    undecided: schema.Undecided = "propose",
    tile_um: float | None = None,
    pad_um: float = 0.0,
    min_size_um: float = 0.0,
    max_regions: int = 200,
    worth: dict[str, float] | None = None,
    preview_every_rows: int = 0,
    analysis_timeout_s: float = 60.0,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[SurveyOutcome]:
    """Survey an area coarsely, super-resolve it, and map finely what is worth it.

    Areas beyond the flyer's reach are flown as tiles. A tile is analyzed while the next one is
    flown. Without analysis, or when it fails or is late, the survey goes on and says so. The stage
    is brought back along each axis without a center once the survey is complete, but not after an
    abort, a stop, a halt or a failure.

    Parameters
    ----------
    width_um
        Width of the area along the fast axis, in um.
    height_um
        Height of the area along the slow axis, in um.
    step_um
        Distance between the rows of the coarse survey in um. None means fine_step_um times the
        factor.
    dwell_ms
        Time at each step of a row in ms, which is as long as the rows are apart. None means as
        long as time_s and max_dose allow.
    x_center_um
        Center of the area along the fast axis in um. None means where the stage is now.
    y_center_um
        Center of the area along the slow axis in um. None means where the stage is now.
    find
        Element query such as "Fe and not Zn" that a region must match. None means whatever
        stands out.
    factor
        How many times finer than the survey's step the enhanced maps are: 1, 2 or 4. None
        means 2 where step_um is given, else what is expected to be most exact.
    sampling
        How the rows are read out, at the same time and dose: "rows" in `factor` pixels per step,
        "squares" in one. None means rows where the hardware takes so many frames and, with time_s,
        where they are expected to be more exact.
    fine_step_um
        Pixel size of the rescans in um, and without step_um that of the enhanced maps, too. None
        means step_um / factor.
    fine_dwell_ms
        Time at each pixel of the rescans in ms. None means dwell_ms.
    time_s
        Beam time in seconds that the coarse survey may take. What step_um, factor, sampling and
        dwell_ms leave open is chosen such that the enhanced maps are expected to be most exact in
        this time on this beamline (`preview` and `design_survey` list what was compared). None
        means as long as it takes.
    counts_per_s
        Photons that an element of interest counts where it is brightest, over the seconds in which
        it counts them, for that choice. None means 5000.
    budget_s
        Beam time in seconds for everything. The coarse survey alone must fit, and the rescans
        spend what is left. None means no limit.
    max_dose
        Highest dose at any point, coarse and fine together: incoming photons per um^2 where the
        beamline knows its flux, else seconds of beam per um^2. None means no limit.
    rescan
        What is done with the regions: "inline" maps them now, "ask" waits until somebody approves
        some of them and maps those, "queue" hands them to the queue server, "propose" only records
        them. What isn't mapped can be approved later.
    approval_timeout_s
        How many seconds "ask" waits for somebody to decide on all regions. A pause doesn't count.
    undecided
        What becomes of regions that nobody has decided on by then: "propose" leaves them to be
        approved later, "approve" maps them, "deny" doesn't.
    tile_um
        Largest side of a tile in um. None means as large as the flyer reaches.
    pad_um
        Margin in um that is added on every side of a region.
    min_size_um
        Smallest side of a region in um; smaller finds are grown to it.
    max_regions
        How many regions each tile may propose, best first.
    worth
        What makes a rescan worth its time: weights of "targets" (their expected number), "signal"
        (how much they stand out), "uncertainty" (what a rescan takes away) and "novelty" (how
        unlike the rest they are). None means 0.6 for targets and 0.4 for signal.
    preview_every_rows
        Enhance the unfinished tile each time so many more rows are measured. 0 means
        only when it is complete.
    analysis_timeout_s
        How many seconds to wait for the analysis of all tiles together after the last row.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Metadata of your own for the start documents, a `plan_name` of your own among them. Keys
        that say what is measured, such as `xrf_sr`, are refused.

    Returns
    -------
    SurveyOutcome
        Run uids, analyses, and what became of each region. No region is a normal outcome.

    Raises
    ------
    RefusedError
        If anything is wrong with the request. Nothing has moved, and the message lists all of it.
    FlightError
        If too many rows in succession can't be measured, or if the stage doesn't come back.
    """
    wish = SurveyWish.from_arguments(locals())
    settled = settled_survey(beamline, wish)
    preflight.refuse(settled.design.problems)
    survey = SurveyFlight(beamline, settled, wish.user_input())
    return (yield from returning_to_start(beamline, settled.request.area, survey.run()))
