"""`choose_pair_areas`: areas of a surveyed sample whose pairs a model learns most from.

Areas are squares on a half-overlapping lattice of the map. Two ways to choose among them:

- Where the model is least sure: where a rescan takes away most of the uncertainty, one area after
  the other without overlap.
- What is least represented: the greedy solution of the k-center problem (T. Gonzalez, Theoretical
  Computer Science 38 (1985) 293, DOI 10.1016/0304-3975(85)90224-5), as active learning uses it for
  its core-set (O. Sener, S. Savarese, ICLR 2018, arXiv:1708.00489). The next area is the one whose
  content is farthest from the contents of the stored pairs and of the areas before it. Theirs are
  distances between features of a network; here they are between few numbers that describe counts
  (`rois.area_content`), so that maps of other elements compare, and nothing has to be enhanced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.rois.area_content import CONTENT_NAMES, AreaContent, content_of
from xrf_sr_plans.rois.evidence import ElementEvidence, evidence
from xrf_sr_plans.rois.pick import Picked, uncertainty
from xrf_sr_plans.schema import AnalysisRequest, PairAreas

LEAST_MEASURED = 0.9
"""Share of its pixels that must have been measured of an area."""
MOST_WINDOWS = 2500
"""So many areas are compared at most; on larger maps they are farther apart."""


@dataclass(frozen=True, eq=False)
class KnownContents:
    """What the pair store has already.

    Parameters
    ----------
    contents
        Contents of its coarse maps [map, number], see `AreaContent.numbers`.
    note
        What a user must know of them, such as that there is no store.
    """

    contents: np.ndarray = field(default_factory=lambda: np.empty((0, len(CONTENT_NAMES))))
    note: str = ""


@dataclass(frozen=True, eq=False)
class _Chosen:
    """Areas in the order of choice: their indices, what each is worth, and why in words."""

    indices: Sequence[int]
    worth: Sequence[float]
    reasons: Sequence[str]


def choose_pair_areas(
    enhanced: EnhancedMaps,
    counts: np.ndarray,
    request: AnalysisRequest,
    known: KnownContents,
    *,
    source_uid: str,
) -> Picked:
    """Choose the areas of a map of which pairs are acquired.

    Areas without structure beyond counting noise are left out, since a pair of an empty field
    teaches nothing but noise, and so are areas of which less than `LEAST_MEASURED` was measured.

    Parameters
    ----------
    enhanced
        The enhanced map.
    counts
        What was measured, in photons per coarse pixel (element, y, x): `area_content.coarse_counts`
        of the same map; NaN where nothing was measured.
    request
        Its `pair_areas` says how large the areas are, how many, and how they are chosen.
    known
        What the pair store has already.
    source_uid
        Uid of the run of the coarse map, which each region carries.

    Returns
    -------
    Picked
        The areas in the order of choice, of which there may be none. The score of one is, for the
        least sure, the uncertainty in it, in coarse pixels with as much as counting noise, and
        else its distance in spreads of all contents.

    Raises
    ------
    ConfigError
        The request asks for no areas, or the counts are not those of this map.
    """
    asked = request.pair_areas
    if asked is None:
        raise ConfigError("pair_areas is None: no areas for pairs are asked for")
    enhanced = enhanced.per_coarse_pixel()
    rows, columns = (num // enhanced.factor for num in enhanced.grid.shape)
    if counts.shape != (len(enhanced.elements), rows, columns):
        raise ConfigError(
            f"counts {counts.shape} are not those of an enhanced map of"
            f" {len(enhanced.elements)} elements and {rows} x {columns} coarse pixels"
        )
    boxes = windows((rows, columns), _window_px(enhanced, asked))
    measured = np.isfinite(counts).any(axis=0).astype(float)
    share = _sums(measured, boxes) / _areas_px(boxes)
    boxes = boxes[share >= LEAST_MEASURED - 1e-9]
    contents = [content_of(counts[:, y0:y1, x0:x1]) for y0, y1, x0, x1 in boxes.tolist()]
    full = [index for index, content in enumerate(contents) if content.structured.any()]
    if not full:
        return Picked((), ("no area has structure beyond counting noise: none for pairs",))
    boxes, contents = boxes[full], [contents[index] for index in full]
    maps = {name: evidence(enhanced, name, two_classes=False) for name in enhanced.elements}
    if asked.by == "least sure":
        chosen = _least_sure(block_mean(uncertainty(maps), enhanced.factor), boxes, asked)
        notes = _fallback_note(enhanced)
    else:
        chosen = _least_represented(contents, known, boxes, asked)
        notes = (known.note,) if known.note else ()
    if len(chosen.indices) < asked.number:
        what = f"{asked.number} areas of {asked.size_um:g} um for pairs"
        notes = (*notes, f"{len(chosen.indices)} of {what}: no more without overlap")
    regions = [
        _region(boxes[index], contents[index], worth, reason, maps, enhanced, request, source_uid)
        for index, worth, reason in zip(chosen.indices, chosen.worth, chosen.reasons, strict=True)
    ]
    return Picked(tuple(regions), notes)


def windows(shape: tuple[int, int], size_px: tuple[int, int]) -> np.ndarray:
    """Return squares on a half-overlapping lattice that ends at all edges of a map.

    Parameters
    ----------
    shape
        Rows and columns of the map.
    size_px
        Rows and columns of each; cut to the map.

    Returns
    -------
    ndarray of int
        Rows y0 to y1 and columns x0 to x1 [window, (y0, y1, x0, x1)].
    """
    size = [min(wanted, num) for wanted, num in zip(size_px, shape, strict=True)]
    stride = [max(one // 2, 1) for one in size]
    while np.prod([len(_firsts(*axis)) for axis in zip(shape, size, stride, strict=True)]) > (
        MOST_WINDOWS
    ):
        stride = [one + max(one // 2, 1) for one in stride]
    y0, x0 = np.meshgrid(
        *(_firsts(*axis) for axis in zip(shape, size, stride, strict=True)), indexing="ij"
    )
    return np.stack([y0, y0 + size[0], x0, x0 + size[1]], axis=-1).reshape(-1, 4)


def _firsts(num: int, size: int, stride: int) -> np.ndarray:
    return np.unique(np.append(np.arange(0, num - size + 1, stride), num - size))


def highest_apart(values: np.ndarray, boxes: np.ndarray, number: int) -> list[int]:
    """Return the windows with the highest values, none of which overlap, the highest first.

    Parameters
    ----------
    values
        Value of each window [window].
    boxes
        The windows [window, (y0, y1, x0, x1)].
    number
        How many at most.
    """
    chosen: list[int] = []
    free = np.ones(len(values), dtype=bool)
    while free.any() and len(chosen) < number:
        best = int(np.where(free, values, -np.inf).argmax())
        chosen.append(best)
        free &= ~overlapping(boxes, boxes[best])
    return chosen


def farthest_first(
    contents: np.ndarray, known: np.ndarray, boxes: np.ndarray, number: int
) -> tuple[list[int], list[float]]:
    """Return windows whose contents are far from what is known and from each other.

    Each is the one that is farthest from all before it. Where nothing is known, the first one is
    what is most typical of the map, because most of the map is then like it.

    Parameters
    ----------
    contents
        Content of each window [window, number].
    known
        Contents that there are already [map, number]; may be empty.
    boxes
        The windows [window, (y0, y1, x0, x1)]. No two that overlap are chosen.
    number
        How many at most.

    Returns
    -------
    chosen
        Indices of windows in the order of choice.
    distances
        How far each is from what is known and from those before it, in spreads of all contents.
        That of the first one, where nothing is known, is that from the mean of the map.
    """
    # What differs in nothing but rounding errors says nothing.
    spread = np.concatenate([contents, known]).std(axis=0)
    scale = np.where(spread > 1e-9, spread, np.inf)
    points, centers = contents / scale, known / scale
    chosen: list[int] = []
    distances: list[float] = []
    free = np.ones(len(points), dtype=bool)
    nearest = np.full(len(points), np.inf)
    for center in centers:
        nearest = np.minimum(nearest, np.linalg.norm(points - center, axis=1))
    while free.any() and len(chosen) < number:
        if np.isfinite(nearest).all():
            best = int(np.where(free, nearest, -np.inf).argmax())
            distances.append(float(nearest[best]))
        else:
            from_mean = np.linalg.norm(points - points.mean(axis=0), axis=1)
            best = int(from_mean.argmin())
            distances.append(float(from_mean[best]))
        chosen.append(best)
        free &= ~overlapping(boxes, boxes[best])
        nearest = np.minimum(nearest, np.linalg.norm(points - points[best], axis=1))
    return chosen, distances


def overlapping(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Return which windows share a pixel with one of them [window] (bool)."""
    y0, y1, x0, x1 = boxes.T
    return (y0 < box[1]) & (box[0] < y1) & (x0 < box[3]) & (box[2] < x1)


