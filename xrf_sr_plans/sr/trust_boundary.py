"""The trust boundary: which features of an estimate are too faint for their size to be believed.

A blob stands out of its surroundings by some photons; over its area they have to exceed the
counting noise of the background by a factor, its *significance*, that was measured for each size
on samples of known structure (`evaluation.fit_boundary`). Blobs below it are true too rarely.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.blobs import DiscFilter, is_peak
from xrf_sr_plans.physics.quantiles import quantiles
from xrf_sr_plans.physics.resample import block_mean, repeat, upsample
from xrf_sr_plans.sr.intervals import table_key
from xrf_sr_plans.sr.model_files import read_sealed, write_sealed

SIZES_STEPS = (0.75, 1.5, 3.0)
"""Diameters that are told apart, in coarse steps; each twice the one before."""
VISIBLE = 0.05
"""A blob lower than this share of the element's range is nothing that anybody would see."""
ROUNDING = 1e-5
"""Share of an element's brightest counts below which a height is the rounding of smoothed maps."""
logger = logging.getLogger(__name__)

NEVER = 1e6
"""Significance, or size, that nothing has."""
PROBE_EDGES = (0.3, 0.8)
"""Edges between groups of probes, FWHM in coarse steps, that an estimate is freed of."""
_PX_PER_STEP = 2
_LEAST_BACKGROUND = 0.5


class TrustBoundary(BaseModel):
    """Smallest significance by factor and size; stored beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=1, ge=1, le=1)
    model_sha256: str
    sizes_steps: tuple[float, ...] = SIZES_STEPS
    significance: dict[str, tuple[float, ...]]
    """Smallest significance that is believed, by `blur_key`, for each of `sizes_steps`.

    `NEVER` stands for sizes that are not to be believed at all.
    """
    false_rate_limit: dict[str, float]
    """False share of the believed blobs, by factor, that the thresholds were chosen for."""
    regularity: float | None = None
    """Share of the local structure that few frequencies may hold (`sr.aliasing`); None: any."""
    smallest_steps: list[dict[str, float]] = Field(default_factory=list)
    """Smallest believable diameter of dots by factor, counts, contrast and probe, for people."""
    smallest_line_steps: list[dict[str, float]] = Field(default_factory=list)
    """Smallest believable width of lines by factor, counts, contrast and probe, for people."""
    figures: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)
    """The tables of `benchmarks/hallucination.py`, for people."""
    source: str = ""


def blur_key(measurement: Measurement) -> str:
    """Return the key under which the limits of a measurement are kept.

    It is that of the tables of intervals, "2" or "2 rows", followed by the group of `PROBE_EDGES`
    where the estimate is freed of a probe's blur, as in "2 blur 1".
    """
    group = int(np.digitize(measurement.removed_probe_steps, PROBE_EDGES))
    key = table_key(measurement)
    return f"{key} blur {group}" if group else key


def blob_limits(
    limits: Mapping[str, tuple[float, ...]] | None, measurement: Measurement
) -> tuple[float, ...] | None:
    """Return the limits by size, or None where there are none for the factor.

    Where limits for the removed blur were not measured, those without blur are returned, and
    where none were for rows, those of squares.
    """
    known = limits or {}
    squares = measurement.squares
    keys = (blur_key(measurement), table_key(measurement), blur_key(squares), table_key(squares))
    return next((known[key] for key in keys if key in known), None)


def read_boundary(weights: Path, model_sha256: str) -> TrustBoundary | None:
    """Read ``NAME.trust.json`` beside a weights file; None where there is none for these weights.

    Raises
    ------
    ModelError
        It is damaged, or it was changed.
    """
    file = weights.with_suffix(".trust.json")
    if not file.exists():
        return None
    plain = read_sealed(file, "trust boundary")
    try:
        boundary = TrustBoundary.model_validate(plain)
    except ValidationError as error:
        raise ModelError(f"{file}: not a trust boundary: {error}") from error
    if boundary.model_sha256 != model_sha256:
        # Weights that were trained on are still good; their boundary has to be measured anew.
        made_for = boundary.model_sha256[:12]
        logger.warning("%s: made for weights %s, not %s", file, made_for, model_sha256[:12])
        return None
    return boundary


def write_boundary(weights: Path, boundary: TrustBoundary) -> Path:
    """Write ``NAME.trust.json`` beside a weights file, with the checksum of its content.

    Raises
    ------
    OSError
        The disk is full, or writing is not permitted.
    """
    file = weights.with_suffix(".trust.json")
    write_sealed(file, boundary.model_dump(mode="json"), indent=None)
    return file


def doubtful(estimate: np.ndarray, factor: int, limits: Sequence[float]) -> np.ndarray:
    """Return where an estimate (element, Y, X) shows blobs outside the trust boundary (bool).

    The estimate is in photons per coarse pixel, whatever the pixels it was measured in. `limits`
    is the boundary's significance for this factor. A blob is marked with a rim of a quarter of a
    coarse step.
    """
    level, size, seen = visible_blobs(estimate, factor)
    bad = seen & (level < np.asarray(limits)[size])
    marked = np.zeros(bad.shape, dtype=bool)
    centres = np.nonzero(bad)
    sizes = size[centres]
    for index, diameter in enumerate(SIZES_STEPS):
        disc = _disc((diameter / 2 + 0.25) * _PX_PER_STEP)
        _stamp(marked, tuple(indices[sizes == index] for indices in centres), disc)
    if factor < _PX_PER_STEP:
        return block_mean(marked, _PX_PER_STEP // factor) > 0
    times = factor // _PX_PER_STEP
    return marked if times == 1 else repeat(marked, (times, times))


def visible_blobs(estimate: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return significance and size of an estimate's `blobs`, and which are high enough to be seen.

    On the grid of two pixels per coarse step.
    """
    plane = _on_half_steps(estimate, factor)
    level, size, height = blobs(plane)
    low, high = np.transpose([quantiles(one, (0.01, 0.995)) for one in plane])
    least = np.maximum(VISIBLE * (high - low), ROUNDING * high).astype(plane.dtype)
    return level, size, (level > 0) & (height >= least[:, None, None])


