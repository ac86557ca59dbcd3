"""`pick_regions`: choose the rectangles of an enhanced map that are worth a fine rescan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.rois.candidates import RescanCost, Targets, possible_targets
from xrf_sr_plans.rois.choice import Choice, RescanTerms, choose
from xrf_sr_plans.rois.evidence import ElementEvidence, evidence
from xrf_sr_plans.rois.forecast import Forecast
from xrf_sr_plans.rois.probability import match_probability, presence_probability
from xrf_sr_plans.rois.query import Query
from xrf_sr_plans.rois.query_parser import parse_query
from xrf_sr_plans.schema import AnalysisRequest

PAD_COARSE_PX = 0.5
"""Margin on every side of a possible target, in coarse pixels: how far off its edge may be."""
WIDE_PAD_COARSE_PX = 2.0
"""The same where the time for rescans is known, and suffices for that."""
TOO_MUCH = 0.5
"""Share of the map that rather matches a query than not beyond which nothing is proposed. Pixels
of which nothing can be told, as where the query asks for less than one photon, don't count."""
MATCHES_FROM = 0.5
"""Probability from which a pixel counts for what is said about a region."""
_DWELL_MS, _REGION_OVERHEAD_S = 10.0, 0.5
"""Dwell of rescans, and seconds for the way to each, where neither request nor map says."""

Evidence = Mapping[str, ElementEvidence]


@dataclass(frozen=True, eq=False)
class Picked:
    """The regions of a map that are worth a rescan, and what is odd about them.

    Parameters
    ----------
    regions
        The regions, those with the most value per second first.
    notes
        What a user must know of the choice.
    forecast
        What the regions are expected to hold; None where there was nothing to choose from.
    """

    regions: tuple[Region, ...]
    notes: tuple[str, ...] = ()
    forecast: Forecast | None = None


def pick_regions(enhanced: EnhancedMaps, request: AnalysisRequest, *, source_uid: str) -> Picked:
    """Choose the rectangles of a map that are worth a fine rescan.

    The query is evaluated over the calibrated distribution of each pixel, which gives the
    probability that it matches (`rois.probability`). Connected parts of its level sets are the
    possible targets (`rois.candidates`). The set of boxes is flown whose targets are worth most
    within the time, each target counted once (`rois.cover`). No constant says from which
    probability on a place is looked at: a box is left out where the beam time is worth more
    elsewhere, at the latest where it brings less per second than `choice.WORTH_OF_THE_WHOLE` of
    what flying the whole map finely would.

    Parameters
    ----------
    enhanced
        The enhanced map.
    request
        What to look for, what it is worth, and what rescans cost.
    source_uid
        Uid of the run of the coarse map, which each region carries.

    Returns
    -------
    Picked
        The regions, of which there may be none. The score of a region is the value that it adds
        to those before it, in targets. `predicted_sigma` is the mean over the pixels that rather
        match than not, in photons per coarse pixel.

    Raises
    ------
    QueryError
        `request.find` can't be read, or it names an element that isn't measured.
    """
    enhanced = enhanced.per_coarse_pixel()
    query = parse_query(request.find) if request.find else None
    # Without a query, elements that make up most of the sample are of no interest: only what
    # stands out from the median counts.
    named = query.elements if query else ()
    maps = {name: evidence(enhanced, name, two_classes=name in named) for name in enhanced.elements}
    probability = presence_probability(maps) if query is None else match_probability(query, maps)
    measured = np.any([np.isfinite(one.value) for one in maps.values()], axis=0)
    share = float((probability[measured] > MATCHES_FROM).mean()) if measured.any() else 0.0
    if share > TOO_MUCH:
        what = f"{query.text!r} matches" if query else "what stands out is"
        return Picked((), (f"{what} {share:.0%} of the map: nothing to choose from it",))
    if query is not None and query.confidence:
        probability = (probability >= query.confidence).astype(float)
    targets = _targets(query, maps, probability, request, enhanced)
    if not targets.weight.size:
        return Picked(())
    value = _values(targets, request, maps)
    choice = choose(probability, targets, value, _terms(request, enhanced))
    stage = {} if request.rescans is None else request.rescans.stage
    regions = [
        replace(_region(index, choice, probability, query, maps, enhanced, source_uid), stage=stage)
        for index in range(len(choice.boxes))
    ]
    left_out = len(regions) - request.max_regions
    notes = (
        (f"{left_out} more regions are worth a rescan than max_regions",) if left_out > 0 else ()
    )
    return Picked(tuple(regions[: request.max_regions]), notes, choice.forecast)


