"""`row_shift_px`: by how much every second row of a snake is displaced, found in the map itself."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.registration.denoised import denoised
from xrf_sr_plans.registration.drift import ROW_SHIFT_PX
from xrf_sr_plans.registration.likelihood import compare
from xrf_sr_plans.registration.template import Layout, Template, Warp

REACH_PX = 3.0
"""Largest row shift that is looked for, in pixels along a row."""
_MOST_VALUES = 80_000
_ROUNDS = 6


def row_shift_px(counts: np.ndarray) -> float:
    """Return how far rows 1, 3, ... of a map lie along x from where the others would show them.

    The rows 0, 2, ... are taken for a map of their own, which the others are compared with half-way
    between its rows. A shift that the noise explains as well is no shift.

    Parameters
    ----------
    counts
        Photons (element, y, x) without gaps.

    Returns
    -------
    float
        The shift in pixels; 0 for maps of fewer than 4 rows.
    """
    pairs = counts.shape[1] // 2
    if pairs < 2:
        return 0.0
    even, odd = (counts[:, first : 2 * pairs : 2] for first in (0, 1))
    # Rows enough tell it: a large map is no better known than half of it needs.
    most = max(2, _MOST_VALUES // (odd.shape[0] * odd.shape[2]))
    even, odd = even[:, :most], odd[:, :most]
    layout = Layout((odd.shape[1], odd.shape[2]), (1, 1), "rows")
    fine = denoised(even)
    template = Template.of(fine.counts, layout)

    def warp(shift_px: float) -> Warp:
        return Warp(np.tile([shift_px, -0.5], (layout.shape[0], 1)))

    floor = 0.05 * odd.mean((1, 2), keepdims=True) + 0.05
    tried = np.arange(-REACH_PX, REACH_PX + 0.25, 0.5)
    losses = []
    for shift in tried:
        expected = np.clip(template.values(warp(shift)), 0, None)
        losses.append((np.square(odd - expected) / (expected + floor)).sum())
    found, start = float(tried[int(np.argmin(losses))]), None
    for _ in range(_ROUNDS):
        made = compare(odd, template, fine, warp(found), start)
        start = made.gain, made.blur_px2
        rows = layout.shape[0]
        share = made.honesty[:, 0]
        excess = max(float(made.excess[0]), 1.0)
        information = float(share @ made.information[:rows, :rows] @ share) / excess
        toward = information * found + float(share @ made.score[:rows]) / excess
        # With and without a shift, by how likely each makes the data.
        precision = information + ROW_SHIFT_PX**-2
        evidence = 0.5 * toward**2 / precision - 0.5 * np.log(precision * ROW_SHIFT_PX**2)
        further = toward / precision / (1 + np.exp(-np.clip(evidence, -500, 500)))
        found, before = float(np.clip(further, -REACH_PX, REACH_PX)), found
        if abs(found - before) < 1e-3:
            break
    return found
