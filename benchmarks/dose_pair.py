"""One real measurement against several others of the same spot: gain with noise nobody simulated.

    python benchmarks/dose_pair.py --real FOLDER

There is no pair of a low-dose and a high-dose map among our data; what comes closest is the energy
stack of `hxn_midas_xanes_stack.npz`: one spot, measured at 57 energies. A single frame below the
edge (its signal doesn't depend on the energy there) is the low dose, the mean of the others,
scaled to it, the high dose. The frame is summed over factor x factor pixels (area sampling, real
noise) and enhanced; the reference never saw its noise. Above the edge the same, at forty times the
signal, and thinned: the same frame with only so many of its photons, against the others in full.
Caveats: the frames are normalised and aligned upstream, so that photons are inferred from
the noise; the sample is smooth; the frames drift by up to half a pixel. The reference's own noise
is subtracted from the mean square errors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.sr.classical import METHODS, upscale
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.training.real_maps import read_npz

FRAMES = {"below the edge": range(4, 11), "above the edge": range(40, 50)}
LEVELS = (
    ("below the edge", None),
    ("above the edge", None),
    ("above the edge", 200.0),
    ("above the edge", 50.0),
    ("above the edge", 20.0),
)
METHODS_SHOWN = tuple(name for name in METHODS if name != "nearest")


def difference(plane: np.ndarray) -> np.ndarray:
    """Return what a smooth image has nothing in: the second mixed difference, noise variance kept.

    (y - 1, x - 1).
    """
    return (plane[:-1, :-1] - plane[1:, :-1] - plane[:-1, 1:] + plane[1:, 1:]) / 2


def scaled_mean(frames: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Return the mean of frames, scaled to `like` by least squares."""
    mean = frames.mean(axis=0)
    return mean * float((mean * like).sum() / np.square(mean).sum())


def per_photon(frames: np.ndarray) -> float:
    """Return the value that one photon has: variance over mean where the signal is strong."""
    noise, signal = 0.0, 0.0
    for index, frame in enumerate(frames):
        others = scaled_mean(np.delete(frames, index, axis=0), frame)
        strong = others[:-1, :-1] > np.quantile(others, 0.6)
        # The mean of the others has noise as well.
        left = np.square(difference(frame - others)) / (1 + 1 / (len(frames) - 1))
        noise, signal = noise + left[strong].sum(), signal + others[:-1, :-1][strong].sum()
    return noise / signal


def errors(
    frames: np.ndarray, factor: int, dose: float | None
) -> Iterator[tuple[float, dict[str, float]]]:
    """Yield for each frame its N99 and the mean square errors by method, in photons.

    `dose`: photons at the 99th percentile that are left of the frame's; None: all.
    """
    rng = np.random.default_rng(5)
    height, width = (size // factor * factor for size in frames.shape[1:])
    unit = per_photon(frames)
    photons = frames[:, :height, :width] / unit
    for index, frame in enumerate(photons):
        reference = scaled_mean(np.delete(photons, index, axis=0), frame) * factor**2
        counts = np.clip(block_mean(frame[None], factor), 0, None) * factor**2
        own_noise = reference.mean() * factor**2 / (len(photons) - 1)
        if dose is not None:
            share = dose / float(np.percentile(counts, 99))
            counts = rng.binomial(np.rint(counts).astype(int), share).astype(float)
            reference, own_noise = reference * share, own_noise * share**2
        measurement = Measurement(factor, "area")
        made = {name: upscale(counts, measurement, name)[0] for name in METHODS_SHOWN}
        ours = enhance(counts, elements=["one"], factor=factor, step_um=1.0, sampling="area")
        made["xrf-sr"] = ours.estimate.values[0]
        found = {name: np.square(m - reference).mean() - own_noise for name, m in made.items()}
        yield float(np.percentile(counts, 99)), found


def main() -> None:
    """Print the mean gain over bicubic and the worst frame's, by method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="folder with the real maps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stack, _ = read_npz(options.real / "hxn_midas_xanes_stack.npz")
    wanted = [(name, factor, dose) for name, dose in LEVELS for factor in COARSER_FACTORS]
    for name, factor, dose in wanted:
        rows = list(errors(np.asarray(stack[list(FRAMES[name])], dtype=float), factor, dose))
        level = np.mean([n99 for n99, _ in rows])
        sys.stdout.write(f"\n{factor}x, {name}: {len(rows)} frames, N99 {level:.0f}\n")
        for method in (*METHODS_SHOWN, "xrf-sr"):
            gains = [10 * np.log10(m["bicubic"] / max(m[method], 1e-9)) for _, m in rows]
            sys.stdout.write(f"{method:28s}{np.mean(gains):+7.2f}{np.min(gains):+7.2f} dB\n")


if __name__ == "__main__":
    main()
