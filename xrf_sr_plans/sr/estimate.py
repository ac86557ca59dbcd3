"""From gap-free counts to the fields of `EnhancedMaps`: network, consistency, intervals, trust."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, MissingExtraError
from xrf_sr_plans.measurement import (
    FACTORS,
    SAMPLINGS,
    Sampling,
    checked_sampling,
    factor_not_allowed,
)
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.intervals import Calibration, Regime, intervals
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.sr.threads import for_each
from xrf_sr_plans.sr.trust_mask import untrust

if TYPE_CHECKING:
    import torch

STRIP_PIXELS = 2**16
"""Fine pixels whose intervals are computed together: they fit into the processor's cache."""


@dataclass(frozen=True)
class Setting:
    """How a map was measured, as far as the model needs it."""

    factor: int
    sampling: Sampling
    probe: float
    """Probe FWHM in coarse steps; 0 where unknown."""
    deblur: bool
    """Free the estimate of the probe's blur; else it is what a fine scan with the same probe
    would count."""

    def __post_init__(self) -> None:
        if self.factor not in FACTORS:
            raise ConfigError(factor_not_allowed(self.factor))
        checked_sampling(self.sampling)
        if not (np.isfinite(self.probe) and self.probe >= 0):
            raise ConfigError(f"probe FWHM is {self.probe} coarse steps; it should be 0 or more")

    @property
    def removed_probe(self) -> float:
        """FWHM, in coarse steps, that the estimate is freed of."""
        return self.probe if self.deblur else 0.0

    @property
    def sharpening(self) -> float:
        """`removed_probe`, negative where the estimate keeps that blur (`uncertainty.Scores`)."""
        return self.probe if self.deblur else -self.probe


def estimate(
    ready: Prepared,
    elements: Sequence[str],
    setting: Setting,
    calibration: Calibration,
    network: Any,
    device: str | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the fields of `EnhancedMaps`, gap-free, and what is to be said about them.

    Single precision and element by element: a map of 2048 x 2048 x 10 fits into 8 GB.
    """
    shrink = _shrinkage(ready.counts, calibration.regime)
    counts = ready.counts / shrink[:, None, None] if (shrink > 1).any() else ready.counts
    scale = Scale.of(counts)
    stabilised, sigma = run_network(counts, scale, setting, network, device)
    # The network's arrays become the first two fields: no second copy of a large map.
    fields = {"estimate": stabilised, "sigma": sigma}
    fields |= {name: np.empty_like(stabilised) for name in ("lower", "upper", "baseline")}
    fields["trusted"] = np.empty(stabilised.shape, dtype=bool)

    def finish(index: int) -> None:
        one = slice(index, index + 1)
        mine = {name: values[one] for name, values in fields.items()}
        _finish(mine, counts[one], scale.only(index), setting, calibration, shrink[index])

    for_each(finish, len(elements), stabilised[0].size)
    notes = [
        f"{element}: brighter than calibrated: taken for {1 / by:.2g} of its counts"
        for element, by in zip(elements, shrink, strict=True)
        if by > 1
    ]
    notes += untrust(fields, elements, ready, scale, setting, calibration.regime)
    return fields, notes


def _shrinkage(counts: np.ndarray, regime: Regime) -> np.ndarray:
    """Return by how much to divide each element so that the model has seen such counts.

    Where there are more, the counting noise is far below everything else: taking it for
    larger than it is costs nothing.
    """
    top = np.quantile(counts.reshape(counts.shape[0], -1), 0.995, axis=1)
    return np.maximum(1.0, top / regime.largest_counts)


def _finish(
    fields: dict[str, np.ndarray],
    counts: np.ndarray,
    scale: Scale,
    setting: Setting,
    calibration: Calibration,
    shrink: float,
) -> None:
    """Fill the fields of one element, each (1, y, x), in place of the network's."""
    factor, sampling, probe = setting.factor, setting.sampling, setting.removed_probe
    made = unstabilise(fields["estimate"].astype(float))
    made = consistency.project(counts, made, factor, sampling, probe)
    chi2 = consistency.local_chi2(counts, made, factor, sampling, probe)
    agrees = chi2 <= calibration.regime.worst_chi2
    fields["trusted"][:] = agrees.repeat(factor, axis=1).repeat(factor, axis=2)
    fields["baseline"][:] = np.clip(upsample(counts, factor), 0, None) * shrink
    fields["estimate"][:] = made * shrink
    rows = max(1, STRIP_PIXELS // made.shape[2])
    for low in range(0, made.shape[1], rows):
        strip = (slice(None), slice(low, low + rows))
        part, sigma = made[strip], fields["sigma"][strip].astype(float)
        ends = intervals(calibration, factor, stabilise(part), sigma, scale, setting.sharpening)
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
    counts: np.ndarray, scale: Scale, setting: Setting, network: Any, device: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's stabilised estimate and sigma, (element, y, x), float32, fine grid.

    Raises
    ------
    ConfigError
        A device that isn't there.
    MissingExtraError
        torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("enhance", "sr") from error
    from xrf_sr_plans.sr.network import Conditions
    from xrf_sr_plans.sr.tiled_inference import run_tiled

    def row(values: Any) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32)[None]

    target = 0.0 if setting.deblur else setting.probe
    conditions = Conditions(
        row(scale.low),
        row(scale.span),
        torch.tensor([setting.probe], dtype=torch.float32),
        torch.tensor([target], dtype=torch.float32),
        torch.tensor([SAMPLINGS.index(setting.sampling)]),
    )
    where = _device(device)
    stabilised, sigma = run_tiled(network.to(where), counts, conditions, setting.factor, where)
    return stabilised, sigma