def _targets(
    query: Query | None,
    maps: Evidence,
    probability: np.ndarray,
    request: AnalysisRequest,
    enhanced: EnhancedMaps,
) -> Targets:
    grid = enhanced.grid
    cost, budget_s = _cost(request, enhanced)
    pixel_um2 = grid.fast.step_um * grid.slow.step_um
    fewest, most = 1.0, np.inf
    if query is not None:
        # The size of an object is the diameter of the circle of its area.
        fewest, most = (
            np.pi / 4 * size**2 / pixel_um2 for size in (query.min_size_um, query.max_size_um)
        )
    return possible_targets(
        probability,
        _excess(query, maps),
        fewest_px=fewest,
        most_px=most,
        largest_px=_largest_px(request, enhanced),
        cost=cost,
        longest_s=budget_s,
    )


def _excess(query: Query | None, maps: Evidence) -> np.ndarray:
    """Return how far the elements that are looked for stand out, in Poisson sigmas (y, x)."""
    names = (query.wanted or query.elements) if query is not None else tuple(maps)
    planes = [
        stabilise(np.nan_to_num(maps[name].value)) - stabilise(np.asarray(maps[name].background))
        for name in names
    ]
    return np.clip(np.mean(planes, axis=0), 0.0, None)


def _values(targets: Targets, request: AnalysisRequest, maps: Evidence) -> np.ndarray:
    """Return what each target is worth, in targets: weights times shares of each kind of worth."""
    total = sum(request.worth.values())
    value = np.zeros(targets.weight.size)
    for kind, weight in request.worth.items():
        value += weight / total * targets.expected * _shares(kind, targets, maps)
    return value


def _shares(kind: str, targets: Targets, maps: Evidence) -> np.ndarray:
    """Return the share of each target in all that is worth something in one way."""
    if kind == "targets":
        share = targets.weight
    elif kind == "signal":
        share = targets.weight * targets.signal
    else:
        plane = uncertainty(maps) if kind == "uncertainty" else _novelty(maps)
        sums = np.pad(plane.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        y0, y1, x0, x1 = targets.boxes.T
        share = targets.weight * (sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0])
    return share / share.sum() if share.sum() > 0 else targets.weight / targets.weight.sum()


def uncertainty(maps: Evidence) -> np.ndarray:
    """Return the variance that a rescan would take away (y, x), in units of counting noise."""
    return np.mean(
        [
            np.nan_to_num(((one.below + one.above) / 2) ** 2 / (np.maximum(one.value, 0.0) + 1.0))
            for one in maps.values()
        ],
        axis=0,
    )


def _novelty(maps: Evidence) -> np.ndarray:
    """Return the squared distance of a pixel's composition from those of the map (y, x).

    The map is what was measured: no fine map of the sample is known when regions are chosen. It is
    Mahalanobis' distance of the stabilized counts of all elements from their median, in the
    covariance over the map.
    """
    level = np.stack([stabilise(np.nan_to_num(one.value)) for one in maps.values()])
    flat = level.reshape(len(level), -1)
    flat = flat - np.median(flat, axis=1, keepdims=True)
    inverse = np.linalg.pinv(np.atleast_2d(np.cov(flat)) + 1e-9 * np.eye(len(flat)))
    return np.einsum("ip,ij,jp->p", flat, inverse, flat).reshape(level.shape[1:])


def _terms(request: AnalysisRequest, enhanced: EnhancedMaps) -> RescanTerms:
    """Return what rescans cost and may cost, in pixels of the enhanced map."""
    cost, budget_s = _cost(request, enhanced)
    wide = PAD_COARSE_PX if request.rescans is None else WIDE_PAD_COARSE_PX
    return RescanTerms(
        cost,
        budget_s,
        enhanced.factor,
        _pads(request, enhanced, round(PAD_COARSE_PX * enhanced.factor)),
        _pads(request, enhanced, round(wide * enhanced.factor)),
        _pads(request, enhanced, 0),
        _smallest_px(request, enhanced),
        _largest_px(request, enhanced),
    )


