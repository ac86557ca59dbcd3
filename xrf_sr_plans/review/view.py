"""`SurveyView`: what there is to see of a survey, layer by layer, however it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.review.annotations import Extent

COLOR_MAPS = {"counts": "viridis", "sigma": "magma"}
"""Color maps of both scales: even in lightness, and safe for the color-blind."""
NOT_MEASURED = "#d9d9d9"
"""Color where nothing is known."""
_MOST_RANKED = 200_000
"""So many pixels, about, decide on the ends of a color scale."""

LayerName = Literal["coarse", "baseline", "enhanced", "composite", "truth", "sigma"]
TITLES: dict[LayerName, str] = {
    "coarse": "coarse, as measured",
    "baseline": "no network",
    "enhanced": "enhanced",
    "composite": "composite",
    "truth": "truth",
    "sigma": "uncertainty (1 σ)",
}
"""What layers are called."""


@dataclass(frozen=True, eq=False)
class Layer:
    """One kind of map of all elements."""

    name: LayerName
    tiles: tuple[tuple[ScanGrid, np.ndarray], ...]
    """Pixels and values (element, y, x) of each tile; NaN where nothing is known."""

    @property
    def title(self) -> str:
        """What the layer is called."""
        return TITLES[self.name]

    @property
    def scale(self) -> Literal["counts", "sigma"]:
        """Which scale of colors the layer has."""
        return "sigma" if self.name == "sigma" else "counts"

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known anywhere."""
        return not any(np.isfinite(values).any() for _, values in self.tiles)


@dataclass(frozen=True)
class SurveyView:
    """What is drawn: the tiles of one survey, and the regions found in them."""

    coarse: Sequence[ElementalMaps]
    """The measured map of each tile."""
    enhanced: Sequence[EnhancedMaps] = ()
    """The enhanced map of each tile that has one."""
    regions: Sequence[Region] = ()
    """All regions, in the order of the numbers that they get in the picture."""
    left_out: frozenset[str] = frozenset()
    """Keys of the regions that were refused (budget, limits, overlap), denied or failed; drawn
    dashed."""
    truth: Sequence[np.ndarray] = ()
    """For a simulation, the true photons per measured pixel of each tile, as an array
    (element, y, x) on the enhanced grid."""
    composite: CompositeMap | None = None
    """The composite map, which is drawn where there is no `truth`; None: nothing was rescanned."""
    title: str = ""
    notes: Sequence[str] = ()
    """Sentences under the title, such as the verdict on the error bars."""
    captions: dict[str, str] = field(default_factory=dict)
    """Text under the name of an element, such as its PSNR."""

    @property
    def elements(self) -> list[str]:
        """Element names, in the order in which they are drawn."""
        return (self.enhanced or self.coarse)[0].elements

    @property
    def axis_names(self) -> tuple[str, str]:
        """Names of the fast and the slow axis, as the beamline has them."""
        grid = self.coarse[0].grid
        return grid.fast.name, grid.slow.name

    @property
    def extent(self) -> Extent:
        """The edges of all tiles."""
        fast = [maps.grid.fast for maps in self.coarse]
        slow = [maps.grid.slow for maps in self.coarse]
        return Extent(
            min(tile.low_um for tile in fast),
            max(tile.high_um for tile in fast),
            min(tile.low_um for tile in slow),
            max(tile.high_um for tile in slow),
        )

    def layers(self) -> list[Layer]:
        """Return the layers in which anything is known, in the order in which they are drawn."""
        found = [Layer("coarse", tuple((maps.grid, maps.counts.values) for maps in self.coarse))]
        arrays = {"baseline": "baseline", "enhanced": "estimate", "sigma": "sigma"}
        of_enhanced: dict[str, Layer] = {
            name: Layer(name, tuple((one.grid, one.dataset[array].values) for one in self.enhanced))  # type: ignore[arg-type]
            for name, array in arrays.items()
        }
        if any(not one.fallback for one in self.enhanced):
            found.append(of_enhanced["baseline"])
        found.append(of_enhanced["enhanced"])
        if self.truth:
            grids = [one.grid for one in self.enhanced]
            found.append(Layer("truth", tuple(zip(grids, self.truth, strict=True))))
        elif self.composite is not None:
            values = self.composite.value.sel(element=self.elements).values
            found.append(Layer("composite", ((self.composite.grid, values),)))
        found.append(of_enhanced["sigma"])
        return [layer for layer in found if not layer.is_empty]

    def color_range(self, layer: Layer, index: int) -> tuple[float, float]:
        """Return the ends of the color scale of an element's map in a layer.

        All maps of counts share one, so that colors can be compared from layer to layer. Single
        bright pixels don't stretch it.

        Parameters
        ----------
        layer
            The layer.
        index
            Index of the element.
        """
        if layer.scale == "counts":
            planes = [maps.counts.values[index] for maps in self.coarse]
        else:
            planes = [values[index] for _, values in layer.tiles]
        known = np.concatenate([plane[np.isfinite(plane)].ravel() for plane in planes])
        if not known.size:
            return 0.0, 1.0
        # Of large maps a part tells as well, in a fraction of the time.
        low, high = np.percentile(known[:: 1 + known.size // _MOST_RANKED], [0.5, 99.5])
        return float(low), float(max(high, low + 1e-9))
