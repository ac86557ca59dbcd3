"""Run the network over a map of any size, in tiles that leave no seams.

A tile is computed with a margin as wide as the network's reach, so its inner part is what the
whole map would have given. Tiles are cut between coarse pixels, however many measured pixels
these have along the fast axis. Imports torch: import this module lazily.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.sr.cpu_inference import Elementwise
from xrf_sr_plans.sr.folded_network import FoldedNetwork
from xrf_sr_plans.sr.network import Conditions, SetNetwork, fast_pixels_in
from xrf_sr_plans.sr.peer_networks import Peer

log = logging.getLogger(__name__)
SMALLEST_TILE = 16
LARGEST_TILE = 256
"""Margins are computed twice: smaller tiles take longer, as do larger ones, whose features don't
stay in the cache."""
TILE_PIXELS = 5_000_000
"""Elements times pixels of a tile with its margin: about 500 MB of features in bfloat16."""

Network = FoldedNetwork | SetNetwork | Peer
Planes = Iterator[tuple[slice | int, Tensor, Tensor]]


@dataclass(frozen=True)
class Window:
    """Where a tile is (inner) and what it is computed from (outer), in coarse pixels."""

    y: slice
    x: slice
    outer_y: slice
    outer_x: slice


def windows(height: int, width: int, tile: int, margin: int) -> Iterator[Window]:
    """Cut a map into tiles with margins, clipped at the map's border."""

    def cuts(size: int) -> Iterator[tuple[slice, slice]]:
        for low in range(0, size, tile):
            high = min(low + tile, size)
            yield slice(low, high), slice(max(0, low - margin), min(size, high + margin))

    for y, outer_y in cuts(height):
        for x, outer_x in cuts(width):
            yield Window(y, x, outer_y, outer_x)


def run_tiled(
    network: Network,
    counts: np.ndarray,
    conditions: Conditions,
    factor: int,
    device: torch.device,
    tile: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (stabilised estimate, its sigma), each (element, Y, X) on the fine grid.

    `counts` (element, y, x) are photons per measured pixel, the result is in photons per coarse
    pixel. Tiles are `tile` coarse pixels wide; None: as suits map and memory. When memory runs
    out they are halved, down to `SMALLEST_TILE`.

    Raises
    ------
    AnalysisError
        Not even the smallest tile fits.
    """
    # Bicubic reaches two pixels further than its base pixel.
    margin = max(network.reach, 3)
    pixels = fast_pixels_in(conditions, factor)
    coarse = (*counts.shape[:2], counts.shape[2] // pixels)
    tile = tile or _suitable_tile(coarse, margin)
    while True:
        try:
            return _run(network, counts, conditions, factor, device, (tile, margin))
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            if tile // 2 < SMALLEST_TILE:
                raise AnalysisError(
                    f"out of memory on {device} with tiles of {tile} coarse pixels"
                    f" and {counts.shape[0]} elements"
                ) from error
            tile //= 2
            log.warning("out of memory on %s: going on with tiles of %d pixels", device, tile)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _suitable_tile(shape: tuple[int, ...], margin: int) -> int:
    """Return the side of equal tiles, as few as `LARGEST_TILE` and `TILE_PIXELS` allow."""
    n_elements, *sides = shape
    fitting = math.isqrt(TILE_PIXELS // n_elements) - 2 * margin
    largest = min(max(fitting, 2 * SMALLEST_TILE), LARGEST_TILE)
    return max(math.ceil(side / math.ceil(side / largest)) for side in sides)


def _is_out_of_memory(error: Exception) -> bool:
    # On the CPU torch has no class of its own for it.
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "can't allocate memory" in str(error)


def _run(
    network: Network,
    counts: np.ndarray,
    conditions: Conditions,
    factor: int,
    device: torch.device,
    cut: tuple[int, int],
) -> tuple[np.ndarray, np.ndarray]:
    pixels = fast_pixels_in(conditions, factor)
    n_elements, height, width = *counts.shape[:2], counts.shape[2] // pixels
    fine = (n_elements, height * factor, width * factor)
    made = np.empty(fine, np.float32), np.empty(fine, np.float32)
    with torch.inference_mode(), _repeatable(device):
        planes = _planes(network, conditions, factor, device)
        for window in windows(height, width, *cut):
            outer = counts[:, window.outer_y, _scaled(window.outer_x, 0, pixels)]
            part = torch.from_numpy(outer.astype(np.float32))
            inner_y = _scaled(window.y, window.outer_y.start, factor)
            inner_x = _scaled(window.x, window.outer_x.start, factor)
            place = (_scaled(window.y, 0, factor), _scaled(window.x, 0, factor))
            for elements, *found in planes(part):
                for whole, one in zip(made, found, strict=True):
                    inner = one[..., inner_y, inner_x].float().cpu().numpy()
                    whole[(elements, *place)] = inner
    return made


def _planes(
    network: Network, conditions: Conditions, factor: int, device: torch.device
) -> Callable[[Tensor], Planes]:
    """Return what yields elements, stabilised estimate and sigma of a part of a map."""
    known = Conditions(*(value.to(device) for value in conditions))
    if isinstance(network, FoldedNetwork) and device.type == "cpu":
        half = has_fast_bf16(device)
        one_by_one = Elementwise(network, known, factor, torch.bfloat16 if half else torch.float32)
        return lambda part: ((k, *found) for k, found in enumerate(one_by_one(part)))

    def all_at_once(part: Tensor) -> Planes:
        with _half(device):
            out = network(part.to(device)[None], known, factor)
        yield slice(None), out.stabilised[0], out.sigma[0]

    return all_at_once


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 is native: elsewhere it is slower than float32.

    It costs about 0.0003 of an element's range (tests/sr/test_set_network.py), far below sigma.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and native is not None and bool(native())


def _half(device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


def _scaled(cut: slice, origin: int, factor: int) -> slice:
    return slice((cut.start - origin) * factor, (cut.stop - origin) * factor)


def _repeatable(device: torch.device) -> AbstractContextManager[object]:
    if device.type == "cuda":
        return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    return nullcontext()
