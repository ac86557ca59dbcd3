"""Whether the devices that settings name are there, answer, and fit together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from xrf_sr_plans.checkup.findings import Finding
from xrf_sr_plans.config import Settings
from xrf_sr_plans.devices.axes import AxisFacts, axis_facts, own_position
from xrf_sr_plans.devices.from_settings import BeamlineMaker
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.errors import XrfSrError, in_words
from xrf_sr_plans.plans.preflight import Problem, allowed_box, highest_velocity_um_s, is_stepping


def device_findings(settings: Settings, registry: Any) -> Iterator[Finding]:
    """Yield what is to be said of the devices. They are connected, and nothing moves."""
    maker = BeamlineMaker(settings, registry)
    try:
        beamline = maker.beamline()
    except XrfSrError as error:
        for flaw in dict.fromkeys(maker.flaws or [str(error)]):
            yield Finding("beamline", "fails", flaw)
        return
    for name in settings.devices:
        yield _answer(f"devices.{name}", maker.made.get(name))
    yield from _stage_findings(beamline, "beamline")
    if beamline.fine is not None:
        yield from _stage_findings(beamline.rescanning, "beamline.fine")
    if beamline.shutter is None:
        yield Finding("beamline.shutter", "note", "none: the sample is in the beam all the time")
    else:
        yield _answer("beamline.shutter", beamline.shutter)
    for index, held in enumerate(beamline.held):
        place, part = own_position(held.axis), f"beamline.held.{index}"
        text = f"{held.axis.name} is at {place:g}"
        if math.isnan(place):
            yield Finding(part, "fails", f"{held.axis.name} doesn't say where it is")
        else:
            yield Finding(part, "ok", text)
    yield from _fact_findings(beamline)


def _answer(part: str, device: Any) -> Finding:
    """Return whether a device answers."""
    name = getattr(device, "name", repr(device))
    try:
        connected = getattr(device, "connected", None)
    except Exception as error:  # noqa: BLE001 - devices of others raise whatever they like
        return Finding(part, "fails", f"{name}: {in_words(error)}")
    if connected is False:
        return Finding(part, "fails", f"{name} is not connected")
    return Finding(part, "ok", f"{name} {'answers' if connected else 'is there'}")


def _stage_findings(beamline: Beamline, where: str) -> Iterator[Finding]:
    """Yield what is to be said of two axes and their flyer."""
    for role in ("fast", "slow"):
        yield from _axis_findings(beamline, f"{where}.{role}", role)
    flyer, part = beamline.flyer, f"{where}.flyer"
    answer = _answer(part, flyer)
    if answer.state != "ok":
        yield answer
    elif not flyer.elements:
        yield Finding(part, "fails", f"{flyer.name} names no elements")
    else:
        yield Finding(part, "ok", f"{flyer.name} counts {', '.join(flyer.elements)}")


def _axis_findings(beamline: Beamline, part: str, role: str) -> Iterator[Finding]:
    axis = getattr(beamline, role)
    answer = _answer(part, axis)
    if answer.state != "ok":
        yield answer
        return
    try:
        facts = axis_facts(axis)
    except XrfSrError as error:
        yield Finding(part, "fails", str(error))
        return
    box = allowed_box(beamline, facts, is_fast=role == "fast")
    if isinstance(box, Problem):
        yield Finding(part, "fails", box.text)
        return
    at, unit = facts.position_um, _unit(facts)
    where = f"{facts.name} is at {round(at, 3):g} um{unit}, and may go"
    where += f" from {box.low_um:g} to {box.high_um:g}"
    if math.isnan(at):
        yield Finding(part, "note", f"{facts.name} doesn't say where it is")
    elif not box.low_um <= at <= box.high_um:
        yield Finding(part, "note", f"{where}: it is outside")
    else:
        yield Finding(part, "ok", where)
    if role == "fast" and not is_stepping(beamline):
        yield from _velocity_findings(beamline, facts, part)


def _unit(facts: AxisFacts) -> str:
    scale = facts.um_per_unit
    return "" if scale == 1 else f" (its unit is {scale:g} um)"


def _velocity_findings(beamline: Beamline, facts: AxisFacts, part: str) -> Iterator[Finding]:
    wanted, highest = beamline.max_velocity_um_s, facts.max_velocity_um_s
    if wanted is not None and highest is not None and wanted > highest:
        text = f"max_velocity_um_s is {wanted:g}, and {facts.name} takes at most {highest:g} um/s"
        yield Finding(part, "fails", text)
    elif highest_velocity_um_s(beamline, facts) is None:
        text = f"{facts.name} doesn't say how fast it can go; give max_velocity_um_s"
        yield Finding(part, "note", text)
    if beamline.run_up_um is None and facts.acceleration_s is None:
        text = f"{facts.name} doesn't say how it accelerates, so one step is its run-up; give"
        yield Finding(part, "note", f"{text} run_up_um if it needs more")


def _fact_findings(beamline: Beamline) -> Iterator[Finding]:
    """Yield a note for each fact that is unknown and would be of use."""
    notes = {
        "probe_fwhm_um": "unknown, so the network isn't told how much of the blur is the beam's",
        "flux_ph_s": "unknown, so doses are in seconds per um2",
    }
    for name, text in notes.items():
        if getattr(beamline, name) is None:
            yield Finding(f"beamline.{name}", "note", text)
