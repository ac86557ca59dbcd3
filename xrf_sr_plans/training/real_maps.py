"""Real elemental maps as truth for training and validation: which part of which file.

The split is by sample: Zagami (`zagami_left.npz`, a meteorite; columns 0-349
train, 350-429 are kept for calibration and the demo) and LA-ICP-MS maps of three tissue blocks
(C1 and C2 train, C3 validates; sections of one block are one group).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from xrf_sr_plans.maps.files.npz_archive import read_arrays
from xrf_sr_plans.metrics.image import winsorise
from xrf_sr_plans.physics.resample import block_mean

ZAGAMI_TRAIN_COLUMNS = 350
LARGEST_IN_TRAINING = 2.0
CALIBRATION_FIRST_ROW = 280
"""Rows of Zagami's last columns from here on calibrate; those above hold the demo's sample."""


def to_unit(maps: np.ndarray) -> np.ndarray:
    """Cut one-pixel spikes of maps (element, y, x) and scale them to 1 at the 99.9 % quantile.

    NaN and negative values become 0. Spikes go by the rule of `metrics.image.winsorise`, the one
    that `xrf-sr evaluate` has.
    """
    maps = np.nan_to_num(np.asarray(maps, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)
    maps = winsorise(np.clip(maps, 0, None))
    return maps / np.maximum(np.quantile(maps, 0.999, axis=(1, 2), keepdims=True), 1e-12)


def clean(maps: np.ndarray) -> np.ndarray:
    """Prepare maps for training: `to_unit`, limited to 2.

    What is still twice as high as the quantile (clusters of a few hot pixels) would decide the
    loss of a crop alone. Where methods are compared there is no such limit.
    """
    return np.minimum(to_unit(maps), LARGEST_IN_TRAINING)


def read_npz(path: Path) -> tuple[np.ndarray, list[str]]:
    """Return maps (element, y, x) and element names of an npz file.

    Raises
    ------
    FileFormatError
        The file is damaged, or it holds no `maps` and `elements`.
    """
    arrays = read_arrays(path, ("maps", "elements"))
    return arrays["maps"], [str(name) for name in arrays["elements"]]


def _tissue(
    folder: Path, blocks: tuple[str, ...], prepare: Callable[[np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
    found = {}
    for block in blocks:
        for path in sorted(folder.glob(f"laicpms_{block}*.npz")):
            maps, elements = read_npz(path)
            # Zn64 and Zn66 are one element measured twice: no independent evidence.
            keep = [index for index, name in enumerate(elements) if name != "Zn66"]
            found[path.stem] = prepare(maps[keep])
    return found


def training_maps(folder: Path) -> list[np.ndarray]:
    """Return the training part of `folder`, also averaged 2 x 2; an empty list if it has none."""
    maps = list(_tissue(folder, ("C1", "C2"), clean).values())
    zagami = folder / "zagami_left.npz"
    if zagami.exists():
        # Zagami is as large as all the tissue together, and sharper: seen as often.
        whole = clean(read_npz(zagami)[0])[:, :, :ZAGAMI_TRAIN_COLUMNS]
        maps.extend([whole] * max(1, len(maps)))
    halves = [block_mean(m[:, : m.shape[1] // 2 * 2, : m.shape[2] // 2 * 2], 2) for m in maps]
    return [np.asarray(m, dtype=np.float32) for m in (*maps, *halves)]


def validation_maps(folder: Path) -> dict[str, np.ndarray]:
    """Return the tissue block that training never sees."""
    return _tissue(folder, ("C3",), to_unit)


def calibration_maps(folder: Path) -> dict[str, np.ndarray]:
    """Return the part of Zagami that neither training nor the demo sees."""
    path = folder / "zagami_left.npz"
    if not path.exists():
        return {}
    whole = to_unit(read_npz(path)[0])
    return {"zagami": whole[:, CALIBRATION_FIRST_ROW:, ZAGAMI_TRAIN_COLUMNS:]}
