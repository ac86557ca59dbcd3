"""Pairs of coarse and fine maps of one area, for training and calibration."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bluesky.utils import MsgGenerator, plan

from xrf_sr_plans import schema
from xrf_sr_plans.devices.axes import axis_facts
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import BudgetError, ConfigError, FlightError, RefusedError, in_words
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.measurement import FACTORS, Factor, factor_not_allowed, not_allowed
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.design import Area
from xrf_sr_plans.plans.fly_map import ROW_ATTEMPTS, ROW_FAILURES, MapOrder, fly
from xrf_sr_plans.plans.rescan import RegionOutcome, read_regions
from xrf_sr_plans.plans.return_to_start import returning_to_start

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairOutcome:
    """The runs of one pair: by factor for the coarse maps, those after the fine one apart."""

    pair_uid: str
    fine_uid: str
    coarse_uids: Mapping[int, str]
    bracket_uids: Mapping[int, str] = field(default_factory=dict)


@plan
def acquire_pair(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    fine_step_um: float,
    dwell_ms: float,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    factors: list[Factor] | tuple[Factor, ...] = (2,),
    coarse_dwell_ms: float | None = None,
    bracket: bool = False,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[PairOutcome]:
    """Map one area coarsely and finely, with pixels that nest exactly.

    Parameters
    ----------
    width_um, height_um
        Area; rounded up to whole pixels of the coarsest map.
    fine_step_um, dwell_ms
        Of the fine map.
    x_center_um, y_center_um
        None: where the stage is, and where it is brought back to once all maps are complete (not
        after an abort, a stop, a halt or a failure).
    factors
        How many times coarser the coarse maps are: 2, 4 or both.
    coarse_dwell_ms
        None: as the fine map.
    bracket
        Fly the coarse maps again after the fine one, so that drift shows and can be taken out.
    budget_s, max_dose
        Refuse if all maps together need more beam time (s) or dose.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Goes into the start documents, last.

    Returns
    -------
    PairOutcome
        Run uids.

    Raises
    ------
    RefusedError
        Before anything moves; the message lists all that is wrong.
    FlightError
        The hardware failed on too many rows in succession, or the stage doesn't come back.
    """
    pair = pair_of(
        beamline,
        width_um=width_um,
        height_um=height_um,
        fine_step_um=fine_step_um,
        dwell_ms=dwell_ms,
        x_center_um=x_center_um,
        y_center_um=y_center_um,
        factors=factors,
        coarse_dwell_ms=coarse_dwell_ms,
        bracket=bracket,
        row_attempts=row_attempts,
        md=md,
    )
    preflight.refuse(pair.problems(budget_s, max_dose))
    return (yield from returning_to_start(beamline, pair.area, pair.run()))


@plan
def collect_pairs(
    beamline: Beamline,
    regions: list[dict[str, Any]],
    *,
    fine_step_um: float,
    dwell_ms: float,
    factors: list[Factor] | tuple[Factor, ...] = (2,),
    coarse_dwell_ms: float | None = None,
    bracket: bool = False,
    budget_s: float | None = None,
    max_dose: float | None = None,
    row_attempts: int = ROW_ATTEMPTS,
    md: dict[str, Any] | None = None,
) -> MsgGenerator[tuple[RegionOutcome, ...]]:
    """Acquire a pair of each region, in the order given, as long as the budget lasts.

    Parameters
    ----------
    regions
        `Region.to_dict()` of each, or just its four edges.
    fine_step_um, dwell_ms
        Of the fine maps.
    factors
        How many times coarser the coarse maps are: 2, 4 or both.
    coarse_dwell_ms
        None: as the fine map.
    bracket
        Fly the coarse maps again after each fine one, so that drift shows.
    budget_s
        Beam time for all pairs together; a pair that no longer fits is left out.
    max_dose
        Highest dose that all maps of a pair together may give.
    row_attempts
        How often a failing row is flown before it is left missing.
    md
        Goes into the start documents, last.

    Returns
    -------
    tuple of RegionOutcome
        One per region; `run_uid` is that of the fine map.

    Raises
    ------
    RefusedError
        Before anything moves: a malformed region.
    """
    pairs = pairs_of(
        beamline,
        regions,
        fine_step_um=fine_step_um,
        dwell_ms=dwell_ms,
        factors=factors,
        coarse_dwell_ms=coarse_dwell_ms,
        bracket=bracket,
        row_attempts=row_attempts,
        md=md,
    )
    left_s = budget_s
    outcomes = []
    for region, pair in pairs:
        try:
            preflight.refuse(pair.problems(left_s, max_dose))
            left_s = None if left_s is None else left_s - pair.time_s()
            done = yield from pair.run()
            outcome = RegionOutcome(region, "rescanned", f"pair {done.pair_uid}", done.fine_uid)
        except RefusedError as error:
            outcome = RegionOutcome(region, "refused", str(error))
        except (FlightError, *ROW_FAILURES) as error:
            outcome = RegionOutcome(region, "failed", in_words(error))
        logger.info("pair of region %s %s: %s", region.key, outcome.disposition, outcome.reason)
        outcomes.append(outcome)
    return tuple(outcomes)


def pair_of(
    beamline: Beamline,
    *,
    width_um: float,
    height_um: float,
    fine_step_um: float,
    dwell_ms: float,
    x_center_um: float | None = None,
    y_center_um: float | None = None,
    factors: Sequence[int] = (2,),
    coarse_dwell_ms: float | None = None,
    bracket: bool = False,
    row_attempts: int = ROW_ATTEMPTS,
    md: Mapping[str, Any] | None = None,
    region: Region | None = None,
) -> Pair:
    """Return the maps that `acquire_pair` would fly."""
    return Pair(
        beamline,
        Area(width_um, height_um, fine_step_um, x_center_um, y_center_um),
        dwell_ms,
        dwell_ms if coarse_dwell_ms is None else coarse_dwell_ms,
        tuple(sorted(factors)),
        bracket=bracket,
        row_attempts=row_attempts,
        md=dict(md or {}),
        region=region,
    )


def pairs_of(
    beamline: Beamline, regions: Iterable[Mapping[str, Any]], **wishes: Any
) -> list[tuple[Region, Pair]]:
    """Return the maps that `collect_pairs` would fly, by region.

    Raises
    ------
    GridError
        A malformed region.
    """
    return [
        (
            region,
            pair_of(
                beamline,
                width_um=region.width_um,
                height_um=region.height_um,
                x_center_um=region.x_center_um,
                y_center_um=region.y_center_um,
                region=region,
                **wishes,
            ),
        )
        for region in read_regions(regions, None)
    ]


@dataclass(frozen=True)
class Pair:
    """The maps of one pair, worked out before they are flown."""

    beamline: Beamline
    area: Area
    dwell_ms: float
    coarse_dwell_ms: float
    factors: tuple[int, ...]
    bracket: bool
    row_attempts: int
    md: Mapping[str, Any]
    region: Region | None = None

    def grids(self) -> dict[int, ScanGrid]:
        """Return the grids by factor, 1 being the fine one; all have the same outer edges.

        Raises
        ------
        RefusedError
            Factors or sizes that make no pair.
        """
        if not self.factors:
            raise ConfigError(not_allowed("factors", [], f"at least one of {FACTORS}"))
        wrong = [factor for factor in self.factors if factor not in FACTORS]
        if wrong:
            raise ConfigError("; ".join(factor_not_allowed(factor) for factor in wrong))
        coarsest = max(self.factors)
        grid = Area(
            self.area.width_um,
            self.area.height_um,
            self.area.step_um * coarsest,
            self.area.x_center_um,
            self.area.y_center_um,
        ).grid(self.beamline, self.coarse_dwell_ms)
        return {
            factor: grid if factor == coarsest else grid.refined(coarsest // factor)
            for factor in (*self.factors, 1)
        }

    def flights(self) -> list[tuple[int, ScanGrid, float]]:
        """Return (factor, grid, dwell) in the order of flight."""
        grids, facts = self.grids(), axis_facts(self.beamline.fast)

        def flight(factor: int, dwell_ms: float) -> tuple[int, ScanGrid, float]:
            grid = grids[factor]
            run_up = preflight.run_up_um(self.beamline, facts, grid.fast.step_um, dwell_ms)
            return factor, replace(grid, run_up_um=run_up), dwell_ms

        coarse = [flight(factor, self.coarse_dwell_ms) for factor in self.factors]
        again = reversed(coarse) if self.bracket else ()
        return [*coarse, flight(1, self.dwell_ms), *again]

    def time_s(self) -> float:
        """Return the beam time of all maps together."""
        return sum(self._cost(grid, dwell_ms).time_s for _, grid, dwell_ms in self.flights())

    def dose(self) -> float:
        """Return the dose of all maps together, in the beamline's unit."""
        return sum(self._cost(grid, dwell_ms).dose for _, grid, dwell_ms in self.flights())

    def _cost(self, grid: ScanGrid, dwell_ms: float) -> preflight.MapCost:
        return preflight.map_cost(self.beamline, grid, dwell_ms)

    def problems(self, budget_s: float | None, max_dose: float | None) -> list[preflight.Problem]:
        """Return everything that forbids to fly the pair."""
        numbers = {"dwell_ms": self.dwell_ms, "coarse_dwell_ms": self.coarse_dwell_ms}
        found = preflight.number_problems(numbers)
        if found:
            return found
        flights = self.flights()
        for _, grid, dwell_ms in flights:
            found += preflight.map_problems(self.beamline, grid, dwell_ms)
        cost = self._cost(flights[0][1], self.dwell_ms)
        found += preflight.budget_problems(self.time_s(), cost, budget_s=budget_s)
        dose = self.dose()
        if max_dose is not None and not dose <= max_dose:
            text = f"dose {dose:.4g} {cost.dose_unit} of all maps; max_dose is {max_dose:.4g}"
            found.append(preflight.Problem(BudgetError, text))
        return found

    def run(self) -> MsgGenerator[PairOutcome]:
        """Fly all maps."""
        pair_uid = str(uuid.uuid4())
        uids: list[tuple[int, str]] = []
        for position, (factor, grid, dwell_ms) in enumerate(self.flights()):
            order = self._order(pair_uid, position, factor, grid, dwell_ms)
            uids.append((factor, (yield from fly(order)).uid))
        at = [factor for factor, _ in uids].index(1)
        return PairOutcome(pair_uid, uids[at][1], dict(uids[:at]), dict(uids[at + 1 :]))

    def _order(
        self, pair_uid: str, position: int, factor: int, grid: ScanGrid, dwell_ms: float
    ) -> MapOrder:
        return MapOrder(
            self.beamline,
            grid,
            dwell_ms,
            purpose="pair_fine" if factor == 1 else "pair_coarse",
            parent_uid=None if self.region is None else self.region.source_uid or None,
            region=self.region,
            # Assembled only: the pair is what an enhancement is judged by.
            analysis=schema.AnalysisRequest(enhance=False),
            user_input={**vars(self.area), "factors": list(self.factors), "bracket": self.bracket},
            derived_input={
                "pair_uid": pair_uid,
                "pair_position": position,
                "pair_maps": len(self.flights()),
                "pair_factor": factor,
            },
            row_attempts=self.row_attempts,
            md={"pair_uid": pair_uid, **self.md},
        )
