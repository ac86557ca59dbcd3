"""The simulated fine stage, which rides on the coarse one, and what of both the sample sees."""

from __future__ import annotations

from dataclasses import dataclass, field

from xrf_sr_plans.devices.protocols import FineStage, RowTimeModel
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import FaultPlan
from xrf_sr_plans.devices.sim.flyer import FrameTiming, SimRowFlyer
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.motor import SimAxis
from xrf_sr_plans.devices.sim.ride import Ride
from xrf_sr_plans.devices.sim.stage import StageAxis
from xrf_sr_plans.maps.stage_placement import Sign

Pair = tuple[float, float]
_Axes = tuple[StageAxis, StageAxis]


@dataclass(frozen=True)
class SimFineStage:
    """How a fine stage is simulated; the defaults are about those of a piezo at HXN.

    Parameters
    ----------
    axis_names
        Names of the fast and the slow axis.
    limits_um
        ((x low, x high), (y low, y high)) of the axes.
    reach_um
        Largest (width, height) of one map.
    center_um
        Where the axes are while the coarse stage flies.
    sign
        For each axis whether it runs with (+1) or against (-1) the coarse one.
    offset_error_um
        How far (x, y) the beam is from where it should be on the sample whenever the fine stage
        flies. No encoder shows it.
    max_velocity_um_s
        Highest velocity of the axes.
    acceleration_s
        Time to full speed.
    encoder_noise_um
        RMS error of one encoder reading.
    egu
        Unit of length of the axes' devices.
    faults
        What goes wrong when it flies.
    """

    axis_names: tuple[str, str] = ("finex", "finey")
    limits_um: tuple[Pair, Pair] = ((-16.0, 16.0), (-16.0, 16.0))
    reach_um: Pair = (30.0, 30.0)
    center_um: Pair = (0.0, 0.0)
    sign: tuple[Sign, Sign] = (1, 1)
    offset_error_um: Pair = (0.0, 0.0)
    max_velocity_um_s: float = 200.0
    acceleration_s: float = 0.005
    encoder_noise_um: float = 0.002
    egu: str = "um"
    faults: FaultPlan = field(default_factory=FaultPlan)


class StageStack:
    """A fine stage on top of a coarse one.

    Parameters
    ----------
    settings
        How the fine stage is.
    coarse
        The axes (fast, slow) that it rides on.
    clock
        The clock of the hardware.
    seed
        Seed of the encoder noise.
    """

    def __init__(self, settings: SimFineStage, coarse: _Axes, clock: Clock, seed: int) -> None:
        self.settings = settings
        self._coarse, self._clock = coarse, clock
        fast, slow = (
            StageAxis(
                settings.axis_names[index],
                clock,
                limits_um=settings.limits_um[index],
                velocity_um_s=settings.max_velocity_um_s,
                max_velocity_um_s=settings.max_velocity_um_s,
                acceleration_s=settings.acceleration_s,
                backlash_um=0.0,
                encoder_noise_um=settings.encoder_noise_um,
                position_um=settings.center_um[index],
                seed=seed,
                stuck=settings.faults.stuck_motor("slow" if index else "fast"),
            )
            for index in range(2)
        )
        self.axes: _Axes = (fast, slow)

    @property
    def on_coarse(self) -> Ride:
        """Where the coarse axes are on the sample: off by what the fine ones are off center."""
        return Ride((1, 1), self._from_center)

    @property
    def on_fine(self) -> Ride:
        """Where the fine axes are on the sample."""
        return Ride(self.settings.sign, self._fine_origin)

    def _from_center(self) -> Pair:
        settings = self.settings
        x, y = (
            sign * (axis.sample_um - center)
            for sign, axis, center in zip(settings.sign, self.axes, settings.center_um, strict=True)
        )
        return x, y

    def _fine_origin(self) -> Pair:
        settings = self.settings
        x, y = (
            axis.sample_um - sign * center + error
            for axis, sign, center, error in zip(
                self._coarse,
                settings.sign,
                settings.center_um,
                settings.offset_error_um,
                strict=True,
            )
        )
        return x, y

    def devices(self, microscope: Microscope, timing: FrameTiming) -> FineStage:
        """Return the fine stage that plans see, with a detector of this timing."""
        settings = self.settings
        fast, slow = self.axes
        flyer = SimRowFlyer(
            name="xrf",
            microscope=microscope,
            fast=fast,
            slow=slow,
            clock=self._clock,
            faults=settings.faults,
            ride=self.on_fine,
            timing=timing,
        )
        return FineStage(
            fast=SimAxis(name=fast.name, axis=fast, egu=settings.egu),
            slow=SimAxis(name=slow.name, axis=slow, egu=settings.egu),
            flyer=flyer,
            reach_um=settings.reach_um,
            center_um=settings.center_um,
            sign=settings.sign,
            time_model=RowTimeModel(overhead_s=4 * settings.acceleration_s),
        )
