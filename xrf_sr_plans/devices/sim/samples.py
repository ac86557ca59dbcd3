"""The samples of the simulated microscope by name."""

from __future__ import annotations

from collections.abc import Callable

from xrf_sr_plans.devices.sim.grains import grains
from xrf_sr_plans.devices.sim.sample import Sample, cells, edges, zagami

SAMPLES: dict[str, Callable[..., Sample]] = {
    "zagami": zagami,
    "grains": grains,
    "cells": cells,
    "edges": edges,
}
"""The functions that make samples, by name."""