def _least_sure(plane: np.ndarray, boxes: np.ndarray, asked: PairAreas) -> _Chosen:
    """Choose by the uncertainty of coarse pixels (y, x), in units of counting noise."""
    sums, areas = _sums(plane, boxes), _areas_px(boxes)
    usual = float(plane.mean())
    chosen = highest_apart(sums, boxes, asked.number)
    reasons = []
    for index in chosen:
        mean = sums[index] / areas[index]
        times = f", {mean / usual:.2g} times the mean of the map" if usual > 0 else ""
        reasons.append(f"least sure: {mean:.2g} of counting noise's variance would go{times}")
    return _Chosen(chosen, [float(sums[index]) for index in chosen], reasons)


def _least_represented(
    contents: Sequence[AreaContent], known: KnownContents, boxes: np.ndarray, asked: PairAreas
) -> _Chosen:
    numbers = np.stack([content.numbers for content in contents])
    chosen, distances = farthest_first(numbers, known.contents, boxes, asked.number)
    stored, reasons = len(known.contents), []
    for place, (index, distance) in enumerate(zip(chosen, distances, strict=True)):
        if place == 0 and not stored:
            far = f"most typical of the map, {distance:.2g} spreads from its mean"
        else:
            others = [f"{stored} stored maps"] if stored else []
            others += [f"{place} areas before"] if place else []
            far = f"{distance:.2g} spreads from the nearest of {' and '.join(others)}"
        reasons.append(f"least represented: {far}; {contents[index]}")
    return _Chosen(chosen, distances, reasons)


