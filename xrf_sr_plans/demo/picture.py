"""`draw_field`: the element that was looked for, what was rescanned, and what was found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.demo.report import Outcome
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.review.record import left_out, regions_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESCANNED, FOUND, MISSED = "#ff3b6b", "#ffffff", "#ffd400"
"""Colors of the rescanned boxes and of the marks of targets."""
CLOSE_UP_PX = 40
"""Side of the close-up in fine pixels."""


def draw_field(outcome: Outcome, report: dict[str, Any], path: Path | str) -> Path:
    """Save a picture of the element that was looked for.

    Coarse, enhanced, uncertain and composite maps of the field, with the boxes that were rescanned
    and a mark on each target that says whether it was found; below, a close-up of one target.

    Parameters
    ----------
    outcome
        The survey and the truth.
    report
        The figures of `make_report`.
    path
        Name of the PNG file. Its folder is made if need be.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    planes = _planes(outcome)
    grid = outcome.enhanced.grid
    field_inches = 6 * _height_um(grid) / _width_um(grid) + 0.4
    heights = [2 * field_inches + 0.8, 2.8]
    figure = Figure(figsize=(13, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    (top,), (bottom,) = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)
    axes = top.subplot_mosaic([["coarse", "enhanced"], ["sigma", "composite"]])
    for name, axis in axes.items():
        _draw_plane(axis, *planes[name], scale=True)
        axis.set_title(_TITLES[name].format(**report["beam_time_s"]), fontsize=10)
    _draw_boxes(axes["enhanced"], outcome)
    _draw_boxes(axes["composite"], outcome)
    _mark_targets(axes["composite"], outcome)
    window = _close_up(outcome)
    for name, axis in bottom.subplot_mosaic([_CLOSE_UPS]).items():
        _draw_plane(axis, *planes[name], scale=False)
        _draw_outlines(axis, outcome)
        axis.set(xlim=window[:2], ylim=window[2:])
        axis.set_title(f"close-up: {name}", fontsize=9)
    top.suptitle(_title(outcome, report), fontsize=11)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path


_CLOSE_UPS = ["coarse", "no network", "enhanced", "composite", "truth"]
_TITLES = {
    "coarse": "coarse map, as measured in {coarse:.0f} s",
    "enhanced": "enhanced map, with what was then rescanned in {fine:.0f} s",
    "sigma": "uncertainty of the enhanced map (1 σ)",
    "composite": "composite map: fine counts inside the boxes, elsewhere the estimate",
}


def _title(outcome: Outcome, report: dict[str, Any]) -> str:
    """Return what the picture shows, in three lines."""
    found, times = report["targets"], report["beam_time_s"]
    oracle = found["oracle_recall_in_the_same_time"]["number"]
    least = found["oracle_ratio_for_the_same_recall"]
    lines = [
        f"Simulated survey at {report['factor']}x: {found['found']} of {found['true']} places with "
        f"{found['find']} found (recall {found['recall']['number']:.2f}), {times['ratio']:.1f} "
        "times as fast as a fine map of everything",
        f"An oracle that knows the places finds {oracle:.2f} of them in the same time, and as many "
        f"as here {least:.1f} times as fast as that map. Model: {report['model']['name']}",
        outcome.question.label,
    ]
    return "\n".join(lines)


def _planes(outcome: Outcome) -> dict[str, tuple[ScanGrid, np.ndarray, str, float]]:
    """Return grid, values, color map and end of the color scale of each map."""
    element = outcome.question.element
    coarse, enhanced = outcome.coarse, outcome.enhanced
    truth = outcome.truth[enhanced.elements.index(element)]
    fine, top = enhanced.grid, float(np.percentile(truth[outcome.targets.label > 0], 98))
    sigma = enhanced.sigma.sel(element=element).values
    counts = {
        "coarse": (coarse.grid, coarse.counts.sel(element=element).values),
        "no network": (fine, enhanced.baseline.sel(element=element).values),
        "enhanced": (fine, enhanced.estimate.sel(element=element).values),
        "composite": (outcome.composite.grid, outcome.composite.value.sel(element=element).values),
        "truth": (fine, truth),
    }
    planes = {name: (*plane, "viridis", top) for name, plane in counts.items()}
    return planes | {"sigma": (fine, sigma, "magma", float(np.nanpercentile(sigma, 99.8)))}


def _draw_plane(
    axis: Axes, grid: ScanGrid, plane: np.ndarray, colors: str, top: float, *, scale: bool
) -> None:
    image = axis.imshow(
        plane,
        origin="lower",
        extent=(grid.fast.low_um, grid.fast.high_um, grid.slow.low_um, grid.slow.high_um),
        vmin=0,
        vmax=top,
        cmap=colors,
        interpolation="nearest",
    )
    axis.tick_params(labelsize=7)
    if scale:
        axis.set_xlabel("x (µm)", fontsize=8)
        axis.set_ylabel("y (µm)", fontsize=8)
        figure = axis.get_figure()
        assert figure is not None
        bar = figure.colorbar(image, ax=axis, shrink=0.8)
        bar.set_label("photons per measured pixel", fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _draw_boxes(axis: Axes, outcome: Outcome) -> None:
    """Draw the regions that were rescanned; those that were left out are dashed and thin."""
    from matplotlib.patches import Rectangle

    missing = left_out(outcome.record)
    for region in regions_of(outcome.record):
        flown = region.key not in missing
        corner = (region.x_low_um, region.y_low_um)
        box = Rectangle(corner, region.width_um, region.height_um, fill=False)
        box.set(edgecolor=RESCANNED, linewidth=1 if flown else 0.6, linestyle="-" if flown else ":")
        axis.add_patch(box)


def _mark_targets(axis: Axes, outcome: Outcome) -> None:
    """Mark each target as found or missed, beside it."""
    targets, grid = outcome.targets, outcome.enhanced.grid
    found = targets.found(outcome.rescanned)
    for kind, marker, color in ((True, "o", FOUND), (False, "X", MISSED)):
        indices = np.flatnonzero(found == kind).tolist()
        places = [_middle_um(targets.pixels(n + 1), grid) for n in indices]
        x, y = np.array(places).reshape(-1, 2).T
        axis.scatter(
            x,
            y,
            s=130,
            marker=marker,
            edgecolors=color,
            facecolors="none" if kind else color,
            linewidths=1.2,
            clip_on=False,
            label=f"{'found' if kind else 'missed'} ({len(places)})",
        )
    # Below the map, where it covers no mark.
    axis.legend(
        loc="upper right",
        bbox_to_anchor=(1.0, -0.06),
        ncols=2,
        fontsize=8,
        facecolor="#444444",
        labelcolor="white",
    )


def _draw_outlines(axis: Axes, outcome: Outcome) -> None:
    """Draw the true outlines of the targets."""
    grid = outcome.enhanced.grid
    axis.contour(
        grid.fast.centers_um,
        grid.slow.centers_um,
        outcome.targets.label > 0,
        levels=[0.5],
        colors="white",
        linewidths=0.8,
    )


def _middle_um(pixels: np.ndarray, grid: ScanGrid) -> tuple[float, float]:
    row, column = pixels.mean(axis=0).round().astype(int)
    return float(grid.fast.centers_um[column]), float(grid.slow.centers_um[row])


def _close_up(outcome: Outcome) -> tuple[float, float, float, float]:
    """Return the edges (x low, x high, y low, y high) of a close-up of the largest target."""
    targets, grid = outcome.targets, outcome.enhanced.grid
    sizes = np.bincount(targets.label.ravel())[1:]
    pixels = targets.pixels(int(sizes.argmax()) + 1) if len(targets) else np.zeros((1, 2))
    x, y = _middle_um(pixels, grid)
    side = CLOSE_UP_PX * grid.fast.step_um
    x_low, y_low = (
        float(np.clip(middle - side / 2, axis.low_um, max(axis.low_um, axis.high_um - side)))
        for middle, axis in ((x, grid.fast), (y, grid.slow))
    )
    return x_low, x_low + side, y_low, y_low + side


def _width_um(grid: ScanGrid) -> float:
    return grid.fast.high_um - grid.fast.low_um


def _height_um(grid: ScanGrid) -> float:
    return grid.slow.high_um - grid.slow.low_um
