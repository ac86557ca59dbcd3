"""Calibrated intervals: split-conformal factors on top of the network's own sigma.

`sr.conformal` estimates them.

The score of a pixel is its error in stabilised counts divided by the predicted sigma. On
calibration maps the 5 % and 95 % quantiles of the score are taken per group of pixels (factor,
roughness and dose of the element, brightness of the pixel), with the finite-sample correction
of conformal prediction (V. Vovk et al., 2005; A. Angelopoulos, S. Bates, arXiv 2107.07511;
by group: Mondrian). Scaling by sigma follows Y. Romano et al., arXiv 1905.03222, and
A. Angelopoulos et al., arXiv 2202.05265. Pixels of one map are not exchangeable, so the
guarantee is that of the theory only for maps like those calibrated on, on average over maps.

Kinds of samples that nobody has calibrated on are the rule at a beamline. So before any quantile
is taken, sigma is restated by what the counts of the element themselves say (`sr.evidence`), all
kinds weigh alike, and the groups are left to brightness alone: what differs from kind to kind is
in the evidence, which has few coefficients, and not in many groups with few kinds in each.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from xrf_sr_plans.errors import ModelError
from xrf_sr_plans.measurement import READINGS, Measurement, Reading, reading_name
from xrf_sr_plans.physics.counting import NORMAL_90, OFFSET, unstabilise
from xrf_sr_plans.sr.evidence import SigmaLaw, stated_level
from xrf_sr_plans.sr.scale import Scale

DOSE_EDGES = (5.5, 8.0, 12.0, 20.0, 40.0, 100.0)
"""Edges between groups of elements, by their range in stabilised counts (its square is about
four times the brightest counts)."""
BRIGHTNESS_EDGES = (0.08, 0.2, 0.45, 0.75)
"""Edges between groups of pixels, by brightness relative to the element's range."""
ROUGHNESS_EDGES = (0.005, 0.03, 0.1)
"""Edges between groups of elements, by `Scale.roughness`: what is as small as a coarse pixel
can't be seen in the coarse map, and is missed more often."""
BLUR_EDGES = (-0.75, -0.3, 0.3, 0.75)
"""Edges between groups of maps by `Measurement.sharpening_steps`: the sharper the estimate is
made, the more it errs. Each group has one stretch of all intervals."""
FILL_EDGES = (0.14, 0.2, 0.27)
"""Edges between elements by `Scale.fill`: few structures of one brightness are predicted better
than textures. One stretch for each."""
OLD_BLUR_EDGES = (0.3, 0.75)
"""Edges between groups of blur in calibrations that don't name their own."""
LARGEST_SIGMA = 0.5
"""Largest sigma in units of the element's range.

The network may say any number, but where it says more than this it knows nothing.
"""
NOTHING = 0.02
"""Share of an element's brightest counts below which an interval reaches down to nothing at all.

Backgrounds that were subtracted or cut off are exactly zero, which errors of a few hundredths
would exclude.
"""
MOST_ELEMENTS = 30
"""Intervals were found to hold with so many elements (`benchmarks/hallucination.py`)."""
_LEAST_SIGMA = 1e-30
N_GROUPS = (len(ROUGHNESS_EDGES) + 1, len(DOSE_EDGES) + 1, len(BRIGHTNESS_EDGES) + 1)


def table_key(measurement: Measurement) -> str:
    """Return the key of a measurement's tables: its factor, and whether it is rows.

    Keys are "1", "2" and "4" for squares, "2 rows" and "4 rows". Rows on the same grid are squares.
    """
    return reading_name(measurement.reading)


