"""`common_planes`: bring a prediction and a fine map onto the same pixels and the same unit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.usable import usable_counts_of

SAME_STEP = 0.99
"""The fine map's pixels are used where its step is at least this part of the prediction's."""


@dataclass(frozen=True, eq=False)
class CommonPlanes:
    """One element's prediction and measurement on common pixels, as planes (y, x).

    Values are in photons per measured pixel, and NaN where a pixel wasn't measured.
    """

    element: str
    predicted: dict[str, np.ndarray]
    """Planes of the prediction: estimate, sigma, lower, upper, baseline and trusted."""
    value: np.ndarray
    """The measurement."""
    variance: np.ndarray
    """Variance of the counting noise of the measurement."""
    unit: np.ndarray
    """How much one detected photon adds to `value`."""
    scale: float
    """Median factor by which the fine counts were multiplied."""
    coarse_px: float
    """Coarse step, in common pixels."""


def common_planes(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> Iterator[CommonPlanes]:
    """Yield prediction and measurement on common pixels, one element at a time.

    The parameters are those of `compare`.

    Raises
    ------
    AssemblyError
        The maps have no element in common.
    """
    common = [name for name in enhanced.elements if name in fine.elements]
    if not common:
        raise AssemblyError(
            f"prediction has the elements {enhanced.elements}, measurement {fine.elements}:"
            " none in common"
        )
    target = _common_grid(enhanced.grid, fine.grid)
    average_predicted = AreaAverage(enhanced.grid, target)
    average_measured = AreaAverage(fine.grid, target)
    scale = fine_count_scale(enhanced, fine, coarse)
    usable = usable_counts_of(fine)
    for name in common:
        index = fine.elements.index(name)
        counts = usable.counts[index]
        predicted = {
            key: average_predicted(enhanced.dataset[key].sel(element=name).values.astype(float))
            for key in ("estimate", "sigma", "lower", "upper", "baseline", "trusted")
        }
        if usable.background[index]:
            # Net counts are compared on top of their background, where they have the noise of
            # photons.
            for key in ("estimate", "lower", "upper", "baseline"):
                predicted[key] += average_measured(usable.background[index] * scale)
        yield CommonPlanes(
            element=name,
            predicted=predicted,
            value=average_measured(counts * scale),
            # The variance of a weighted sum of Poisson counts has the weights squared.
            variance=average_measured(counts * scale**2) * average_measured.squared_weights,
            unit=average_measured(scale) * average_measured.squared_weights,
            scale=float(np.nanmedian(scale)),
            coarse_px=enhanced.factor * enhanced.grid.fast.step_um / target.fast.step_um,
        )


def fine_count_scale(
    enhanced: EnhancedMaps, fine: ElementalMaps, coarse: ElementalMaps | None = None
) -> np.ndarray:
    """Return the factors that turn the counts of fine pixels into those of a measured pixel.

    They are the ratio of the dwell times times that of the beam intensities. Where the intensity
    behind the prediction isn't known, the fine counts are brought to the median intensity of their
    own map. Dwell times that are not known count as equal.

    Parameters
    ----------
    enhanced
        The prediction, whose attributes ``dwell_ms`` and ``i0_median`` are those of its coarse map.
    fine
        The fine map with its monitor readings.
    coarse
        The coarse map that the prediction was made from. Where it is given, its dwell time and
        monitor readings are used instead of the attributes.

    Returns
    -------
    numpy.ndarray
        One factor per fine pixel (y, x), NaN where the beam was off.
    """
    dwell_ms = enhanced.dataset.attrs.get("dwell_ms")
    i0_median = enhanced.dataset.attrs.get("i0_median")
    if coarse is not None:
        dwell_ms = coarse.attrs.get("dwell_ms")
        i0_median = coarse.beam().median
    scale = np.ones(fine.grid.shape)
    if dwell_ms and fine.attrs.get("dwell_ms"):
        scale *= float(dwell_ms) / float(fine.attrs["dwell_ms"])
    beam = fine.beam()
    if beam.median is not None:
        scale *= float(i0_median or beam.median) / beam.median
    return scale / beam.relative


def overlap_matrix(source: AxisGrid, target: AxisGrid) -> np.ndarray:
    """Return the share of each target pixel that each source pixel covers along one axis.

    The result is an array (target pixel, source pixel). Multiplied with values at the source
    pixels, it averages them over each target pixel. Rows of target pixels that reach beyond the
    source are NaN. With equal steps this is linear interpolation, and the identity where the grids
    are aligned.
    """
    low = np.maximum(target.edges_um[:-1, None], source.edges_um[None, :-1])
    high = np.minimum(target.edges_um[1:, None], source.edges_um[None, 1:])
    weights = np.clip(high - low, 0, None) / target.step_um
    # Rounding errors of positions leave slivers that are no real overlap.
    weights[weights < 1e-6] = 0.0
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 1 - 1e-3, weights / np.maximum(total, 1e-12), np.nan)


class AreaAverage:
    """Average planes (y, x) of one grid over the pixels of another.

    `squared_weights` is the sum of the squares of the weights in one average, of which the sum is
    1. It is 1 over the number of averaged pixels where all weights are equal.
    """

    def __init__(self, source: ScanGrid, target: ScanGrid) -> None:
        self._rows = overlap_matrix(source.slow, target.slow)
        self._columns = overlap_matrix(source.fast, target.fast)
        self.squared_weights = 1.0
        for weights in (self._rows, self._columns):
            inside = np.isfinite(weights).all(axis=1)
            if inside.any():
                self.squared_weights *= float((weights[inside] ** 2).sum(axis=1).mean())

    def __call__(self, plane: np.ndarray) -> np.ndarray:
        """Return a plane (y, x) averaged; NaN where an unmeasured pixel has any weight."""
        # Zero times NaN is NaN, so NaNs are averaged apart: an unmeasured pixel must spoil only
        # the averages in which it has some weight.
        missing = ~np.isfinite(plane)
        value = self._rows @ np.where(missing, 0.0, plane) @ self._columns.T
        spoiled = self._rows @ missing.astype(float) @ self._columns.T > 1e-9
        return np.where(spoiled, np.nan, value)


def _common_grid(predicted: ScanGrid, measured: ScanGrid) -> ScanGrid:
    """Return, for each axis, the one of both grids with the larger step."""
    fast = _coarser(predicted.fast, measured.fast)
    slow = _coarser(predicted.slow, measured.slow)
    if fast.name == slow.name:
        # The maps may name their axes differently, but those of one grid need different names.
        slow = replace(slow, name=f"{slow.name} (slow)")
    return ScanGrid(fast, slow)


def _coarser(predicted: AxisGrid, measured: AxisGrid) -> AxisGrid:
    return measured if measured.step_um >= SAME_STEP * predicted.step_um else predicted
