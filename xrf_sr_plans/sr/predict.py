"""`enhance`: coarse counts in, super-resolved maps with calibrated error bars out.

The fine grid splits each coarse pixel into factor x factor and keeps the outer edges: fine pixel
j of coarse pixel k is centred on ``k + (j - (factor - 1) / 2) / factor`` coarse steps. Rows are
measured in these fine pixels along the fast axis already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from xrf_sr_plans.errors import ConfigError, GridError, ModelError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.value_units import value_unit
from xrf_sr_plans.measurement import Measurement, Sampling
from xrf_sr_plans.physics.resample import repeat
from xrf_sr_plans.sr.estimate import estimate
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.prepare import (
    Prepared,
    measurement_of,
    prepare_maps,
    refuse_what_no_memory_holds,
)
from xrf_sr_plans.sr.registry import load_model, model_path, read_calibration, read_card

__all__ = ["enhance", "enhance_maps", "model_identity"]


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
    """Super-resolve elemental maps, or free them of noise and blur on the same grid.

    Parameters
    ----------
    counts
        (element, y, x) detected photons; NaN: not measured. A DataArray with coordinates ``x``
        and ``y`` (um) keeps its place on the stage; else the first pixel is centred on 0. Where it
        has ``units`` of a rate (counts/s), photons are made of it with `dwell_ms`.
    elements
        Their names, any set in any order.
    factor
        Fine pixels per step along each axis: 2 or 4, or 1 to keep the grid.
    step_um
        Step of the scan along both axes; the distance of rows.
    probe_fwhm_um
        Size of the beam; None: unknown, its blur stays.
    sampling
        ``fly``: a pixel is the mean along its path; ``area``: over its area; ``point``. ``rows``:
        a fly scan with rows `step_um` apart and pixels of ``step_um / factor`` along x, the fast
        axis. A model that reads no rows gets their sums over each step, and a note says so.
    dwell_ms
        Time at each measured pixel; kept as an attribute.
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
        (element, factor * rows, factor * steps along a row), in photons per *measured* pixel; the
        `baseline` is bicubic, and for rows and factor 1 interpolated and smoothed as the counts
        ask for. On one machine with one number of threads the same input gives the same output to
        the bit.

    Raises
    ------
    ConfigError
        A factor, sampling or probe that is not allowed, a device that isn't there, or values in a
        unit that is none of photons.
    GridError
        Shapes or values that don't fit, rows whose pixels are not those of the factor, or results
        larger than this machine's memory.
    MissingExtraError
        torch is not installed.
    ModelError
        Weights that are wrong, damaged or of an unknown architecture, or a factor that the model
        isn't calibrated for.
    """
    pixels = Measurement(factor, sampling).fast_pixels
    values = np.asarray(counts, dtype=float) * _photons_per_unit(counts, dwell_ms)
    if values.ndim != 3:
        raise GridError(f"counts have the shape {values.shape}; (element, y, x) is needed")
    maps = ElementalMaps.from_arrays(
        values,
        _grid_of(counts, values.shape[1:], {"y": step_um, "x": step_um / pixels}),
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

    Step, probe and sampling are taken from the maps' attributes; stage coordinates are kept. Of
    rows, ``step_um`` is the distance, and ``dwell_ms`` the time at each of their pixels. See
    `enhance` for the rest.
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
    _refuse_uncalibrated(card.name, calibration, Measurement(factor))
    return {"name": card.name, "sha256": card.sha256, "calibration": calibration.id}


def _refuse_uncalibrated(model: str, calibration: Calibration, measurement: Measurement) -> None:
    """Raise ModelError, with the name of the model, where it can't enhance such a map."""
    try:
        calibration.as_read(measurement)
    except ModelError as error:
        raise ModelError(
            f"model {model!r} can't enhance by {measurement.factor}: {error}"
        ) from None


def _photons_per_unit(counts: Any, dwell_ms: float | None) -> float:
    """Return how many photons a value of 1 is, by the ``units`` of a DataArray."""
    unit = value_unit(counts.attrs.get("units") if isinstance(counts, xr.DataArray) else None)
    if unit.kind in ("photons", "missing"):
        return 1.0
    if unit.kind == "rate" and dwell_ms is not None:
        return unit.per_s * dwell_ms / 1e3
    needed = "give dwell_ms" if unit.kind == "rate" else "photons are needed, or photons per time"
    raise ConfigError(f"counts have the unit {unit.name!r}: {needed}")


def _grid_of(counts: Any, shape: tuple[int, ...], steps_um: dict[str, float]) -> ScanGrid:
    axes = {}
    for name, num in zip(("y", "x"), shape, strict=True):
        start, step = 0.0, float(steps_um[name])
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
    measurement = measurement_of(maps, factor, deblur=deblur)
    refuse_what_no_memory_holds(maps.counts.values, measurement)
    ready = prepare_maps(maps)
    card, calibration, network = load_model(model)
    _refuse_uncalibrated(card.name, calibration, measurement)
    fields, notes = estimate(ready, maps.elements, measurement, calibration, network, device)
    _hide(fields, ready, measurement)
    return EnhancedMaps.from_arrays(
        maps.grid.refined(measurement.refinement),
        maps.elements,
        **fields,
        factor=factor,
        sampling=measurement.sampling,
        model={"name": card.name, "sha256": card.sha256, "calibration": calibration.id},
        source_uid=str(attrs.get("source_uid", "")),
        fallback="",
        notes=notes,
        data_notes=[*ready.notes, *_unmeasured_trust(card.name, calibration)],
        step_um=float(attrs.get("step_um") or maps.grid.slow.step_um),
        probe_fwhm_um=attrs.get("probe_fwhm_um"),
        deblurred=measurement.removed_probe_steps > 0,
        dwell_ms=attrs.get("dwell_ms"),
    )


def _unmeasured_trust(model: str, calibration: Calibration) -> Iterator[str]:
    """Yield a note where features can't be judged by their size, as without NAME.trust.json."""
    if calibration.regime.blobs is None:
        yield f"no trust boundary of model {model}: features too faint for their size are trusted"


def _hide(fields: dict[str, np.ndarray], ready: Prepared, measurement: Measurement) -> None:
    """Make NaN, in place, what was not measured."""
    for index, measured in enumerate(ready.measured):
        if not measured.all():
            missing = ~repeat(measured, measurement.refinement)
            for values in fields.values():
                values[index][missing] = False if values.dtype == bool else np.nan
