"""Turns gap-free counts into estimate, error bars and trust: the fields of `EnhancedMaps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, MissingExtraError
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.doubtful_pixels import run_without_doubts
from xrf_sr_plans.sr.intervals import Calibration, Regime, intervals
from xrf_sr_plans.sr.prepare import Prepared, without_background
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.sr.threads import for_each
from xrf_sr_plans.sr.trust_mask import untrust

if TYPE_CHECKING:
    import torch

STRIP_PIXELS = 2**16
"""Fine pixels whose intervals are computed together, few enough for the processor's cache."""


def estimate(
    ready: Prepared,
    elements: Sequence[str],
    measurement: Measurement,
    calibration: Calibration,
    network: Any,
    device: str | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the fields of `EnhancedMaps`, gap-free, and the notes that a user should read.

    Every field is (element, Y, X) on the fine grid. The work is done in single precision and
    element by element, so that a map of 2048 x 2048 x 10 fits into 8 GB.
    """
    shrink = _shrinkage(ready.counts, calibration.regime)
    counts = ready.counts / shrink[:, None, None] if (shrink > 1).any() else ready.counts
    scale = Scale.of(counts)
    stabilised, sigma = run_network(counts, scale, measurement, network, device)
    run_without_doubts(
        (stabilised, sigma),
        counts,
        ready.doubtful_pixels,
        max(network.reach, 3),
        lambda part: run_network(part, scale, measurement, network, device),
    )
    # The network's arrays become the first two fields: no second copy of a large map.
    fields = {"estimate": stabilised, "sigma": sigma}
    fields |= {name: np.empty_like(stabilised) for name in ("lower", "upper", "baseline")}
    fields["trusted"] = np.empty(stabilised.shape, dtype=bool)

    def finish(index: int) -> None:
        only = slice(index, index + 1)
        views = {name: values[only] for name, values in fields.items()}
        _finish(views, counts[only], scale.only(index), measurement, calibration, shrink[index])

    for_each(finish, len(elements), stabilised[0].size)
    notes = [*ready.notes]
    notes += [
        f"{element}: brighter than calibrated: taken for {1 / by:.2g} of its counts"
        for element, by in zip(elements, shrink, strict=True)
        if by > 1
    ]
    notes += untrust(fields, elements, ready, scale, measurement, calibration.regime)
    without_background(fields, ready.background)
    return fields, notes


def _shrinkage(counts: np.ndarray, regime: Regime) -> np.ndarray:
    """Return by how much to divide each element so that the model has seen such counts.

    Where there are more, the counting noise is far below everything else, so taking it for larger
    than it is costs nothing.
    """
    top = np.quantile(counts.reshape(counts.shape[0], -1), 0.995, axis=1)
    return np.maximum(1.0, top / regime.largest_counts)


def _finish(
    fields: dict[str, np.ndarray],
    counts: np.ndarray,
    scale: Scale,
    measurement: Measurement,
    calibration: Calibration,
    shrink: float,
) -> None:
    """Fill the fields of one element, each (1, Y, X), in place of the network's."""
    factor = measurement.factor
    projected = unstabilise(fields["estimate"].astype(float))
    projected = consistency.project(counts, projected, measurement)
    chi2 = consistency.local_chi2(counts, projected, measurement)
    agrees = chi2 <= calibration.regime.worst_chi2
    fields["trusted"][:] = agrees.repeat(factor, axis=1).repeat(factor, axis=2)
    fields["baseline"][:] = np.clip(upsample(counts, factor), 0, None) * shrink
    fields["estimate"][:] = projected * shrink
    rows = max(1, STRIP_PIXELS // projected.shape[2])
    for low in range(0, projected.shape[1], rows):
        strip = (slice(None), slice(low, low + rows))
        part, sigma = projected[strip], fields["sigma"][strip].astype(float)
        ends = intervals(calibration, measurement, stabilise(part), sigma, scale)
        fields["sigma"][strip] = ends.sigma * shrink
        fields["lower"][strip] = np.minimum(ends.lower, part) * shrink
        fields["upper"][strip] = np.maximum(ends.upper, part) * shrink


def _device(name: str | None) -> torch.device:
    import torch

    has_gpu = torch.cuda.is_available()
    try:
        where = torch.device(name or ("cuda" if has_gpu else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is none that torch knows: {error}") from error
    if where.type == "cuda" and not has_gpu:
        raise ConfigError(f"device {name!r}: torch finds no GPU here; None or 'cpu' will do")
    return where


def run_network(
    counts: np.ndarray, scale: Scale, measurement: Measurement, network: Any, device: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's stabilised estimate and its sigma, float32 (element, Y, X).

    `counts` (element, y, x) have no gaps; `scale` is that of these counts.

    Raises
    ------
    ConfigError
        A device that isn't there.
    MissingExtraError
        torch is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("enhance", "sr") from error
    from xrf_sr_plans.sr.network import conditions_of
    from xrf_sr_plans.sr.tiled_inference import run_tiled

    where = _device(device)
    conditions = conditions_of(scale.low[None], scale.span[None], [measurement])
    return run_tiled(network.to(where), counts, conditions, measurement.factor, where)
