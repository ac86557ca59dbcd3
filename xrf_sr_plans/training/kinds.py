"""Samples of as many kinds as there are.

Intervals that are to hold for a kind never seen have to be calibrated on kinds that no network was
trained on, and on many of them.

Beside phantoms and elemental maps there are photographs, which scikit-image and matplotlib bring
along: textures, scenes, micrographs, the sky, script, a terrain model and a magnetic resonance
image. They aren't shipped with this package, and nothing is trained on them.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.training.phantoms import ALL_FAMILIES, phantom
from xrf_sr_plans.training.real_maps import read_npz, to_unit
from xrf_sr_plans.training.samples import Sample, real_samples

PHOTOGRAPHS: dict[str, tuple[tuple[str, int], ...]] = {
    "textures": (("brick", 1), ("grass", 1), ("gravel", 1)),
    "scenes": (("camera", 1), ("astronaut", 1), ("coffee", 2), ("rocket", 1), ("chelsea", 1)),
    "micrographs": (
        ("immunohistochemistry", 1),
        ("cell", 2),
        ("coins", 1),
        ("microaneurysms", 1),
        ("retina", 4),
    ),
    "sky": (("moon", 1), ("hubble_deep_field", 1)),
    "script": (("page", 1), ("text", 1)),
}
"""Kinds of photographs: names in `skimage.data`, and how many pixels are averaged along an axis."""
SIDE_PX = 160
CELL_ELEMENTS = ("P", "K", "Ca", "Fe", "Zn", "Cu")


def all_kinds(
    n_per_family: int, first_seed: int, real_maps: Path | None, *, size: int = SIDE_PX
) -> list[Sample]:
    """Return samples of all kinds: phantoms, real maps where there is a folder, photographs."""
    phantoms = [
        # The family of phantoms and the real maps called tissue are different kinds.
        Sample(f"{family}-{seed}", f"phantom {family}", phantom(family, seed, size=size))
        for family in sorted(ALL_FAMILIES)
        for seed in range(first_seed, first_seed + n_per_family)
    ]
    real = [*real_samples(real_maps), *more_real(real_maps)] if real_maps else []
    return [*phantoms, *real, *photographs()]


def more_real(folder: Path) -> Iterator[Sample]:
    """Yield the real maps that are too few or too odd to train on: one kind each."""
    stack = folder / "hxn_midas_xanes_stack.npz"
    if stack.exists():
        maps, _ = read_npz(stack)
        # Three energies: before the edge, on it, and after it.
        yield Sample(stack.stem, "nano-probe stack", to_unit(maps[[10, 30, 50]])[:, :88, :92])
    scan = folder / "dawn_composite_map.npz"
    if scan.exists():
        yield from _pieces(scan.stem, "composite", to_unit(read_npz(scan)[0]), 128)
    cells = folder / "bnp_fly0001_cells.npz"
    if cells.exists():
        maps, names = read_npz(cells)
        maps = to_unit(maps[[names.index(name) for name in CELL_ELEMENTS]])
        for top in (0, 168):
            part = maps[:, top : top + 168, top : top + 168]
            yield Sample(f"{cells.stem}-{top}", "bacteria", part)


def photographs() -> Iterator[Sample]:
    """Yield the photographs, in pieces; colours count as elements."""
    from skimage import data

    for kind, names in PHOTOGRAPHS.items():
        for name, shrink in names:
            image = np.asarray(getattr(data, name)(), dtype=float)
            maps = image[None] if image.ndim == 2 else np.moveaxis(image[..., :3], -1, 0)
            yield from _pieces(name, kind, to_unit(_shrunk(maps, shrink)), SIDE_PX)
    yield from _of_matplotlib()


def _of_matplotlib() -> Iterator[Sample]:
    from matplotlib import cbook

    terrain = str(cbook.get_sample_data("jacksboro_fault_dem.npz", asfileobj=False))
    heights = read_arrays(Path(terrain), ("elevation",))["elevation"].astype(float)
    yield from _pieces("jacksboro", "terrain", to_unit(heights[None] - heights.min()), SIDE_PX)
    with gzip.open(str(cbook.get_sample_data("s1045.ima.gz", asfileobj=False))) as file:
        slice_ = np.frombuffer(file.read(), np.uint16).reshape(256, 256).astype(float)
    yield from _pieces("s1045", "resonance image", to_unit(slice_[None]), 128)


def _shrunk(maps: np.ndarray, by: int) -> np.ndarray:
    height, width = (side // by for side in maps.shape[1:])
    cut = maps[:, : height * by, : width * by]
    return cut.reshape(len(maps), height, by, width, by).mean(axis=(2, 4))


def _pieces(name: str, kind: str, maps: np.ndarray, side: int, most: int = 2) -> Iterator[Sample]:
    """Yield up to `most` square pieces, as far apart as the maps (element, y, x) allow."""
    side = min(side, *(length // 4 * 4 for length in maps.shape[1:]))
    bottom, right = (length - side for length in maps.shape[1:])
    corners = [(0, 0), (bottom, right)] if max(bottom, right) >= side // 2 else [(0, 0)]
    for y, x in corners[:most]:
        yield Sample(f"{name}-{y}-{x}", kind, maps[:, y : y + side, x : x + side])
