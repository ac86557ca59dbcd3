"""The function that makes a whole simulated beamline in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from xrf_sr_plans.devices.protocols import Beamline, RowTimeModel, SettableReadable
from xrf_sr_plans.devices.sim.clock import Clock, as_clock
from xrf_sr_plans.devices.sim.detectors import SimFluorescence, SimI0, SimShutter
from xrf_sr_plans.devices.sim.faults import Fault, FaultPlan, StuckMotor, as_fault_plan
from xrf_sr_plans.devices.sim.fine_stage import SimFineStage, StageStack
from xrf_sr_plans.devices.sim.flyer import FrameTiming, SimRowFlyer
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.motor import SimAxis
from xrf_sr_plans.devices.sim.ride import Ride
from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.devices.sim.samples import SAMPLES
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.physics.forward import Detector
from xrf_sr_plans.ranges import ANY_NUMBER, SEED, ZERO_OR_MORE, box_flaw, check

_MARGIN_UM = 50.0
"""How far the limits lie outside the sample, unless they are given."""

_VELOCITY_UM_S = 500.0
"""Velocity of ordinary moves, unless the highest one is lower."""

_Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class SimBeamline(Beamline):
    """A `Beamline` of simulated devices, with what is behind them.

    Parameters
    ----------
    microscope
        The physics that all devices share.
    clock
        The clock of the hardware.
    i0
        A beam monitor, for step scans.
    detector
        A fluorescence detector, for step scans.
    """

    microscope: Microscope = field(kw_only=True)
    clock: Clock = field(kw_only=True)
    i0: SimI0 = field(kw_only=True)
    detector: SimFluorescence = field(kw_only=True)

    @property
    def devices(self) -> dict[str, Any]:
        """The devices by their names, those for step scans among them."""
        return {**super().devices, self.i0.name: self.i0, self.detector.name: self.detector}


def make_beamline(
    sample: str | Sample = "zagami",
    *,
    seed: int = 0,
    clock: Clock | float | str = "instant",
    faults: FaultPlan | Fault | StuckMotor | Sequence[Fault | StuckMotor] | None = None,
    analysis: SettableReadable | None = None,
    limits_um: _Box | None = None,
    probe_fwhm_um: float | None = 0.5,
    psf: np.ndarray | None = None,
    detector: Detector | None = None,
    i0_ripple: float = 0.01,
    fresh_noise: bool = True,
    drift_um_per_s: tuple[float, float] = (0.0, 0.0),
    egu: str = "um",
    position_um: tuple[float, float] = (0.0, 0.0),
    backlash_um: float = 0.05,
    encoder_noise_um: float = 0.01,
    acceleration_s: float = 0.05,
    max_velocity_um_s: float = 2000.0,
    readout_ms: float = 0.0,
    shutter_open: bool = True,
    axis_names: tuple[str, str] = ("samx", "samy"),
    fine_stage: SimFineStage | None = None,
    **overrides: Any,
) -> SimBeamline:
    """Make a simulated beamline.

    Its devices are the axes samx and samy, the flyer xrf, the shutter, the beam monitor i0 and the
    detector xrfdet.

    Parameters
    ----------
    sample
        A `Sample`, or the name of one ("zagami", "grains", "cells" or "edges"), which is centered
        on the origin of the stage.
    seed
        Seed of all noise.
    clock
        "instant" (nothing takes any time), "real", a factor such as 10 for ten times as fast as
        real, or a `Clock`.
    faults
        What goes wrong, from `xrf_sr_plans.devices.sim.faults`; None: nothing.
    analysis
        The analysis device of the beamline.
    limits_um
        Limits of the axes, ((x low, x high), (y low, y high)), where low == high means that none
        are set; None: the sample and 50 um around it.
    probe_fwhm_um
        Size (FWHM) of the Gaussian probe; 0 or None: the probe is a point.
    psf
        A measured probe (y, x) on the sample's pixels, used instead of the Gaussian.
    detector
        Number of detector elements, dead time, background and saturation.
    i0_ripple
        Relative RMS of the slow fluctuation of the beam intensity.
    fresh_noise
        Whether a map that is flown again over the same grid gets new noise.
    drift_um_per_s
        Velocity (x, y) of the sample on its stage, which no encoder shows.
    egu
        Unit of length of the axes' devices, such as "um" or "mm".
    position_um
        Where the axes (x, y) are to begin with.
    backlash_um
        Play of the sample between the two directions of an axis.
    encoder_noise_um
        RMS error of one encoder reading.
    acceleration_s
        Time to full speed. A row needs a run-up of velocity * acceleration_s / 2.
    max_velocity_um_s
        Highest velocity of the axes.
    readout_ms
        Time of each pixel in ms in which the detector is read out and counts nothing.
    shutter_open
        Whether the shutter is open to begin with.
    axis_names
        Names of the fast and the slow axis.
    fine_stage
        A fine stage on top of the axes, which flies the rescans; None: there is none.
    overrides
        Values of other fields of `Beamline`.

    Raises
    ------
    ConfigError
        A sample or a field is unknown, or a value is out of range.
    """
    _check_overrides(overrides)
    check(
        "make_beamline",
        SEED.flaw("seed", seed),
        ANY_NUMBER.pair_flaw("drift_um_per_s", drift_um_per_s),
        ANY_NUMBER.pair_flaw("position_um", position_um),
        ZERO_OR_MORE.flaw("readout_ms", readout_ms),
        _names_flaw(axis_names),
        "" if limits_um is None else box_flaw("limits_um", limits_um, as_limits=True),
    )
    sample = _sample(sample)
    hardware_clock, plan = as_clock(clock), as_fault_plan(faults)
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
            hardware_clock,
            limits_um=_limits(sample, limits_um)[index],
            max_velocity_um_s=max_velocity_um_s,
            velocity_um_s=min(_VELOCITY_UM_S, max_velocity_um_s),
            acceleration_s=acceleration_s,
            backlash_um=backlash_um,
            encoder_noise_um=encoder_noise_um,
            position_um=position_um[index],
            seed=seed,
            stuck=plan.stuck_motor("slow" if index else "fast"),
        )
        for index in range(2)
    )
    overrides["readout_ms"] = readout_ms
    timing = FrameTiming(readout_ms, overrides.get("max_rate_hz", FrameTiming.max_rate_hz))
    ride = Ride()
    if fine_stage is not None:
        stack = StageStack(fine_stage, (fast, slow), hardware_clock, seed)
        ride, overrides["fine"] = stack.on_coarse, stack.devices(microscope, timing)
    parts = {"microscope": microscope, "clock": hardware_clock, "faults": plan, "ride": ride}
    return _assembled((fast, slow), egu, analysis, parts, timing, overrides)


def _assembled(
    axes: tuple[StageAxis, StageAxis],
    egu: str,
    analysis: SettableReadable | None,
    parts: dict[str, Any],
    timing: FrameTiming,
    overrides: dict[str, Any],
) -> SimBeamline:
    """Put the devices that plans see in front of the simulated parts."""
    fast, slow = axes
    microscope: Microscope = parts["microscope"]
    parts = {**parts, "fast": fast, "slow": slow}
    defaults: dict[str, Any] = {
        "name": "sim",
        "probe_fwhm_um": microscope.probe_fwhm_um,
        "flux_ph_s": 1.0e9,
        # A row speeds up, brakes, and steps the slow axis, which speeds up and brakes too.
        "time_model": RowTimeModel(overhead_s=4 * fast.acceleration_s),
    }
    return SimBeamline(
        fast=SimAxis(name=fast.name, axis=fast, egu=egu),
        slow=SimAxis(name=slow.name, axis=slow, egu=egu),
        flyer=SimRowFlyer(name="xrf", timing=timing, **parts),
        analysis=analysis,
        shutter=SimShutter(name="shutter", microscope=microscope),
        microscope=microscope,
        clock=parts["clock"],
        i0=SimI0(name="i0", **parts),
        detector=SimFluorescence(name="xrfdet", **parts),
        **{**defaults, **overrides},
    )


def _names_flaw(names: Any) -> str:
    """Return what is wrong with the names of the axes, or "" where nothing is."""
    if isinstance(names, (tuple, list)) and len(names) == len(set(map(str, names))) == 2:
        return ""
    return f"axis_names is {names!r:.80}; it must be a pair of different names"


def _limits(sample: Sample, limits_um: _Box | None) -> _Box:
    if limits_um is not None:
        return limits_um
    (left, right), (low, high) = sample.box_um
    return (left - _MARGIN_UM, right + _MARGIN_UM), (low - _MARGIN_UM, high + _MARGIN_UM)


def _sample(sample: str | Sample) -> Sample:
    if isinstance(sample, Sample):
        return sample
    if not isinstance(sample, str) or sample not in SAMPLES:
        raise ConfigError(f"no sample {sample!r}; one of {', '.join(SAMPLES)} or a Sample")
    return SAMPLES[sample]()


def _check_overrides(overrides: dict[str, Any]) -> None:
    taken = {"fast", "slow", "flyer", "analysis", "shutter", "fine", "readout_ms", "settings"}
    allowed = {field.name for field in fields(Beamline)} - taken
    unknown = sorted(set(overrides) - allowed)
    if unknown:
        raise ConfigError(
            f"make_beamline: {', '.join(unknown)} unknown; besides the named ones: "
            f"{', '.join(sorted(allowed))}"
        )
