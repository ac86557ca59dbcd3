"""`design_survey`: how a survey could be flown, and what each way is expected to reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.preview import asked_of
from xrf_sr_plans.plans.request import SurveyWish
from xrf_sr_plans.plans.survey_choice import survey_options
from xrf_sr_plans.plans.survey_options import SurveyOption
from xrf_sr_plans.sr.expected_error import ErrorTable, shipped_errors
from xrf_sr_plans.training.sample_errors import counts_per_s_of, errors_on, sample_of


@dataclass(frozen=True)
class ComparedSurveys:
    """The ways to fly a survey, the best first; ``str()`` gives a table.

    Attributes
    ----------
    options
        All ways that are as asked. Those that can't be flown come last and say why.
    dose_unit
        Unit of their doses.
    """

    options: tuple[SurveyOption, ...]
    dose_unit: str

    @property
    def best(self) -> SurveyOption | None:
        """What the plan would fly; None where nothing can be flown."""
        return next((option for option in self.options if option.allowed), None)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments with which the plan flies exactly the best way; empty where there is none."""
        best = self.best
        if best is None:
            return {}
        return {
            "step_um": best.step_um,
            "dwell_ms": best.dwell_ms,
            "factor": best.way.factor,
            "sampling": best.way.sampling,
        }

    def __str__(self) -> str:
        head = (
            f"  {'way':<14} {'step/um':>8} {'dwell/ms':>9} {'time/s':>8} {'dose':>9}"
            f" {'photons':>8} {'dB':>5}"
        )
        unit = f"dose in {self.dose_unit}; photons in a fine pixel where the element is brightest"
        return "\n".join([head, *(_line(option, self.best) for option in self.options), unit])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show the table at an IPython prompt."""
        printer.text("ComparedSurveys(...)" if cycle else str(self))


def _line(option: SurveyOption, best: SurveyOption | None) -> str:
    mark = "*" if option is best else " "
    why = option.problem or f"limited by {option.limit}"
    return (
        f"{mark} {option.way!s:<14} {option.step_um:>8.4g} {option.dwell_ms:>9.4g}"
        f" {option.time_s:>8.4g} {option.dose:>9.3g} {option.photons:>8.3g}"
        f" {option.expected_db:>5.1f}  {why}"
    )


def design_survey(
    plan: Callable[..., Any],
    *args: Any,
    like: ElementalMaps | EnhancedMaps | None = None,
    **kwargs: Any,
) -> ComparedSurveys:
    """Compare the ways in which ``coarse_survey_with_sr(*args, **kwargs)`` could be flown.

    Nothing moves. Rows one, two or four fine pixels apart, read out in fine pixels or in squares,
    with the longest dwell time that `time_s` and `max_dose` allow, are ranked by the peak
    signal-to-noise ratio that enhanced maps are expected to reach. Ways that the beamline can't
    fly in that time say what limits them.

    Parameters
    ----------
    plan
        `coarse_survey_with_sr`, bound to a beamline or not.
    like
        An earlier map of this sample, or of one of its kind, with pixels of `fine_step_um`: a
        rescan, or the enhanced map of a survey. What is expected is then that of this sample, and
        `counts_per_s`, where it is not given, that of this map. None: the mean over many samples.
    *args, **kwargs
        The arguments of the plan, of which `fine_step_um` and one of `time_s` and `max_dose`, or
        `step_um` and `dwell_ms`, are needed.

    Raises
    ------
    RefusedError
        If something is wrong with the arguments, or if there are too few of them.
    TypeError
        If the plan doesn't take these arguments.
    """
    name, beamline, wish = asked_of(plan, args, kwargs)
    if not isinstance(wish, SurveyWish):
        raise ConfigError(f"design_survey({name}, ...): only coarse_survey_with_sr is designed")
    table = shipped_errors()
    if like is not None:
        wish, table = _as_seen(wish, like), _table_of(wish, like, table)
    options = survey_options(beamline, wish, table)
    return ComparedSurveys(options, preflight.dose_unit(beamline))


def _as_seen(wish: SurveyWish, like: ElementalMaps | EnhancedMaps) -> SurveyWish:
    """Return what is asked, with the counts of an earlier map where none are given."""
    if wish.counts_per_s is not None:
        return wish
    return replace(wish, counts_per_s=counts_per_s_of(like))


def _table_of(
    wish: SurveyWish, like: ElementalMaps | EnhancedMaps, table: ErrorTable
) -> ErrorTable:
    """Return what is expected of the sample that an earlier map shows.

    Raises
    ------
    ConfigError
        The map's pixels aren't those of the enhanced maps, or it shows nothing.
    """
    fine_step_um = wish.result_step_um
    if fine_step_um is None:
        return table
    return errors_on(sample_of(like, fine_step_um), table)
