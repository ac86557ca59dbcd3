"""One picture of a survey: per element coarse, bicubic, enhanced, uncertainty, truth, regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region

_ACCENT = "#ff3b6b"


@dataclass(frozen=True)
class SurveyView:
    """What is drawn: the tiles of one survey and what was found in them.

    `truth` holds, for each tile, an array (element, y, x) on the enhanced grid, where known (in a
    simulation); `fine` the fine rescans, drawn over an empty field where no truth is known.
    """

    coarse: Sequence[ElementalMaps]
    enhanced: Sequence[EnhancedMaps]
    regions: Sequence[Region] = ()
    left_out: frozenset[str] = frozenset()
    """Keys of regions that were refused (budget, limits, overlap) or failed; drawn dashed."""
    truth: Sequence[np.ndarray] = ()
    fine: Sequence[ElementalMaps] = ()
    title: str = ""
    captions: dict[str, str] = field(default_factory=dict)
    """Text under an element's name, such as its PSNR."""


def draw_survey(view: SurveyView, path: Path | str) -> Path:
    """Save the picture as PNG and return its path.

    Raises
    ------
    RefusedError
        There is no map to draw.
    """
    if not view.coarse or not view.enhanced:
        raise RefusedError("a survey without a coarse and an enhanced map can't be drawn")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    elements = view.enhanced[0].elements
    columns = ["coarse", "bicubic", "enhanced", "uncertainty (1 σ)"]
    columns.append("truth" if view.truth else "fine rescans")
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


def _draw_element(figure: Any, axes: Any, view: SurveyView, index: int, element: str) -> None:
    scale = _scale([maps.counts.values[index] for maps in view.coarse])
    shown: list[list[tuple[ScanGrid, np.ndarray]]] = [
        [(maps.grid, maps.counts.values[index]) for maps in view.coarse],
        [(maps.grid, maps.baseline.values[index]) for maps in view.enhanced],
        [(maps.grid, maps.estimate.values[index]) for maps in view.enhanced],
        [(maps.grid, maps.sigma.values[index]) for maps in view.enhanced],
        [(maps.grid, maps.counts.values[index]) for maps in view.fine],
    ]
    if view.truth:
        shown[4] = [(m.grid, t[index]) for m, t in zip(view.enhanced, view.truth, strict=True)]
    sigma_scale = _scale([plane for _, plane in shown[3]])
    for column, (axis, tiles) in enumerate(zip(axes, shown, strict=True)):
        low, high = sigma_scale if column == 3 else scale
        image = None
        axis.set_facecolor("#d9d9d9")
        for grid, plane in tiles:
            image = axis.imshow(
                plane,
                origin="lower",
                extent=(grid.fast.low_um, grid.fast.high_um, grid.slow.low_um, grid.slow.high_um),
                vmin=low,
                vmax=high,
                cmap="magma" if column == 3 else "viridis",
                interpolation="nearest",
            )
        _draw_regions(axis, view.regions, view.left_out)
        axis.tick_params(labelsize=7)
        if image is not None and column in (2, 3):
            figure.colorbar(image, ax=axis, shrink=0.8, label="photons").ax.tick_params(labelsize=7)
    _hatch_untrusted(axes[3], view.enhanced, index)
    _set_limits(axes[0], view.coarse)
    caption = view.captions.get(element, "")
    axes[0].set_ylabel(f"{element}\n{caption}\ny (µm)" if caption else f"{element}\ny (µm)")


def _scale(planes: Sequence[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, [0.5, 99.5])
    return float(low), float(max(high, low + 1e-9))


def _draw_regions(axis: Any, regions: Sequence[Region], left_out: frozenset[str]) -> None:
    from matplotlib.patches import Rectangle

    for number, region in enumerate(regions, start=1):
        colour, width, style = _ACCENT, 1.4, "-"
        if region.key in left_out:
            colour, width, style = "white", 0.7, "--"
        corner = (region.x_low_um, region.y_low_um)
        box = Rectangle(corner, region.width_um, region.height_um, fill=False)
        box.set(edgecolor=colour, linewidth=width, linestyle=style)
        axis.add_patch(box)
        axis.annotate(str(number), corner, color=colour, fontsize=7, weight="bold")


def _hatch_untrusted(axis: Any, enhanced: Sequence[EnhancedMaps], index: int) -> None:
    for maps in enhanced:
        untrusted = ~maps.trusted.values[index].astype(bool)
        if untrusted.any() and min(untrusted.shape) > 1:
            axis.contourf(
                maps.grid.fast.centers_um,
                maps.grid.slow.centers_um,
                untrusted,
                levels=[0.5, 1.5],
                colors="none",
                hatches=["////"],
            )


def _set_limits(axis: Any, coarse: Sequence[ElementalMaps]) -> None:
    axis.set_xlim(min(m.grid.fast.low_um for m in coarse), max(m.grid.fast.high_um for m in coarse))
    axis.set_ylim(min(m.grid.slow.low_um for m in coarse), max(m.grid.slow.high_um for m in coarse))
