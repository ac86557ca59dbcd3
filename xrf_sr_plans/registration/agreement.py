"""How well two maps of a pair agree once they lie on each other, noise of counting left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIGNIFICANT = 6.0
"""Standard deviations by which an element varies more than counting noise would, from which on it
has structure that can agree or disagree."""


@dataclass(frozen=True, eq=False)
class Agreement:
    """How a coarse map agrees with what the fine one predicts, element by element.

    Parameters
    ----------
    structured
        Whether the coarse map of an element shows more than counting noise (element,).
    unexplained
        Share of the variance of that structure that the prediction leaves over (element,): 0 where
        both agree within their noise, about 1 where they have nothing in common.
    correlation
        Correlation of counts and prediction (element,).
    """

    structured: np.ndarray
    unexplained: np.ndarray
    correlation: np.ndarray

    @classmethod
    def of(cls, counts: np.ndarray, expected: np.ndarray, used: np.ndarray) -> Agreement:
        """Compare counts with what was expected, both (element, y, x), where `used`."""
        weight = used / np.maximum(used.sum((1, 2), keepdims=True), 1)
        counts, expected = (np.where(used, maps, 0.0) for maps in (counts, expected))
        mean = (weight * counts).sum((1, 2), keepdims=True)
        off, told = counts - mean, expected - (weight * expected).sum((1, 2), keepdims=True)
        noise = mean[:, 0, 0]
        variance = (weight * off**2).sum((1, 2))
        left = (weight * (counts - expected) ** 2).sum((1, 2))
        # The variance of a square of Poisson counts is 2 mean^2 + mean; averaged over pixels.
        level = np.clip(expected, 0, None)
        error = np.sqrt((weight**2 * (2 * level**2 + level)).sum((1, 2)))
        structure = variance - noise
        both = variance * (weight * told**2).sum((1, 2))
        return cls(
            structured=structure > SIGNIFICANT * np.maximum(error, 1e-9),
            unexplained=(left - noise) / np.maximum(structure, 1e-9),
            correlation=(weight * off * told).sum((1, 2)) / np.sqrt(np.maximum(both, 1e-18)),
        )


def likeness(coarse: np.ndarray, fine: np.ndarray) -> float:
    """Return the highest correlation of two stacks (element, y, x) over all shifts.

    All elements count together, each in units of its own spread. It is 1 for equal maps.
    """
    spectra, size = [], [2 * num for num in coarse.shape[1:]]
    for maps in (coarse, fine):
        off = maps - maps.mean(axis=(1, 2), keepdims=True)
        spread = np.sqrt(np.square(off).sum(axis=(1, 2), keepdims=True))
        spectra.append(np.fft.rfft2(off / np.maximum(spread, 1e-9), size))
    likely = np.fft.irfft2((spectra[0] * np.conj(spectra[1])).sum(axis=0), size)
    return float(likely.max()) / len(coarse)
