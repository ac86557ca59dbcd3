"""`make_beamline`: a whole simulated beamline in one call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel
from xrf_sr_plans.devices.sim.clock import Clock, as_clock
from xrf_sr_plans.devices.sim.detectors import SimFluorescence, SimI0, SimShutter
from xrf_sr_plans.devices.sim.faults import Fault, FaultPlan, StuckMotor, as_fault_plan
from xrf_sr_plans.devices.sim.flyer import SimRowFlyer
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.motor import SimAxis
from xrf_sr_plans.devices.sim.sample import SAMPLES, Sample
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.physics.forward import Detector

_MARGIN_UM = 50.0
_VELOCITY_UM_S = 500.0
_Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class SimBeamline(Beamline):
    """A simulated beamline: the `Beamline` that plans see, and what is behind it."""

    microscope: Any = None
    clock: Any = None
    i0: Any = None
    detector: Any = None


def make_beamline(
    sample: str | Sample = "zagami",
    *,
    seed: int = 0,
    clock: Clock | float | Literal["instant", "real"] = "instant",
    faults: FaultPlan | Fault | StuckMotor | list | tuple | None = None,
    analysis: Any = None,
    limits_um: _Box | None = None,
    probe_fwhm_um: float | None = 0.5,
    psf: np.ndarray | None = None,
    detector: Detector | None = None,
    i0_ripple: float = 0.01,
    fresh_noise: bool = False,
    drift_um_per_s: tuple[float, float] = (0.0, 0.0),
    egu: str = "um",
    position_um: tuple[float, float] = (0.0, 0.0),
    backlash_um: float = 0.05,
    encoder_noise_um: float = 0.01,
    acceleration_s: float = 0.05,
    max_velocity_um_s: float = 2000.0,
    shutter_open: bool = True,
    axis_names: tuple[str, str] = ("samx", "samy"),
    **overrides: Any,
) -> SimBeamline:
    """Build a simulated beamline: axes samx and samy, flyer xrf, shutter, i0, detector xrfdet.

    Parameters
    ----------
    sample
        A `Sample`, or the name of one ("zagami", "cells", "edges"); it lies around the origin.
    seed
        Of all noise.
    clock
        "instant", "real", a speed-up factor or a `Clock`.
    faults
        What goes wrong; see `xrf_sr_plans.devices.sim.faults`.
    analysis
        The results device of the beamline.
    limits_um
        ((x low, x high), (y low, y high)); default: the sample and 50 um around it. low == high
        means that no limits are set.
    probe_fwhm_um, psf, detector, i0_ripple, fresh_noise, drift_um_per_s
        See `Microscope`.
    backlash_um, encoder_noise_um, max_velocity_um_s
        See `StageAxis`.
    egu
        Unit in which the axes' devices speak, such as "um" or "mm".
    acceleration_s
        Time to full speed; a row needs a run-up of velocity * acceleration_s / 2.
    shutter_open
        Whether the shutter is open to begin with.
    overrides
        Any other field of `Beamline`.

    Raises
    ------
    ConfigError
        An unknown sample or field, or a value that is out of range.
    """
    _check_overrides(overrides)
    sample = _sample(sample)
    ticking, plan = as_clock(clock), as_fault_plan(faults)
    microscope = Microscope(
        sample,
        probe_fwhm_um=probe_fwhm_um,
        psf=psf,
        detector=detector,
        i0_ripple=i0_ripple,
        seed=seed,
        fresh_noise=fresh_noise,
        drift_um_per_s=drift_um_per_s,
    )
    microscope.shutter_open = shutter_open
    fast, slow = (
        StageAxis(
            axis_names[index],
            ticking,
            limits_um=_limits(sample, limits_um)[index],
            max_velocity_um_s=max_velocity_um_s,
            velocity_um_s=min(_VELOCITY_UM_S, max_velocity_um_s),
            acceleration_s=acceleration_s,
            backlash_um=backlash_um,
            encoder_noise_um=encoder_noise_um,
            position_um=position_um[index],
            seed=seed,
            stuck=plan.stuck("slow" if index else "fast"),
        )
        for index in range(2)
    )
    return _assembled(microscope, (fast, slow), ticking, plan, egu, analysis, overrides)


def _assembled(
    microscope: Microscope,
    axes: tuple[StageAxis, StageAxis],
    clock: Clock,
    faults: FaultPlan,
    egu: str,
    analysis: Any,
    overrides: dict[str, Any],
) -> SimBeamline:
    """Put the devices that plans see in front of the simulated parts."""
    fast, slow = axes
    parts: dict[str, Any] = {"microscope": microscope, "fast": fast, "slow": slow}
    parts |= {"clock": clock, "faults": faults}
    facts: dict[str, Any] = {
        "name": "sim",
        "probe_fwhm_um": microscope.probe_fwhm_um,
        "flux_ph_s": 1.0e9,
        # A row speeds up, brakes, and steps the slow axis, which speeds up and brakes too.
        "time_model": RowTimeModel(overhead_s=4 * fast.acceleration_s),
    }
    return SimBeamline(
        fast=SimAxis(name=fast.name, axis=fast, egu=egu),
        slow=SimAxis(name=slow.name, axis=slow, egu=egu),
        flyer=SimRowFlyer(name="xrf", **parts),
        analysis=analysis,
        shutter=SimShutter(name="shutter", microscope=microscope),
        microscope=microscope,
        clock=clock,
        i0=SimI0(name="i0", **parts),
        detector=SimFluorescence(name="xrfdet", **parts),
        **{**facts, **overrides},
    )


def _limits(sample: Sample, limits_um: _Box | None) -> _Box:
    if limits_um is not None:
        return limits_um
    (left, right), (low, high) = sample.box_um
    return (left - _MARGIN_UM, right + _MARGIN_UM), (low - _MARGIN_UM, high + _MARGIN_UM)


def _sample(sample: str | Sample) -> Sample:
    if isinstance(sample, Sample):
        return sample
    if sample not in SAMPLES:
        raise ConfigError(f"no sample {sample!r}; one of {', '.join(SAMPLES)} or a Sample")
    return SAMPLES[sample]()


def _check_overrides(overrides: dict[str, Any]) -> None:
    taken = {"fast", "slow", "flyer", "analysis", "shutter"}
    allowed = {field.name for field in fields(Beamline)} - taken
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ConfigError(
            f"make_beamline: {', '.join(unknown)} unknown; besides the named ones: "
            f"{', '.join(sorted(allowed))}"
        )
