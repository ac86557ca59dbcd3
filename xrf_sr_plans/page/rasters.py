"""`raster`: one layer of a survey as a PNG, with the colors and scales of the pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from xrf_sr_plans.maps.grid import AxisGrid
from xrf_sr_plans.review.annotations import Extent
from xrf_sr_plans.review.view import COLOR_MAPS, NOT_MEASURED, Layer, SurveyView

MOST_PIXELS = 800
"""Longest side of an image; larger maps are thinned out."""
_UNKNOWN, _HATCH, _FIRST, _COLORS = 0, 1, 2, 254
"""Numbers of the colors for what is unknown, for the hatch, and for the lowest value."""
_HATCH_PX = 8
_LEAST_HATCHED = 400
"""Shortest side of an image with a hatch, which would else be coarser than what it covers."""


def raster(view: SurveyView, layer: Layer, index: int) -> bytes:
    """Return one element of a layer as a PNG, the highest y on top.

    Its pixels need not be square: it is to be stretched to the shape of the extent. What is not
    trusted is hatched in the layer of the uncertainty.

    Parameters
    ----------
    view
        The survey.
    layer
        One of its layers.
    index
        Index of the element.
    """
    from PIL import Image

    extent = view.extent
    low, high = view.color_range(layer, index)
    least = _LEAST_HATCHED if layer.name == "sigma" else 1
    columns = _pixels([grid.fast for grid, _ in layer.tiles], extent.width_um, least)
    rows = _pixels([grid.slow for grid, _ in layer.tiles], extent.height_um, least)
    # Numbers of colors [row, column], the lowest y first.
    numbers = np.full((rows, columns), _UNKNOWN, dtype=np.uint8)
    for position, (grid, values) in enumerate(layer.tiles):
        y, from_row = _sources(grid.slow, extent.y_low_um, extent.height_um, rows)
        x, from_column = _sources(grid.fast, extent.x_low_um, extent.width_um, columns)
        if not (y.size and x.size):
            continue
        plane = values[index][np.ix_(from_row, from_column)]
        known = np.isfinite(plane)
        steps = (plane - low) * ((_COLORS - 1) / (high - low)) + 0.5
        painted = np.clip(np.nan_to_num(steps, copy=False), 0, _COLORS - 1).astype(np.uint8)
        painted += _FIRST
        if layer.name == "sigma":
            trusted = view.enhanced[position].trusted.values[index]
            painted[_stripes(x, y) & ~trusted[np.ix_(from_row, from_column)].astype(bool)] = _HATCH
        target = np.ix_(y, x)
        numbers[target] = np.where(known, painted, numbers[target])
    image = Image.fromarray(numbers[::-1], mode="P") if rows else Image.new("P", (1, 1))
    image.putpalette(_palette(COLOR_MAPS[layer.scale]))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@cache
def _palette(name: str) -> list[int]:
    colors = [to_rgb(NOT_MEASURED), (1.0, 1.0, 1.0)]
    colors += [tuple(color[:3]) for color in colormaps[name](np.linspace(0, 1, _COLORS))]
    return [round(255 * part) for color in colors for part in color]


def _pixels(axes: Sequence[AxisGrid], size_um: float, least: int) -> int:
    finest = min(axis.step_um for axis in axes)
    return int(np.clip(round(size_um / finest), least, MOST_PIXELS))


def _sources(
    axis: AxisGrid, low_um: float, size_um: float, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixels of an image that a map covers, and which of its own are shown there."""
    centers_um = low_um + (np.arange(num) + 0.5) * size_um / num
    inside = np.flatnonzero((centers_um >= axis.low_um) & (centers_um < axis.high_um))
    own = ((centers_um[inside] - axis.low_um) / axis.step_um).astype(int)
    return inside, np.clip(own, 0, axis.num - 1)


def _stripes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x[None, :] + y[:, None]) % _HATCH_PX == 0


def color_bar(scale: str, steps: int = 12) -> str:
    """Return a CSS gradient with the colors of a scale, from low to high.

    Parameters
    ----------
    scale
        "counts" or "sigma".
    steps
        Number of colors in it.
    """
    colors = colormaps[COLOR_MAPS[scale]](np.linspace(0, 1, steps))
    stops = ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*(255 * color[:3])) for color in colors)
    return f"linear-gradient(to right, {stops})"


def label_size_um(extent: Extent) -> tuple[float, float]:
    """Return width and height of a digit on a map of the page, in um."""
    size_um = max(extent.width_um, 1.3 * extent.height_um)
    return size_um / 46, size_um / 28
