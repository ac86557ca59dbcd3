"""Which pixels of an estimate are likeliest to be wrong, or worse than the baseline.

An estimate can be further off than the baseline by more than a tolerance only where the two differ
by more than it. Which of them is right the counts don't say: sigma says how likely either is.
"""

from __future__ import annotations

import numpy as np

from xrf_sr_plans.physics.quantiles import smallest

TOLERANCE = 0.05
"""Error that matters, relative to the element's range."""
MOST_DOUBTED = 0.1
"""Largest share of an element's pixels that is marked. Where more is doubtful, sigma says it."""
WEIGHT_OF_CHANGE = 1.0
"""By how much more doubtful a pixel is where the estimate is far from the baseline."""


def doubt(estimate: np.ndarray, baseline: np.ndarray, sigma: np.ndarray, span: float) -> np.ndarray:
    """Return how doubtful each pixel of one element is; all arrays are (Y, X).

    It is sigma relative to the element's range `span` (in photons, like all the rest), and more
    where the baseline may be better.
    """
    doubts = np.asarray(sigma / span)
    changed = np.abs(estimate - baseline) > TOLERANCE * span
    np.multiply(doubts, 1 + WEIGHT_OF_CHANGE, out=doubts, where=changed)
    return doubts


def doubted(doubts: np.ndarray, limit: float) -> np.ndarray:
    """Return where the doubts of an element (Y, X) are above a limit: the worst `MOST_DOUBTED`."""
    last = doubts.size - int(MOST_DOUBTED * doubts.size) - 1
    return doubts > max(limit, smallest(doubts, last))
