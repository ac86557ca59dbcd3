"""`draw_survey`: the maps, uncertainties and regions of one survey in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.review.annotations import (
    Extent,
    length_in_words,
    number_places,
    scale_bar_um,
)
from xrf_sr_plans.review.view import COLOR_MAPS, NOT_MEASURED, Layer, SurveyView
from xrf_sr_plans.store.exports.whole_file import whole_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMN_INCHES, _MAP_INCHES = 3.4, 2.6
"""Width of a column, and of the map in it."""
_TALLEST = 1.6
"""Height of a row over the width of a map beyond which maps become narrower."""
_DIGIT_INCHES, _NUMBER_INCHES = 0.075, 0.12
"""Width of a digit and height of a number at `_NUMBER_POINTS`, halo included."""
_NUMBER_POINTS = 7.5
_TITLE_POINTS = 10


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
        There is no coarse map to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    draw_into(figure, view)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # As a whole or not at all, whoever else draws it or is killed meanwhile.
    with whole_bytes(path) as memory:
        figure.savefig(memory, dpi=110, format=path.suffix.removeprefix(".") or "png")
    return path


def draw_into(
    figure: Figure,
    view: SurveyView,
    elements: Sequence[str] | None = None,
    *,
    resize: bool = True,
) -> None:
    """Fill a figure with a row for each element.

    Parameters
    ----------
    figure
        The figure. What was in it goes.
    view
        What to draw.
    elements
        Names of the elements to draw; None: all.
    resize
        Whether the figure gets the size that it needs; a window keeps its own.

    Raises
    ------
    RefusedError
        There is no coarse map to draw.
    """
    if not view.coarse:
        raise RefusedError("a survey without a coarse map can't be drawn")
    from matplotlib.ticker import AutoLocator

    layers, extent = view.layers(), view.extent
    rows = [name for name in view.elements if elements is None or name in elements]
    shape = min(extent.height_um / extent.width_um, _TALLEST)
    figure.clear()
    width = _COLUMN_INCHES * max(len(layers), 1) if resize else figure.get_figwidth()
    # Characters are about half as wide as they are high.
    most = int(72 * width / (0.55 * _TITLE_POINTS))
    head = "\n".join(textwrap.fill(line, most) for line in (view.title, *view.notes)).strip()
    height = len(rows) * (0.5 + _MAP_INCHES * shape) + 1.0 + 0.2 * head.count("\n")
    if resize:
        figure.set_size_inches(width, height)
    axes = figure.subplots(len(rows), max(len(layers), 1), squeeze=False)
    x_um, y_um = (extent.x_low_um, extent.x_high_um), (extent.y_low_um, extent.y_high_um)
    for axis in axes.flat:
        # Ticks on all of them would take most of the time.
        axis.set(xlim=x_um, ylim=y_um, aspect="equal", xticks=[], yticks=[])
    # The last map of each scale has the color bar.
    with_bars = {layer.scale: layer.name for layer in layers}.values()
    um_per_inch = max(extent.width_um, extent.height_um / _TALLEST) / _MAP_INCHES
    places = number_places(
        view.regions, extent, _DIGIT_INCHES * um_per_inch, _NUMBER_INCHES * um_per_inch
    )
    for row, element in zip(axes, rows, strict=True):
        index = view.elements.index(element)
        for axis, layer in zip(row, layers, strict=False):
            _draw_map(figure, axis, view, layer, index, layer.name in with_bars)
            if layer.name == "composite" and view.composite is not None:
                _outline_measured(axis, view.composite, element)
            else:
                _draw_regions(axis, view.regions, view.left_out)
            _draw_numbers(axis, places)
        caption = view.captions.get(element, "")
        row[0].set_ylabel(f"{element}\n{caption}" if caption else element, fontsize=11)
    fast, slow = view.axis_names
    for axis, layer in zip(axes[0], layers, strict=False):
        # Above what the map itself says.
        axis.set_title("\n".join(filter(None, [layer.title, axis.get_title()])), fontsize=11)
    # One pair of axes has the names and one bar the scale, which hold for all maps.
    corner = axes[-1, 0]
    corner.set_xlabel(f"{fast} (µm)", fontsize=9)
    corner.set_ylabel(f"{corner.get_ylabel()}\n{slow} (µm)")
    for side in (corner.xaxis, corner.yaxis):
        side.set_major_locator(AutoLocator())
    corner.tick_params(labelsize=7)
    _draw_scale_bar(axes[0, 0], extent)
    if head:
        figure.suptitle(head, fontsize=_TITLE_POINTS)


def _draw_map(
    figure: Figure, axis: Axes, view: SurveyView, layer: Layer, index: int, has_bar: bool
) -> None:
    """Draw one element of a layer."""
    low, high = view.color_range(layer, index)
    axis.set_facecolor(NOT_MEASURED)
    image = None
    for grid, values in layer.tiles:
        image = axis.imshow(
            values[index],
            origin="lower",
            extent=(grid.fast.low_um, grid.fast.high_um, grid.slow.low_um, grid.slow.high_um),
            vmin=low,
            vmax=high,
            cmap=COLOR_MAPS[layer.scale],
            interpolation="nearest",
        )
    if layer.name == "sigma":
        share = _hatch_untrusted(axis, view.enhanced, index)
        words = f"{100 * share:.0f} % not trusted (hatched)" if share else "all of it trusted"
        axis.set_title(words, fontsize=8)
    if image is not None and has_bar:
        label = "σ (photons)" if layer.scale == "sigma" else "photons"
        bar = figure.colorbar(image, ax=axis, shrink=0.85, extend="both")
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=7)


def _halo(width: float) -> list[Any]:
    """Return what puts a dark rim around something white, which is seen on any color."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground="black")]


