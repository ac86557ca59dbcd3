"""Run the network over a map of any size, in tiles that leave no seams.

A tile is computed with a margin as wide as the network's reach, so its inner part is what the
whole map would have given. Imports torch: import this module lazily.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.sr.network import Conditions, SetNetwork
from xrf_sr_plans.sr.peers import Peer

log = logging.getLogger(__name__)
LARGEST_TILE = 128
SMALLEST_TILE = 16


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
    network: SetNetwork | Peer,
    counts: np.ndarray,
    conditions: Conditions,
    factor: int,
    device: torch.device,
    tile: int = LARGEST_TILE,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (stabilised estimate, its sigma), each (element, y, x) on the fine grid.

    When memory runs out the tiles are halved, down to `SMALLEST_TILE`.

    Raises
    ------
    AnalysisError
        Not even the smallest tile fits.
    """
    while True:
        try:
            return _run(network, counts, conditions, factor, device, tile)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if tile // 2 < SMALLEST_TILE:
                raise AnalysisError(
                    f"out of memory on {device} with tiles of {tile} coarse pixels"
                    f" and {counts.shape[0]} elements"
                ) from error
            tile //= 2
            log.warning("out of memory on %s: going on with tiles of %d pixels", device, tile)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _run(
    network: SetNetwork | Peer,
    counts: np.ndarray,
    conditions: Conditions,
    factor: int,
    device: torch.device,
    tile: int,
) -> tuple[np.ndarray, np.ndarray]:
    n_elements, height, width = counts.shape
    fine = (n_elements, height * factor, width * factor)
    made = np.empty(fine, np.float32), np.empty(fine, np.float32)
    # Bicubic reaches two pixels further than its base pixel.
    margin = max(network.reach, 3)
    known = Conditions(*(value.to(device) for value in conditions))
    for window in windows(height, width, tile, margin):
        part = torch.from_numpy(np.ascontiguousarray(counts[:, window.outer_y, window.outer_x]))
        with torch.inference_mode(), _repeatable(device), _half(device):
            out = network(part.to(device, torch.float32)[None], known, factor)
        inner = (
            slice(None),
            _scaled(window.y, window.outer_y.start, factor),
            _scaled(window.x, window.outer_x.start, factor),
        )
        place = (slice(None), _scaled(window.y, 0, factor), _scaled(window.x, 0, factor))
        for whole, one in zip(made, (out.stabilised, out.sigma), strict=True):
            whole[place] = one[0].float().cpu().numpy()[inner]
    return made


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 is native: elsewhere it is slower than float32.

    It costs about 0.0003 of an element's range (tests/sr/test_tiles.py), far below sigma.
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