class Regime(BaseModel):
    """What the calibration has seen. Nothing outside it is trusted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    largest_counts: float = 2e5
    """Brightest counts. Brighter elements are scaled down to it for the network."""
    largest_probe: float = 1.25
    """Probe FWHM in coarse steps."""
    smallest_range: float = 5.0
    """Range of an element in stabilised counts; below it there is only noise."""
    worst_chi2: float = 2.5
    """Local reduced chi-square of the re-degraded estimate against the measured counts."""
    blobs: dict[str, tuple[float, ...]] | None = None
    """Smallest significance of blobs by `trust_boundary.blur_key` and size; None: not measured."""
    regularity: float | None = None
    """Share of the local structure that few frequencies may hold (`sr.aliasing`); None: any."""
    largest_doubt: float | None = None
    """Largest doubt (`sr.error_odds`) of a pixel, among a tenth of its element; None: any."""
    most_elements: int | None = None
    """Largest number of elements in one map. None means that any number will do."""
    largest_roughness: float | None = None
    """`Scale.roughness` of the roughest element map that was seen. None means no limit."""


class Calibration(BaseModel):
    """Conformal factors by `table_key`, dose and brightness group, stored beside the weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=1, ge=1, le=2)
    """2: sigma is restated by `law`."""
    model_sha256: str
    level: float = 0.9
    lower: dict[str, list[list[list[float]]]]
    """How many sigmas the interval reaches below the estimate.

    The key is that of `table_key`. The lists are indexed by the groups of roughness, dose and
    brightness, in this order.
    """
    upper: dict[str, list[list[list[float]]]]
    blur: dict[str, list[float]] = Field(default_factory=dict)
    """Stretch of sigma for each group of `blur_edges`, by key. It is 1 where there is none."""
    blur_edges: tuple[float, ...] | None = None
    """Edges between the groups of `blur`. None stands for `OLD_BLUR_EDGES`."""
    fill: dict[str, tuple[float, float, float, float]] | None = None
    """Stretch of sigma for each group of `FILL_EDGES`, by key. None stands for 1."""
    law: dict[str, SigmaLaw] | None = None
    """How the evidence of an element restates its sigma, by key. None: sigma is what it is."""
    left_out: dict[str, dict[str, float]] | None = None
    """Coverage of the pixels of each kind by a law fitted to the others, by key; for people."""
    regime: Regime = Regime()
    source: str = ""
    """What it was estimated on, in words."""

    @property
    def id(self) -> str:
        """Content key."""
        content = json.dumps(self.model_dump(mode="json", exclude_none=True), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def tables(self, measurement: Measurement) -> tuple[np.ndarray, np.ndarray]:
        """Return the (lower, upper) tables of a measurement.

        Raises
        ------
        ModelError
            It was not calibrated for such a measurement, or a table is damaged.
        """
        key = table_key(measurement)
        tables = tuple(np.array(side.get(key, [])) for side in (self.lower, self.upper))
        if any(t.shape != N_GROUPS or not np.isfinite(t).all() for t in tables):
            raise ModelError(
                f"calibration {self.id}: no tables {N_GROUPS} for factor {key};"
                f" it has {sorted(self.lower)}"
            )
        return tables[0], tables[1]

    def law_of(self, measurement: Measurement) -> SigmaLaw | None:
        """Return the law for a measurement; None where sigma is what the network states."""
        return (self.law or {}).get(table_key(measurement))

    @property
    def readings(self) -> tuple[Reading, ...]:
        """What the model was calibrated for."""
        return tuple(one for one in READINGS if reading_name(one) in self.lower)

    def as_read(self, measurement: Measurement) -> Measurement:
        """Return the measurement as the model takes it: rows as squares where it knows no rows.

        Raises
        ------
        ModelError
            The model is calibrated for neither, or a table is damaged.
        """
        known = table_key(measurement) in self.lower
        read = measurement if known else measurement.squares
        self.tables(read)
        return read

    def stretch(self, measurement: Measurement, fill: np.ndarray | float = 0.0) -> np.ndarray:
        """Return by how much sigma grows, shaped as `fill`.

        It grows with what the estimate does to a probe's blur, and with how an element fills its
        range (`Scale.fill`).
        """
        key = table_key(measurement)
        blurs = self.blur.get(key, [])
        edges = self.blur_edges or OLD_BLUR_EDGES
        index = int(np.digitize(measurement.sharpening_steps, edges))
        blur = blurs[index] if index < len(blurs) else 1.0
        fills = (self.fill or {}).get(key, (1.0, 1.0, 1.0, 1.0))
        return blur * np.array(fills)[np.digitize(fill, FILL_EDGES)]


@dataclass(frozen=True)
class Intervals:
    """Ends of the 90 % interval and one standard deviation, in photons per coarse pixel."""

    lower: np.ndarray
    upper: np.ndarray
    sigma: np.ndarray


@dataclass(frozen=True)
class Restated:
    """Sigmas as the evidence has them: `level` and `stretch` are (element,)."""

    level: np.ndarray
    """Logarithm of the root mean square of the stated sigmas (`evidence.stated_level`)."""
    stretch: np.ndarray
    contrast: float

    def __call__(self, sigma: np.ndarray) -> np.ndarray:
        """Return the sigmas (element, Y, X) restated."""
        # level * (sigma / level) ** contrast * stretch, in as few passes as there can be.
        constant = (1 - self.contrast) * self.level + np.log(self.stretch)
        made = np.log(np.maximum(sigma, _LEAST_SIGMA))
        made *= self.contrast
        made += constant[:, None, None].astype(made.dtype)
        return np.exp(made, out=made)


def restated(
    law: SigmaLaw | None, known: np.ndarray, sigma: np.ndarray, scale: Scale
) -> tuple[Restated | None, np.ndarray]:
    """Return how the sigmas of whole maps are restated, and how far these are from known ones.

    Parameters
    ----------
    law
        None: they are not.
    known
        `evidence.evidence` of the maps.
    sigma
        The network's, (element, Y, X) of the whole map.
    scale
        `Scale` of the maps.

    Returns
    -------
    tuple[Restated | None, np.ndarray]
        The distance (element,) is in units of the farthest map that was calibrated on.
    """
    if law is None:
        return None, np.zeros(len(sigma))
    level = stated_level(bounded(sigma, scale))
    found = np.concatenate([known, level[:, None]], axis=-1)
    return Restated(level, law.stretch(found), law.contrast), law.distance(found) / law.farthest


def groups(stabilised: np.ndarray, scale: Scale) -> np.ndarray:
    """Return the (flat) group of each pixel of stabilised maps (element, y, x)."""
    element = np.digitize(scale.roughness, ROUGHNESS_EDGES) * N_GROUPS[1]
    element = (element + np.digitize(scale.span, DOSE_EDGES)) * N_GROUPS[2]
    low, span = (_beside(stabilised, values) for values in (scale.low, scale.span))
    relative = (stabilised - low) / span
    brightness = np.zeros(relative.shape, dtype=np.int8)
    for edge in BRIGHTNESS_EDGES:
        brightness += relative >= edge
    return element[:, None, None] + brightness


def _beside(maps: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values (element,) that broadcast against maps (element, y, x), of their precision."""
    return values[:, None, None].astype(maps.dtype)


def bounded(sigma: np.ndarray, scale: Scale) -> np.ndarray:
    """Cut the network's sigma (element, y, x) at `LARGEST_SIGMA` of each element's range."""
    return np.minimum(sigma, _beside(sigma, LARGEST_SIGMA * scale.span))


def intervals(
    calibration: Calibration,
    measurement: Measurement,
    stabilised: np.ndarray,
    sigma: np.ndarray,
    scale: Scale,
    restate: Restated | None = None,
) -> Intervals:
    """Return calibrated intervals in counts, from the stabilised estimate and the network's sigma.

    All arrays are (element, Y, X) on the fine grid, of photons per coarse pixel, and computed in
    the precision of the estimate. `restate` is that of the whole maps.
    """
    stretch = calibration.stretch(measurement, scale.fill)
    sigma = bounded(sigma, scale)
    sigma = (sigma if restate is None else restate(sigma)) * _beside(sigma, stretch)
    group = groups(stabilised, scale)
    down, up = (
        np.take(table.ravel().astype(sigma.dtype), group)
        for table in calibration.tables(measurement)
    )
    down *= sigma
    up *= sigma
    spread = down + up
    spread *= 0.5 / NORMAL_90
    lower = unstabilise(stabilised - down)
    if restate is not None:
        # Whether a dark area holds a little or nothing no sigma can tell.
        lower[lower < _beside(lower, NOTHING * unstabilise(scale.low + scale.span))] = 0.0
    # Second order of z**2 / 4: matters where z is comparable with its sigma.
    variance = np.square(spread)
    variance *= unstabilise(stabilised) + OFFSET + variance / 8
    return Intervals(lower, unstabilise(stabilised + up), np.sqrt(variance, out=variance))


def to_json(calibration: Calibration) -> dict[str, Any]:
    """Return JSON types, with the content key for human readers."""
    return {"id": calibration.id, **calibration.model_dump(mode="json")}
