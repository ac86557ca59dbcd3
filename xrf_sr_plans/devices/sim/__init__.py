"""A simulated beamline, made of plain physics objects, thin ophyd devices and declared faults."""

from __future__ import annotations

from xrf_sr_plans.devices.sim.beamline import SimBeamline, make_beamline
from xrf_sr_plans.devices.sim.clock import Clock
from xrf_sr_plans.devices.sim.faults import FaultPlan
from xrf_sr_plans.devices.sim.fine_stage import SimFineStage
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.sample import Sample

__all__ = [
    "Clock",
    "FaultPlan",
    "Microscope",
    "Sample",
    "SimBeamline",
    "SimFineStage",
    "make_beamline",
]
