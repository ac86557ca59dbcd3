"""`enhance`: coarse counts in, super-resolved maps with calibrated error bars out.

The fine grid splits each coarse pixel into factor x factor and keeps the outer edges: fine pixel
j of coarse pixel k is centred on ``k + (j - (factor - 1) / 2) / factor`` coarse steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import ConfigError, GridError, MissingExtraError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.schema import Sampling
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.boundary import doubtful
from xrf_sr_plans.sr.fallback import NORMAL_90, bicubic_sigma
from xrf_sr_plans.sr.prepare import Prepared, prepare
from xrf_sr_plans.sr.registry import load_model, model_path, read_calibration, read_card
from xrf_sr_plans.sr.stabilise import Scale, stabilise, unstabilise
from xrf_sr_plans.sr.uncertainty import Calibration, Regime, intervals

if TYPE_CHECKING:
    import torch

FACTORS = (2, 4)
SAMPLINGS: tuple[Sampling, ...] = ("fly", "area", "point")


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
            raise GridError(f"factor is {self.factor}; allowed: {FACTORS}")
        if self.sampling not in SAMPLINGS:
            raise GridError(f"sampling is {self.sampling!r}; allowed: {SAMPLINGS}")
        if not (np.isfinite(self.probe) and self.probe >= 0):
            raise GridError(f"probe FWHM is {self.probe} coarse steps; it must be 0 or more")

    @property
    def removed_probe(self) -> float:
        """FWHM, in coarse steps, that the estimate is freed of."""
        return self.probe if self.deblur else 0.0


def enhance(
    counts: np.ndarray | xr.DataArray,
    *,
    elements: Sequence[str],
    factor: int,
    step_um: float,
    probe_fwhm_um: float | None = None,
    sampling: Sampling = "fly",
    dwell_ms: float | None = None,
    i0: np.ndarray | xr.DataArray | None = None,
    device: str | None = None,
    model: str | None = None,
    deblur: bool = True,
) -> EnhancedMaps:
    """Super-resolve elemental maps.

    Parameters
    ----------
    counts
        (element, y, x) detected photons; NaN: not measured. A DataArray with coordinates ``x``
        and ``y`` (um) keeps its place on the stage; else the first pixel is centred on 0.
    elements
        Their names, any set in any order.
    factor
        2 or 4.
    step_um
        Step of the scan along both axes.
    probe_fwhm_um
        Size of the beam; None: unknown, its blur stays.
    sampling
        ``fly``: a pixel is the mean along its path; ``area``: over its area; ``point``.
    dwell_ms
        Kept as an attribute.
    i0
        (y, x) beam monitor; counts are scaled to its median.
    device
        torch device; None: a GPU if there is one.
    model
        Name of a shipped model or path of a safetensors file; None: the default.
    deblur
        True: estimate the sample itself, where the probe is known. False: estimate what a fine
        scan with the same probe would count (what a rescan can verify).

    Returns
    -------
    EnhancedMaps
        Photons per coarse pixel. On one machine with one number of threads the same input
        gives the same output to the bit.

    Raises
    ------
    ConfigError
        A device that isn't there.
    GridError
        Shapes or values that don't fit.
    MissingExtraError
        torch is not installed.
    ModelError
        Weights that are wrong, damaged or of an unknown architecture.
    """
    values = np.asarray(counts, dtype=float)
    if values.ndim != 3:
        raise GridError(f"counts have the shape {values.shape}; (element, y, x) is needed")
    maps = ElementalMaps.from_arrays(
        values,
        _grid_of(counts, values.shape[1:], step_um),
        [str(name) for name in elements],
        i0=None if i0 is None else np.asarray(i0, dtype=float),
        # Element by element: a NaN in one map doesn't hide the others.
        coverage=np.isfinite(values).any(axis=0).astype(int),
        step_um=step_um,
        probe_fwhm_um=probe_fwhm_um,
        sampling=sampling,
        dwell_ms=dwell_ms,
    )
    return _enhance(maps, factor, model, device, deblur)


def enhance_maps(
    maps: ElementalMaps, factor: int, *, model: str | None = None, device: str | None = None
) -> EnhancedMaps:
    """Super-resolve measured maps as a fine scan *with the same probe* would see them.

    Step, probe and sampling are taken from the maps' attributes; stage coordinates are kept.
    See `enhance` for the rest.
    """
    return _enhance(maps, factor, model, device, deblur=False)


def model_identity(model: str | None, factor: int) -> dict[str, Any]:
    """Return name, sha256 and calibration id of a model without running it (or importing torch).

    Raises
    ------
    ModelError
        No such model, or one that is not calibrated for `factor`.
    """
    path = model_path(model)
    card = read_card(path)
    calibration = read_calibration(path, card)
    calibration.factors(factor)
    return {"name": card.name, "sha256": card.sha256, "calibration": calibration.id}


def _grid_of(counts: Any, shape: tuple[int, ...], step_um: float) -> ScanGrid:
    axes = {}
    for name, num in zip(("y", "x"), shape, strict=True):
        start, step = 0.0, float(step_um)
        if isinstance(counts, xr.DataArray) and name in counts.coords:
            centers = np.asarray(counts.coords[name].values, dtype=float)
            start = float(centers[0])
            step = float(np.diff(centers).mean()) if num > 1 else step
        axes[name] = AxisGrid(name, start, step, num)
    return ScanGrid(axes["x"], axes["y"])


def _enhance(
    maps: ElementalMaps, factor: int, model: str | None, device: str | None, deblur: bool
) -> EnhancedMaps:
    attrs = maps.attrs
    step_um = float(attrs.get("step_um") or maps.grid.fast.step_um)
    probe = float(attrs.get("probe_fwhm_um") or 0.0) / step_um
    setting = Setting(factor, attrs.get("sampling") or "fly", probe, deblur)
    ready = prepare(maps.counts.values, maps.i0.values)
    card, calibration, network = load_model(model)
    calibration.factors(factor)
    fields, notes = estimate(ready, maps.elements, setting, calibration, network, device)
    _hide(fields, ready, factor)
    return EnhancedMaps.from_arrays(
        maps.grid.refined(factor),
        maps.elements,
        **fields,
        factor=factor,
        model={"name": card.name, "sha256": card.sha256, "calibration": calibration.id},
        source_uid=str(attrs.get("source_uid", "")),
        fallback="",
        notes=notes,
        step_um=step_um,
        probe_fwhm_um=attrs.get("probe_fwhm_um"),
        deblurred=setting.removed_probe > 0,
        dwell_ms=attrs.get("dwell_ms"),
    )


def _hide(fields: dict[str, np.ndarray], ready: Prepared, factor: int) -> None:
    """Make NaN, in place, what was not measured."""
    for index, measured in enumerate(ready.measured):
        if not measured.all():
            missing = ~measured.repeat(factor, axis=0).repeat(factor, axis=1)
            for values in fields.values():
                values[index][missing] = False if values.dtype == bool else np.nan


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
    counts = ready.counts / shrink[:, None, None]
    scale = Scale.of(counts)
    stabilised, sigma = run_network(counts, scale, setting, network, device)
    # The network's arrays become the first two fields: no second copy of a large map.
    fields = {"estimate": stabilised, "sigma": sigma}
    fields |= {name: np.empty_like(stabilised) for name in ("lower", "upper", "baseline")}
    fields["trusted"] = np.empty(stabilised.shape, dtype=bool)
    for index in range(len(elements)):
        one = _finish(
            counts[index : index + 1],
            stabilised[index : index + 1].astype(float),
            sigma[index : index + 1].astype(float),
            scale.only(index),
            setting,
            calibration,
        )
        for name, values in one.items():
            fields[name][index] = values[0] if name == "trusted" else values[0] * shrink[index]
    notes = _doubt(fields, elements, setting.factor, calibration.regime)
    notes += _judge(fields, elements, ready, scale, setting, calibration.regime)
    return fields, notes


def _doubt(
    fields: dict[str, np.ndarray], elements: Sequence[str], factor: int, regime: Regime
) -> list[str]:
    """Untrust blobs that are too faint for their size, in place."""
    limits = (regime.blobs or {}).get(str(factor))
    if limits is None:
        return []
    notes = []
    for index, element in enumerate(elements):
        faint = doubtful(fields["estimate"][index : index + 1], factor, limits)[0]
        if faint.any():
            fields["trusted"][index] &= ~faint
            share = 100 * float(faint.mean())
            notes.append(f"{element}: {share:.1f} % untrusted: features too faint for their size")
    return notes


def _shrinkage(counts: np.ndarray, regime: Regime) -> np.ndarray:
    """Return by how much to divide each element so that the model has seen such counts.

    Where there are more, the counting noise is far below everything else: taking it for
    larger than it is costs nothing.
    """
    top = np.quantile(counts.reshape(counts.shape[0], -1), 0.995, axis=1)
    return np.maximum(1.0, top / regime.largest_counts)


def _finish(
    counts: np.ndarray,
    stabilised: np.ndarray,
    sigma: np.ndarray,
    scale: Scale,
    setting: Setting,
    calibration: Calibration,
) -> dict[str, np.ndarray]:
    """Return the fields of one element, each (1, y, x)."""
    factor, sampling, probe = setting.factor, setting.sampling, setting.removed_probe
    made = consistency.project(counts, unstabilise(stabilised), factor, sampling, probe)
    ends = intervals(calibration, factor, stabilise(made), sigma, scale, probe)
    chi2 = consistency.local_chi2(counts, made, factor, sampling, probe)
    agrees = chi2 <= calibration.regime.worst_chi2
    return {
        "estimate": made,
        "sigma": ends.sigma,
        "lower": np.minimum(ends.lower, made),
        "upper": np.maximum(ends.upper, made),
        "baseline": np.clip(upsample(counts, factor), 0, None),
        "trusted": agrees.repeat(factor, axis=1).repeat(factor, axis=2),
    }


def _judge(
    fields: dict[str, np.ndarray],
    elements: Sequence[str],
    ready: Prepared,
    scale: Scale,
    setting: Setting,
    regime: Regime,
) -> list[str]:
    """Untrust elements that are out of the calibrated regime; fall back to bicubic for some."""
    notes = []
    for index, element in enumerate(elements):
        if setting.probe > regime.largest_probe:
            for name in ("estimate", "lower", "upper"):
                fields[name][index] = fields["baseline"][index]
            sigma = bicubic_sigma(ready.counts[index], fields["baseline"][index], setting.factor)
            fields["sigma"][index] = sigma
            fields["lower"][index] -= NORMAL_90 * sigma
            fields["upper"][index] += NORMAL_90 * sigma
            fields["lower"][index] = np.clip(fields["lower"][index], 0, None)
            notes.append(
                f"{element}: bicubic, untrusted: the probe is {setting.probe:.2f} steps wide;"
                f" calibrated up to {regime.largest_probe}"
            )
        elif scale.span[index] < regime.smallest_range:
            notes.append(f"{element}: untrusted: nothing above the counting noise")
        else:
            continue
        fields["trusted"][index] = False
    return notes


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
    from xrf_sr_plans.sr.tiles import run_tiled

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
