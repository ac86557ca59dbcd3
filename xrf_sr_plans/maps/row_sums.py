"""`rows_for`: rows that were read out for one factor, as they are for another one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid


def rows_for(maps: ElementalMaps, factor: int) -> ElementalMaps:
    """Return a map whose rows have `factor` pixels per step, or one where that isn't possible.

    Neighboring pixels are summed: counts, live times and dwell add up, I0 is averaged, and a sum
    in which a pixel is missing is unmeasured. Maps that are no rows are returned as they are.

    Parameters
    ----------
    maps
        A measured map with the attributes ``sampling`` and ``step_um``.
    factor
        Pixels per step that are wanted: 1, 2 or 4.
    """
    attrs, fast = maps.attrs, maps.grid.fast
    if attrs.get("sampling") != "rows":
        return maps
    pixels = round(float(attrs["step_um"]) / fast.step_um)
    wanted = factor if pixels % factor == 0 else 1
    times = pixels // wanted
    if times < 2:
        return maps
    step_um = fast.step_um * times
    axis = AxisGrid(fast.name, fast.low_um + step_um / 2, step_um, fast.num // times)

    def grouped(name: str) -> np.ndarray:
        values = maps.dataset[name].values
        return values.reshape(*values.shape[:-1], axis.num, times)

    dwell_ms = attrs.get("dwell_ms")
    attrs |= {
        "dwell_ms": None if dwell_ms is None else float(dwell_ms) * times,
        "sampling": "rows" if wanted > 1 else "fly",
    }
    return ElementalMaps.from_arrays(
        grouped("counts").sum(axis=-1),
        replace(maps.grid, fast=axis),
        maps.elements,
        i0=grouped("i0").mean(axis=-1),
        live_time_s=grouped("live_time_s").sum(axis=-1),
        coverage=grouped("coverage").min(axis=-1),
        **attrs,
    )