def _fallback_note(enhanced: EnhancedMaps) -> tuple[str, ...]:
    if not enhanced.fallback:
        return ()
    return ("least sure by the intervals of the bicubic map, which were never calibrated",)


def _window_px(enhanced: EnhancedMaps, asked: PairAreas) -> tuple[int, int]:
    """Return the rows and columns of an area in coarse pixels."""
    slow, fast = (
        max(1, round(asked.size_um / (axis.step_um * enhanced.factor)))
        for axis in (enhanced.grid.slow, enhanced.grid.fast)
    )
    return slow, fast


def _areas_px(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 1] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 2])


def _sums(plane: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the sum of a plane (y, x) over each window [window]; NaN counts as 0."""
    sums = np.pad(np.nan_to_num(plane).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    y0, y1, x0, x1 = boxes.T
    return sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]


def _region(
    box: np.ndarray,
    content: AreaContent,
    worth: float,
    reason: str,
    maps: dict[str, ElementEvidence],
    enhanced: EnhancedMaps,
    request: AnalysisRequest,
    source_uid: str,
) -> Region:
    y0, y1, x0, x1 = (int(edge) * enhanced.factor for edge in box)
    window = (slice(y0, y1), slice(x0, x1))
    pairs = zip(enhanced.elements, content.structured, strict=True)
    named = tuple(name for name, structured in pairs if structured)
    sigma = np.nanmean([(maps[name].below + maps[name].above)[window] / 2 for name in named])
    trusted = np.mean([enhanced.trusted.sel(element=name).values[window] for name in named])
    slow, fast = enhanced.grid.slow.edges_um, enhanced.grid.fast.edges_um
    return Region(
        x_low_um=float(fast[x0]),
        x_high_um=float(fast[x1]),
        y_low_um=float(slow[y0]),
        y_high_um=float(slow[y1]),
        elements=named,
        score=worth,
        reason=reason,
        source_uid=source_uid,
        predicted_sigma=float(sigma),
        trusted_fraction=float(trusted),
        model_sha256=str(enhanced.model.get("sha256", "")),
        fallback=enhanced.fallback,
        stage={} if request.rescans is None else request.rescans.stage,
    )