def _draw_regions(axis: Axes, regions: Sequence[Region], left_out: frozenset[str]) -> None:
    from matplotlib.patches import Rectangle

    for region in regions:
        flown = region.key not in left_out
        corner = (region.x_low_um, region.y_low_um)
        box = Rectangle(corner, region.width_um, region.height_um, fill=False)
        box.set(edgecolor="white", linewidth=1.3 if flown else 0.9, path_effects=_halo(2.8))
        if not flown:
            box.set(linestyle=(0, (2, 2)), path_effects=_halo(1.9))
        axis.add_patch(box)


def _draw_numbers(axis: Axes, places: Sequence[Any]) -> None:
    """Write the numbers beside the boxes, each with a line that leads to its box."""
    for place in places:
        axis.plot(
            [place.anchor_x_um, place.x_um],
            [place.anchor_y_um, place.y_um],
            color="white",
            linewidth=0.7,
            path_effects=_halo(1.8),
        )
        axis.text(
            place.x_um,
            place.y_um,
            str(place.number),
            color="white",
            fontsize=_NUMBER_POINTS,
            weight="bold",
            ha="center",
            va="center",
            path_effects=_halo(2.2),
        )


def _outline_measured(axis: Axes, composite: CompositeMap, element: str) -> None:
    """Draw the border between what was measured finely and what is estimated."""
    from matplotlib.collections import LineCollection

    measured = np.pad(composite.measured.sel(element=element).values, 1)
    x, y = composite.grid.fast.edges_um, composite.grid.slow.edges_um
    rows, columns = np.nonzero(measured[1:, 1:-1] != measured[:-1, 1:-1])
    across = [[(x[i], y[j]), (x[i + 1], y[j])] for j, i in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(measured[1:-1, 1:] != measured[1:-1, :-1])
    along = [[(x[i], y[j]), (x[i], y[j + 1])] for j, i in zip(rows, columns, strict=True)]
    lines = LineCollection([*across, *along], colors="white", linewidths=1.3)
    lines.set_path_effects(_halo(2.8))
    axis.add_collection(lines)


def _hatch_untrusted(axis: Axes, enhanced: Sequence[EnhancedMaps], index: int) -> float:
    """Hatch what is not trusted, and return its share of all pixels."""
    pixels = hatched = 0
    for maps in enhanced:
        untrusted = ~maps.trusted.values[index].astype(bool)
        pixels, hatched = pixels + untrusted.size, hatched + int(untrusted.sum())
        # `contourf` needs a side of two pixels at least.
        if untrusted.any() and min(untrusted.shape) > 1:
            x, y = maps.grid.fast.centers_um, maps.grid.slow.centers_um
            area = axis.contourf(x, y, untrusted, levels=[0.5, 1.5], colors="none", hatches=["///"])
            # White on the dark end of the color map, with a rim for the bright end.
            area.set(edgecolor=(1, 1, 1, 0.75), linewidth=0.0)
            # Thin, as there may be hundreds of small patches.
            axis.contour(x, y, untrusted, levels=[0.5], colors="white", linewidths=0.5)
    return hatched / pixels if pixels else 0.0


def _draw_scale_bar(axis: Axes, extent: Extent) -> None:
    length = scale_bar_um(extent.width_um)
    x = extent.x_low_um + 0.05 * extent.width_um
    y = extent.y_low_um + 0.06 * extent.height_um
    halo = _halo(4.5)
    axis.plot([x, x + length], [y, y], "w", linewidth=2.5, solid_capstyle="butt", path_effects=halo)
    axis.text(
        x + length / 2,
        y + 0.03 * extent.height_um,
        length_in_words(length),
        color="white",
        fontsize=8,
        ha="center",
        va="bottom",
        path_effects=_halo(2.2),
    )