def blobs(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return significance, index of the size and height of blobs, at their centres (else 0).

    All arrays (element, y, x) are on a grid of two pixels per coarse step. The size is the one at
    which a blob stands out most (T. Lindeberg, Int. J. Comput. Vis. 30 (1998) 79,
    DOI 10.1023/A:1008045108935), so the rim of something large isn't taken for something small.
    """
    filters = [
        DiscFilter(diameter * _PX_PER_STEP / 2, truncate=3.0, cascaded=True)
        for diameter in SIZES_STEPS
    ]
    smooth = filters[0].smooth(plane)
    level, height = np.full_like(plane, -np.inf), np.zeros_like(plane)
    size = np.zeros(plane.shape, dtype=np.int8)
    for index, (diameter, disc) in enumerate(zip(SIZES_STEPS, filters, strict=True)):
        wide = disc.surroundings(plane, smooth)
        heights = disc.heights(smooth, wide)
        area = math.pi * diameter**2 / 4
        stands_out = np.maximum(wide, _LEAST_BACKGROUND)
        np.divide(area, stands_out, out=stands_out)
        np.sqrt(stands_out, out=stands_out)
        stands_out *= heights
        better = stands_out > level
        for best, new in ((level, stands_out), (height, heights), (size, index)):
            np.copyto(best, new, where=better)
        # The surroundings of one size are as smooth as the next size, twice as large, wants it.
        smooth = wide
    peak = is_peak(level, 3)
    return np.where(peak, level, 0.0), size, np.where(peak, height, 0.0)


def _stamp(marked: np.ndarray, centres: tuple[np.ndarray, ...], disc: np.ndarray) -> None:
    """Mark a disc around each centre, in place; what lies beyond the border is dropped."""
    reach = disc.shape[0] // 2
    offsets = np.argwhere(disc) - reach
    plane, *places = (indices[:, None] for indices in centres)
    rows, columns = (place + shift for place, shift in zip(places, offsets.T, strict=True))
    inside = (rows >= 0) & (rows < marked.shape[1]) & (columns >= 0) & (columns < marked.shape[2])
    plane = np.broadcast_to(plane, rows.shape)
    marked[plane[inside], rows[inside], columns[inside]] = True


def _on_half_steps(estimate: np.ndarray, factor: int) -> np.ndarray:
    if factor < _PX_PER_STEP:
        return np.clip(upsample(estimate, _PX_PER_STEP // factor), 0, None).astype(np.float32)
    if factor > _PX_PER_STEP:
        estimate = block_mean(estimate, factor // _PX_PER_STEP)
    return estimate.astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _disc(radius: float) -> Any:
    reach = math.ceil(radius)
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.hypot(rows, columns) <= radius + 0.25
