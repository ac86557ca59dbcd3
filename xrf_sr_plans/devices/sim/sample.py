"""Samples for the simulated microscope: a measured map from the package, and phantoms."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import doubled_names
from xrf_sr_plans.ranges import ABOVE_ZERO, ANY_NUMBER, SEED, Range, check

REFERENCE_DWELL_S = 0.01
"""Dwell, in s, that the parameter `counts_p99` of samples refers to."""
_PIXEL_UM = Range(1e-4, 1e4)
_SIDE = Range(4, 10_000, whole=True)


@dataclass(frozen=True, eq=False)
class Sample:
    """What lies under the beam: a rate for each element on a fine grid.

    Parameters
    ----------
    rates_cps
        Detected photons per second at nominal flux, over all detector elements, shape
        (element, y, x).
    elements
        Names of the elements.
    pixel_um
        Size of the pixels, which are square.
    x_low_um
        Lower *edge* of the first column of pixels, in um of the stage.
    y_low_um
        Lower *edge* of the first row of pixels, in um of the stage.
    name
        Name of the sample, for messages.

    Raises
    ------
    ConfigError
        `rates_cps` doesn't have the shape (number of elements, y, x), two elements have the same
        name, or a rate, `pixel_um` or a position is no number that it can be.
    """

    rates_cps: np.ndarray
    elements: tuple[str, ...]
    pixel_um: float
    x_low_um: float
    y_low_um: float
    name: str = "sample"

    def __post_init__(self) -> None:
        object.__setattr__(self, "rates_cps", np.asarray(self.rates_cps))
        if self.rates_cps.ndim != 3 or len(self.rates_cps) != len(self.elements):
            raise ConfigError(
                f"sample {self.name!r}: rates have the shape {self.rates_cps.shape} for "
                f"{len(self.elements)} elements; (element, y, x) is needed"
            )
        doubled = doubled_names(self.elements)
        if doubled:
            raise ConfigError(f"sample {self.name!r}: {doubled}")
        check(
            f"sample {self.name!r}",
            _rates_flaw(self.rates_cps),
            _PIXEL_UM.flaw("pixel_um", self.pixel_um),
            ANY_NUMBER.flaw("x_low_um", self.x_low_um),
            ANY_NUMBER.flaw("y_low_um", self.y_low_um),
        )

    @classmethod
    def centered(
        cls,
        maps: np.ndarray,
        elements: tuple[str, ...],
        pixel_um: float,
        *,
        counts_p99: float,
        name: str,
    ) -> Sample:
        """Make a sample of maps, centered on the origin of the stage.

        Parameters
        ----------
        maps
            Maps (element, y, x) in any unit that is the same for all elements.
        elements
            Names of the elements.
        pixel_um
            Size of the pixels.
        counts_p99
            Photons that the 99th percentile of all pixels of all elements gives in 10 ms; one
            factor for all elements scales the maps accordingly.
        name
            Name of the sample.

        Raises
        ------
        ConfigError
            A number is not above 0, or there is nothing in the maps.
        """
        maps = np.asarray(maps, dtype=float)
        brightest = float(np.percentile(maps, 99)) if maps.ndim == 3 and maps.size else 0.0
        check(
            f"sample {name!r}",
            ABOVE_ZERO.flaw("counts_p99", counts_p99),
            _PIXEL_UM.flaw("pixel_um", pixel_um),
            ABOVE_ZERO.flaw("the 99th percentile of the maps", brightest),
        )
        height, width = (size * pixel_um for size in maps.shape[-2:])
        scale = counts_p99 / REFERENCE_DWELL_S / brightest
        return cls(maps * scale, elements, pixel_um, -width / 2, -height / 2, name)

    @property
    def box_um(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """The outer edges in um of the stage: ((x low, x high), (y low, y high))."""
        height, width = (size * self.pixel_um for size in self.rates_cps.shape[-2:])
        return (
            (self.x_low_um, self.x_low_um + width),
            (self.y_low_um, self.y_low_um + height),
        )


def _rates_flaw(rates_cps: np.ndarray) -> str:
    """Return what is wrong with the rates of a sample, or "" where nothing is."""
    if rates_cps.dtype.kind not in "uif" or not rates_cps.size:
        return f"rates_cps has the shape {rates_cps.shape} of {rates_cps.dtype}; it must be numbers"
    if not (np.isfinite(rates_cps).all() and (rates_cps >= 0).all()):
        low, high = rates_cps.min(), rates_cps.max()
        return f"rates_cps holds {low:g}..{high:g}; rates must be finite and 0 or more"
    return ""


def _check_phantom(name: str, shape: Any, seed: int = 0) -> None:
    """Refuse a shape (y, x) that no phantom can have, or a seed that seeds nothing."""
    check(f"sample {name!r}", _SIDE.pair_flaw("shape", shape), SEED.flaw("seed", seed))


def zagami(pixel_um: float = 0.5, counts_p99: float = 200.0) -> Sample:
    """Return the measured map that ships with the package: Si, Mg, K, Fe and Ca in a meteorite.

    The map has 80 x 240 pixels. Its contrast was measured by electron microprobe (EPMA-WDS of
    the meteorite Zagami, from pixlise/core, Apache-2.0; see xrf_sr_plans/data/README.md). Pixel
    size and photon rates are not those of the measurement: they are the parameters here.
    """
    with (
        files("xrf_sr_plans.data").joinpath("zagami_crop.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        maps, elements = data["maps"], tuple(str(name) for name in data["elements"])
    return Sample.centered(maps, elements, pixel_um, counts_p99=counts_p99, name="zagami")


def cells(
    shape: tuple[int, int] = (160, 160),
    pixel_um: float = 0.25,
    counts_p99: float = 200.0,
    seed: int = 1,
) -> Sample:
    """Return a phantom of biological cells: K and P bodies, Zn nuclei, Fe spots and Ca grains.

    Elements occur together as in tissue. Each nucleus lies in its cell and iron spots lie in some
    cytoplasms, while calcium grains lie anywhere.
    """
    _check_phantom("cells", shape, seed)
    rng = np.random.default_rng(seed)
    yy, xx = np.mgrid[: shape[0], : shape[1]].astype(float)

    # All arrays from here on have the shape (y, x); lengths and positions are in pixels.
    def ellipse(y: float, x: float, ry: float, rx: float, turn: float) -> np.ndarray:
        """Return a filled ellipse of ones, turned by an angle in radians."""
        u = (xx - x) * np.cos(turn) + (yy - y) * np.sin(turn)
        v = (yy - y) * np.cos(turn) - (xx - x) * np.sin(turn)
        return ((u / rx) ** 2 + (v / ry) ** 2 <= 1).astype(float)

    body, nucleus, spots, grains = (np.zeros(shape) for _ in range(4))
    for _ in range(max(3, shape[0] * shape[1] // 2500)):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        ry, rx, turn = rng.uniform(7, 14), rng.uniform(9, 18), rng.uniform(0, np.pi)
        body = np.maximum(body, rng.uniform(0.6, 1.0) * ellipse(y, x, ry, rx, turn))
        nucleus = np.maximum(nucleus, ellipse(y, x, 0.4 * ry, 0.4 * rx, turn))
        if rng.random() < 0.5:
            dy, dx = rng.uniform(-0.5, 0.5, 2)
            spots = np.maximum(spots, ellipse(y + dy * ry, x + dx * rx, 2, 2, 0))
    for _ in range(max(2, shape[0] * shape[1] // 4000)):
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        ry, rx, turn = rng.uniform(1.5, 4), rng.uniform(1.5, 4), rng.uniform(0, np.pi)
        grains = np.maximum(grains, ellipse(y, x, ry, rx, turn))
    # No tissue is even: a smooth random texture of 20 % RMS, on a thin film of everything.
    smooth_noise = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
    texture = 1 + 0.2 * smooth_noise / smooth_noise.std()
    film = 0.02
    maps = {
        "P": film + body * (0.5 + 0.5 * nucleus) * texture,
        "K": film + body * texture,
        "Ca": film + 0.1 * body + 1.5 * grains,
        "Fe": film / 4 + 0.05 * body + 0.8 * spots,
        "Zn": film / 4 + 0.1 * body + 0.6 * nucleus,
    }
    stack = np.clip(np.stack(list(maps.values())), 0, None)
    return Sample.centered(stack, tuple(maps), pixel_um, counts_p99=counts_p99, name="cells")


def edges(
    shape: tuple[int, int] = (80, 160), pixel_um: float = 0.25, counts_p99: float = 1000.0
) -> Sample:
    """Return a phantom that shows every flip and transposition of a map.

    Its left half is Fe and its right half Zn, with an upright interface at x = 0. One Ni dot lies
    off both axes.
    """
    _check_phantom("edges", shape)
    height, width = shape
    iron, zinc, nickel = (np.full(shape, 0.01) for _ in range(3))
    iron[:, : width // 2] = 1.0
    zinc[:, width // 2 :] = 1.0
    nickel[height // 8 : height // 8 + 4, width // 4 : width // 4 + 4] = 1.0
    maps = np.stack([iron, zinc, nickel])
    return Sample.centered(maps, ("Fe", "Zn", "Ni"), pixel_um, counts_p99=counts_p99, name="edges")
