"""`draw_survey`: the maps, uncertainties and regions of one survey in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACCENT = "#ff3b6b"
"""Color of the outlines of regions."""
_SIGMA_COLUMN = 3
"""Column of the uncertainty, which has a color scale of its own."""


@dataclass(frozen=True)
class SurveyView:
    """What is drawn: the tiles of one survey, and the regions found in them."""

    coarse: Sequence[ElementalMaps]
    """The measured map of each tile."""
    enhanced: Sequence[EnhancedMaps]
    """The enhanced map of each tile."""
    regions: Sequence[Region] = ()
    """All regions, in the order of the numbers that they get in the picture."""
    left_out: frozenset[str] = frozenset()
    """Keys of the regions that were refused (budget, limits, overlap) or failed; drawn dashed."""
    truth: Sequence[np.ndarray] = ()
    """For a simulation, the true photons per measured pixel of each tile, as an array
    (element, y, x) on the enhanced grid."""
    composite: CompositeMap | None = None
    """The composite map, which is drawn where there is no `truth`; None: nothing was rescanned."""
    title: str = ""
    captions: dict[str, str] = field(default_factory=dict)
    """Text under the name of an element, such as its PSNR."""


def draw_survey(view: SurveyView, path: Path | str) -> Path:
    """Save a picture of a survey.

    Parameters
    ----------
    view
        What to draw.
    path
        Name of the PNG file. Its folder is made if need be.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    RefusedError
        There is no coarse or no enhanced map to draw.
    """
    if not view.coarse or not view.enhanced:
        raise RefusedError("a survey without a coarse and an enhanced map can't be drawn")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    elements = view.enhanced[0].elements
    columns = ["coarse", "no network", "enhanced", "uncertainty (1 σ)"]
    if view.truth:
        columns.append("truth")
    elif view.composite is not None:
        columns.append("composite")
    grid = view.enhanced[0].grid
    aspect = (grid.slow.high_um - grid.slow.low_um) / (grid.fast.high_um - grid.fast.low_um)
    height = len(elements) * (0.5 + 2.5 * min(aspect, 1.6)) + 0.9
    figure = Figure(figsize=(3.4 * len(columns), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(elements), len(columns), squeeze=False, sharex=True, sharey=True)
    for row, element in enumerate(elements):
        _draw_element(figure, axes[row], view, row, element)
    for column, label in enumerate(columns):
        axes[0, column].set_title(label, fontsize=11)
        axes[-1, column].set_xlabel("x (µm)", fontsize=8)
    figure.suptitle(view.title, fontsize=12)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _draw_element(
    figure: Figure, axes: Sequence[Axes], view: SurveyView, index: int, element: str
) -> None:
    """Fill one row of the picture."""
    # Counts share one scale, so that colors can be compared from column to column.
    scale = _scale([maps.counts.values[index] for maps in view.coarse])
    # For each column, the planes (y, x) of all tiles with the grids that say where they lie.
    shown: list[list[tuple[ScanGrid, np.ndarray]]] = [
        [(maps.grid, maps.counts.values[index]) for maps in view.coarse],
        [(maps.grid, maps.baseline.values[index]) for maps in view.enhanced],
        [(maps.grid, maps.estimate.values[index]) for maps in view.enhanced],
        [(maps.grid, maps.sigma.values[index]) for maps in view.enhanced],
    ]
    if view.truth:
        shown.append(
            [
                (maps.grid, truth[index])
                for maps, truth in zip(view.enhanced, view.truth, strict=True)
            ]
        )
    elif view.composite is not None:
        shown.append([(view.composite.grid, view.composite.value.sel(element=element).values)])
    sigma_scale = _scale([plane for _, plane in shown[_SIGMA_COLUMN]])
    for column, (axis, tiles) in enumerate(zip(axes, shown, strict=True)):
        low, high = sigma_scale if column == _SIGMA_COLUMN else scale
        image = None
        axis.set_facecolor("#d9d9d9")
        for grid, plane in tiles:
            image = axis.imshow(
                plane,
                origin="lower",
                extent=(grid.fast.low_um, grid.fast.high_um, grid.slow.low_um, grid.slow.high_um),
                vmin=low,
                vmax=high,
                cmap="magma" if column == _SIGMA_COLUMN else "viridis",
                interpolation="nearest",
            )
        if view.composite is not None and not view.truth and axis is axes[-1]:
            _outline(axis, view.composite, element)
        else:
            _draw_regions(axis, view.regions, view.left_out)
        axis.tick_params(labelsize=7)
        # One bar for the counts, beside the enhanced map, and one for the uncertainty.
        if image is not None and column in (_SIGMA_COLUMN - 1, _SIGMA_COLUMN):
            figure.colorbar(image, ax=axis, shrink=0.8, label="photons").ax.tick_params(labelsize=7)
    _hatch_untrusted(axes[_SIGMA_COLUMN], view.enhanced, index)
    _set_limits(axes[0], view.coarse)
    caption = view.captions.get(element, "")
    axes[0].set_ylabel(f"{element}\n{caption}\ny (µm)" if caption else f"{element}\ny (µm)")


def _scale(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the ends of a color scale that single bright pixels don't stretch."""
    values = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(max(high, low + 1e-9))


def _draw_regions(axis: Axes, regions: Sequence[Region], left_out: frozenset[str]) -> None:
    from matplotlib.patches import Rectangle

    for number, region in enumerate(regions, start=1):
        color, width, style = _ACCENT, 1.4, "-"
        if region.key in left_out:
            color, width, style = "white", 0.7, "--"
        corner = (region.x_low_um, region.y_low_um)
        box = Rectangle(corner, region.width_um, region.height_um, fill=False)
        box.set(edgecolor=color, linewidth=width, linestyle=style)
        axis.add_patch(box)
        axis.annotate(str(number), corner, color=color, fontsize=7, weight="bold")


def _outline(axis: Axes, composite: CompositeMap, element: str) -> None:
    """Draw the border between what was measured finely and what is estimated."""
    from matplotlib.collections import LineCollection

    measured = np.pad(composite.measured.sel(element=element).values, 1)
    x, y = composite.grid.fast.edges_um, composite.grid.slow.edges_um
    rows, columns = np.nonzero(measured[1:, 1:-1] != measured[:-1, 1:-1])
    across = [[(x[i], y[j]), (x[i + 1], y[j])] for j, i in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(measured[1:-1, 1:] != measured[1:-1, :-1])
    along = [[(x[i], y[j]), (x[i], y[j + 1])] for j, i in zip(rows, columns, strict=True)]
    axis.add_collection(LineCollection([*across, *along], colors=_ACCENT, linewidths=1.4))


def _hatch_untrusted(axis: Axes, enhanced: Sequence[EnhancedMaps], index: int) -> None:
    for maps in enhanced:
        untrusted = ~maps.trusted.values[index].astype(bool)
        # `contourf` needs a side of two pixels at least.
        if untrusted.any() and min(untrusted.shape) > 1:
            axis.contourf(
                maps.grid.fast.centers_um,
                maps.grid.slow.centers_um,
                untrusted,
                levels=[0.5, 1.5],
                colors="none",
                hatches=["////"],
            )


def _set_limits(axis: Axes, coarse: Sequence[ElementalMaps]) -> None:
    fast = [maps.grid.fast for maps in coarse]
    slow = [maps.grid.slow for maps in coarse]
    axis.set_xlim(min(tile.low_um for tile in fast), max(tile.high_um for tile in fast))
    axis.set_ylim(min(tile.low_um for tile in slow), max(tile.high_um for tile in slow))
