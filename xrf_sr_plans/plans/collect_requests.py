"""Requests of `survey_and_collect_pairs`, with the survey in it, and of `resume_collection`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import get_args

from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.preflight import Problem
from xrf_sr_plans.plans.request import (
    AnyPairRequest,
    AnyRequest,
    CollectRequest,
    PairRequest,
    SurveyRequest,
)


@dataclass(frozen=True, kw_only=True)
class ResumeRequest(AnyRequest):
    """What was asked of `resume_collection`."""

    collection_uid: str | None


@dataclass(frozen=True, kw_only=True)
class PairSurveyRequest(SurveyRequest):
    """A survey that chooses areas for pairs."""

    pair_um: float
    number: int
    choose: schema.AreaChoice

    @property
    def pair_areas(self) -> schema.PairAreas:
        """What the analysis is asked to choose."""
        return schema.PairAreas(size_um=self.pair_um, number=self.number, by=self.choose)


@dataclass(frozen=True, kw_only=True)
class SurveyAndCollectRequest(AnyPairRequest):
    """What was asked of `survey_and_collect_pairs`."""

    width_um: float
    height_um: float
    pair_um: float
    number: int
    choose: schema.AreaChoice
    step_um: float | None
    survey_dwell_ms: float | None
    x_center_um: float | None
    y_center_um: float | None
    tile_um: float | None
    analysis_timeout_s: float

    @property
    def survey_step_um(self) -> float:
        """Distance between the rows of the survey in um; if not given, as in the coarsest maps."""
        return self.fine_step_um * max(self.factors) if self.step_um is None else self.step_um

    @property
    def area_um(self) -> float:
        """Side of each area in um: `pair_um`, rounded to whole steps of the survey."""
        step_um = self.survey_step_um
        return max(round(self.pair_um / step_um), 1) * step_um

    def problems(self, beamline: Beamline) -> list[Problem]:
        """Return what is wrong with the request, or the beamline, whatever is to be flown.

        Raises
        ------
        RefusedError
            If numbers, factors or the way to choose are not allowed, so that nothing can be
            designed. The message lists everything that is wrong.
        """
        problems = super().problems(beamline)
        if self.choose not in get_args(schema.AreaChoice):
            # It is among the problems already.
            preflight.refuse(problems)
        return problems

    def survey(self) -> PairSurveyRequest:
        """Return the survey that chooses the areas; time and dose are looked at as a whole."""
        coarse_dwell_ms = self.dwell_ms if self.coarse_dwell_ms is None else self.coarse_dwell_ms
        return PairSurveyRequest(
            width_um=self.width_um,
            height_um=self.height_um,
            step_um=self.survey_step_um,
            dwell_ms=coarse_dwell_ms if self.survey_dwell_ms is None else self.survey_dwell_ms,
            x_center_um=self.x_center_um,
            y_center_um=self.y_center_um,
            find=None,
            factor=max(self.factors),
            sampling=self.sampling,
            fine_step_um=self.fine_step_um,
            fine_dwell_ms=self.dwell_ms,
            budget_s=None,
            max_dose=None,
            rescan="propose",
            approval_timeout_s=1.0,
            undecided="propose",
            tile_um=self.tile_um,
            pad_um=0.0,
            min_size_um=0.0,
            max_regions=self.number,
            worth=None,
            preview_every_rows=0,
            analysis_timeout_s=self.analysis_timeout_s,
            row_attempts=self.row_attempts,
            md=self.md,
            pair_um=self.area_um,
            number=self.number,
            choose=self.choose,
        )

    def pair_at(self, x_center_um: float, y_center_um: float) -> PairRequest:
        """Return what the pair of an area is asked, apart from time and dose."""
        shared = {field.name: getattr(self, field.name) for field in fields(AnyPairRequest)}
        return PairRequest(
            **{**shared, "budget_s": None, "max_dose": None},
            width_um=self.area_um,
            height_um=self.area_um,
            x_center_um=x_center_um,
            y_center_um=y_center_um,
        )

    def collect(
        self, regions: Sequence[Region], *, budget_s: float | None, max_dose: float | None
    ) -> CollectRequest:
        """Return the collection of these areas, with the time and dose that the survey left."""
        shared = {field.name: getattr(self, field.name) for field in fields(AnyPairRequest)}
        plain = [region.to_dict() for region in regions]
        return CollectRequest(
            **{**shared, "budget_s": budget_s, "max_dose": max_dose}, regions=plain
        )