def _cost(request: AnalysisRequest, enhanced: EnhancedMaps) -> tuple[RescanCost, float]:
    """Return what rescans cost in pixels of the enhanced map, and the time for all of them in s."""
    grid, model = enhanced.grid, request.rescans
    if model is None:
        dwell_ms = float(enhanced.dataset.attrs.get("dwell_ms") or _DWELL_MS)
        return RescanCost(dwell_ms * 1e-3, box_s=_REGION_OVERHEAD_S), np.inf
    # Rescans may have another step than the enhanced map.
    columns, rows = grid.fast.step_um / model.step_um, grid.slow.step_um / model.step_um
    cost = RescanCost(
        columns * rows * model.dwell_ms * 1e-3, rows * model.row_overhead_s, model.region_overhead_s
    )
    return cost, np.inf if model.budget_s is None else model.budget_s


def _pads(request: AnalysisRequest, enhanced: EnhancedMaps, least_px: int) -> tuple[int, int]:
    """Return the margin that is asked for in rows and columns, but at least so many pixels."""
    grid = enhanced.grid
    slow, fast = (max(least_px, _pixels(request.pad_um, axis)) for axis in (grid.slow, grid.fast))
    return slow, fast


def _smallest_px(request: AnalysisRequest, enhanced: EnhancedMaps) -> tuple[int, int]:
    grid = enhanced.grid
    return _pixels(request.min_size_um, grid.slow), _pixels(request.min_size_um, grid.fast)


def _largest_px(request: AnalysisRequest, enhanced: EnhancedMaps) -> tuple[int, int]:
    """Return the rows and columns that can be flown at a time."""
    grid = enhanced.grid
    rows, columns = grid.shape
    if request.rescans is not None and request.rescans.reach_um is not None:
        width_um, height_um = request.rescans.reach_um
        rows = max(1, min(int(height_um / grid.slow.step_um + 1e-6), rows))
        columns = max(1, min(int(width_um / grid.fast.step_um + 1e-6), columns))
    return rows, columns


def _pixels(length_um: float, axis: AxisGrid) -> int:
    # Rounded up, except for rounding errors: 0.3 / 0.1 is a little more or less than 3 in floats.
    return int(np.ceil(length_um / axis.step_um - 1e-6))


def _region(
    index: int,
    choice: Choice,
    probability: np.ndarray,
    query: Query | None,
    maps: Evidence,
    enhanced: EnhancedMaps,
    source_uid: str,
) -> Region:
    y0, y1, x0, x1 = choice.boxes[index].tolist()
    window = (slice(y0, y1), slice(x0, x1))
    likely = probability[window]
    # What is said about the region is about its likeliest pixels.
    inside = likely >= min(MATCHES_FROM, float(likely.max()))
    wanted = tuple(maps) if query is None else query.wanted
    present = [name for name in wanted if (maps[name].present[window] & inside).any()]
    # "not Zn" alone looks for nothing in particular.
    named = tuple(present or wanted or (query.elements if query else maps))
    sigma = np.mean([(maps[name].below + maps[name].above)[window][inside] / 2 for name in named])
    trusted = np.mean([enhanced.trusted.sel(element=name).values[window][inside] for name in named])
    slow, fast = enhanced.grid.slow.edges_um, enhanced.grid.fast.edges_um
    return Region(
        x_low_um=float(fast[x0]),
        x_high_um=float(fast[x1]),
        y_low_um=float(slow[y0]),
        y_high_um=float(slow[y1]),
        elements=named,
        score=float(choice.value[index]),
        reason=_reason(index, choice, query, named, maps, window, inside, float(trusted), enhanced),
        source_uid=source_uid,
        predicted_sigma=float(sigma),
        trusted_fraction=float(trusted),
        model_sha256=str(enhanced.model.get("sha256", "")),
        fallback=enhanced.fallback,
    )


def _reason(
    index: int,
    choice: Choice,
    query: Query | None,
    named: tuple[str, ...],
    maps: Evidence,
    window: tuple[slice, slice],
    inside: np.ndarray,
    trusted: float,
    enhanced: EnhancedMaps,
) -> str:
    what = f"matches of {query.text!r}" if query else "places that stand out"
    rows, columns = inside.shape
    parts = [
        f"{choice.targets[index]:.2g} {what} expected",
        f"{choice.seconds[index]:.3g} s, map of {columns} x {rows} pixels",
    ]
    for name in named:
        one = maps[name]
        peak = float(np.nanmax(one.value[window][inside]))
        parts.append(f"{name} up to {peak:.3g} photons/pixel (background {one.background:.3g})")
    if enhanced.fallback:
        # Why there is no model is told once, with the map, and not by each of its regions.
        parts.append("from the bicubic map, whose intervals were never calibrated")
    else:
        parts.append(f"{trusted:.0%} of it trusted")
    return "; ".join(parts)
