"""Whether a survey with rescans is worth it: its beam time beside that of a fine map."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.measurement import SAME_GRID
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.rois.typical_shares import typical_share

_MORE = 0.1
"""Share of more time, of that for a fine map, of which it is told what it would bring."""


def whole_map_s(
    beamline: Beamline,
    grids: Iterable[ScanGrid],
    fine_step_um: float,
    fine_dwell_ms: float,
    time_model: RowTimeModel | None = None,
) -> float:
    """Return the seconds that fine maps of everything would take.

    Parameters
    ----------
    beamline
        Its time model counts.
    grids
        The coarse maps.
    fine_step_um, fine_dwell_ms
        How the rescans would be flown.
    time_model
        How long rows take. None means the time model of the beamline.
    """
    fine = (
        replace(grid, fast=_finer(grid.fast, fine_step_um), slow=_finer(grid.slow, fine_step_um))
        for grid in grids
    )
    return sum(
        preflight.map_cost(beamline, grid, fine_dwell_ms, time_model).time_s for grid in fine
    )


def rescans_limit_s(budget_s: float | None, survey_s: float, whole_s: float) -> float:
    """Return the seconds that all rescans of a survey may take together.

    Without a budget they may take as long as a fine map of everything, and no longer: more than
    that is flown only where `budget_s` says so.
    """
    return whole_s if budget_s is None else max(budget_s - survey_s, 0.0)


def worth_notes(
    factor: int, budget_s: float | None, survey_s: float, whole_s: float
) -> Iterator[str]:
    """Yield what a person should know of a survey's time before it is flown."""
    ratio = whole_s / survey_s
    yield (
        f"survey {survey_s:.3g} s; a fine map of everything would take {whole_s:.3g} s"
        f" ({ratio:.2g} times as long)"
    )
    if factor == SAME_GRID:
        yield "the survey has every fine row: rescans bring more photons, but no finer pixels"
    elif survey_s >= whole_s:
        yield "the survey alone takes as long as a fine map of everything: fly that instead"
    if budget_s is None:
        yield f"no budget_s: rescans may take up to {whole_s:.3g} s, as long as that map"
        return
    share = max(budget_s, survey_s) / whole_s
    if share >= 1:
        yield "that map would fit into budget_s, too"
        return
    found, more = (typical_share(factor, at) for at in (share, share + _MORE))
    if found is not None and more is not None:
        yield (
            f"in {share:.0%} of that time, surveys at {factor}x have found {found.phantoms:.0%} of"
            f" their targets on held-out phantoms and {found.real_maps:.0%} on measured maps; in"
            f" {share + _MORE:.0%}, {more.phantoms:.0%} and {more.real_maps:.0%}"
        )


def _finer(axis: AxisGrid, step_um: float) -> AxisGrid:
    num = max(math.ceil(axis.num * axis.step_um / step_um - 1e-6), 1)
    return AxisGrid(axis.name, axis.low_um + step_um / 2, step_um, num)
