"""What a fly scan measures of a sample that isn't where the scan believes it to be."""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.physics.forward import path_average, row_profile


def fly_displaced(
    sample: np.ndarray,
    shape: tuple[int, int],
    step_px: tuple[float, float],
    displacement_px: np.ndarray,
) -> np.ndarray:
    """Return a map (element, y, x) of a sample that is displaced differently in each row.

    The map is centered on the sample. Each row averages along its path, one pixel's path after the
    other, and is a line across: this is the forward model (`physics.forward`) of fly scans.

    Parameters
    ----------
    sample
        Rates (element, Y, X), after the blur of the probe.
    shape
        Rows and pixels of a row of the map.
    step_px
        Distance of the rows, and length of a pixel, in pixels of the sample.
    displacement_px
        How far along x and y, in pixels of the sample, what is measured in each row lies from where
        it is in the sample (row, 2).
    """
    rows, columns = shape
    step_y, step_x = step_px
    # Lower edges of the map, in pixels of the sample whose first one begins at 0.
    low_y, low_x = (
        (size - num * step) / 2
        for size, num, step in zip(sample.shape[-2:], shape, step_px, strict=True)
    )
    edges = low_x + step_x * np.arange(columns + 1)
    measured = np.empty((len(sample), rows, columns))
    for row, (shift_x, shift_y) in enumerate(displacement_px):
        center = low_y + (row + 0.5) * step_y - shift_y
        profile = row_profile(sample, center - 0.5)
        measured[:, row] = path_average(profile, edges[:-1] - shift_x, edges[1:] - shift_x)
    return measured
