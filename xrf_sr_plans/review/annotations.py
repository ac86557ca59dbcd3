"""Where numbers of regions and the scale bar go on a map, for pictures and the page alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from xrf_sr_plans.maps.region import Region

_DIRECTIONS = 16
"""Number of directions in which a place for a number is looked for."""
_DISTANCES = (0.6, 1.0, 1.5, 2.5, 4.0, 6.0, 9.0, 14.0)
"""Gaps between box and number that are tried, in heights of the text."""
_COVERS_BOX, _COVERS_NUMBER, _LEAVES_MAP = 4.0, 6.0, 8.0
"""How bad it is, in heights of the text, if all of a number covers a box and so on."""


@dataclass(frozen=True)
class Extent:
    """The edges of what is drawn, in um."""

    x_low_um: float
    x_high_um: float
    y_low_um: float
    y_high_um: float

    @property
    def width_um(self) -> float:
        """Size along the fast axis, in um."""
        return self.x_high_um - self.x_low_um

    @property
    def height_um(self) -> float:
        """Size along the slow axis, in um."""
        return self.y_high_um - self.y_low_um


@dataclass(frozen=True)
class NumberPlace:
    """Where the number of a region is written, and the line that leads to its box."""

    number: int
    """Number of the region, counted from 1."""
    x_um: float
    """Middle of the number."""
    y_um: float
    """Middle of the number."""
    anchor_x_um: float
    """End of the line at the edge of the box."""
    anchor_y_um: float
    """End of the line at the edge of the box."""


def number_places(
    regions: Sequence[Region], extent: Extent, digit_um: float, height_um: float
) -> list[NumberPlace]:
    """Return where the numbers of regions go: outside all boxes where there is room.

    A number stays close to its box, inside the map, and off the other boxes and numbers, as far as
    that is possible.

    Parameters
    ----------
    regions
        The regions in the order of their numbers, which begin with 1.
    extent
        The edges of what is drawn.
    digit_um
        Width of a digit on the map.
    height_um
        Height of a digit on the map.
    """
    # Each row is (x low, x high, y low, y high).
    boxes = np.array(
        [(one.x_low_um, one.x_high_um, one.y_low_um, one.y_high_um) for one in regions]
    ).reshape(-1, 4)
    written = np.empty((0, 4))
    places = []
    for number, box in enumerate(boxes, start=1):
        width = digit_um * len(str(number))
        middles, gaps = _candidates(box, width, height_um)
        texts = np.column_stack(
            [
                middles[:, 0] - width / 2,
                middles[:, 0] + width / 2,
                middles[:, 1] - height_um / 2,
                middles[:, 1] + height_um / 2,
            ]
        )
        area = width * height_um
        outside = 1 - _overlaps(texts, np.array([[*_edges(extent)]])) / area
        badness = (
            gaps / height_um
            + _COVERS_BOX * np.minimum(_overlaps(texts, boxes) / area, 2)
            + _COVERS_NUMBER * np.minimum(_overlaps(texts, written) / area, 2)
            + _LEAVES_MAP * outside
        )
        best = int(np.argmin(badness))
        written = np.vstack([written, texts[best]])
        x, y = (float(value) for value in middles[best])
        anchor = float(np.clip(x, box[0], box[1])), float(np.clip(y, box[2], box[3]))
        places.append(NumberPlace(number, x, y, *anchor))
    return places


def scale_bar_um(width_um: float) -> float:
    """Return a round length (1, 2 or 5 times a power of ten) of about a fifth of a width, in um."""
    target = max(width_um, 1e-9) / 4
    power = 10.0 ** math.floor(math.log10(target))
    return max(step * power for step in (1, 2, 5) if step * power <= target)


def length_in_words(um: float) -> str:
    """Return a length with the unit in which it is a handy number, such as "200 nm"."""
    if um >= 1000:
        return f"{um / 1000:g} mm"
    return f"{um:g} µm" if um >= 1 else f"{um * 1000:g} nm"


def _edges(extent: Extent) -> tuple[float, float, float, float]:
    return extent.x_low_um, extent.x_high_um, extent.y_low_um, extent.y_high_um


def _candidates(
    box: np.ndarray, text_width: float, text_height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return middles (place, x and y) around a box, and how far each text is from the box."""
    angles = np.linspace(0, 2 * np.pi, _DIRECTIONS, endpoint=False) + np.pi / 4
    middle = np.array([(box[0] + box[1]) / 2, (box[2] + box[3]) / 2])
    middles, gaps = [], []
    for distance in _DISTANCES:
        gap = distance * text_height
        reach_x = (box[1] - box[0]) / 2 + gap + text_width / 2
        reach_y = (box[3] - box[2]) / 2 + gap + text_height / 2
        # Along the edge of a rectangle around the box, where a circle would leave it.
        directions = np.column_stack([np.cos(angles), np.sin(angles)])
        directions /= np.abs(directions).max(axis=1, keepdims=True)
        middles.append(middle + directions * (reach_x, reach_y))
        gaps.append(np.full(len(angles), gap))
    return np.vstack(middles), np.concatenate(gaps)


def _overlaps(texts: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area that each of some rectangles shares with others, all others together."""
    low = np.maximum(texts[:, None, ::2], others[None, :, ::2])
    high = np.minimum(texts[:, None, 1::2], others[None, :, 1::2])
    return np.prod(np.clip(high - low, 0, None), axis=2).sum(axis=1)
