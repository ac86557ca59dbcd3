"""Turns gap-free counts into estimate, error bars and trust: the fields of `EnhancedMaps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, MissingExtraError, ModelError
from xrf_sr_plans.measurement import Measurement, reading_name
from xrf_sr_plans.physics.counting import stabilise, unstabilise
from xrf_sr_plans.physics.resample import repeat
from xrf_sr_plans.physics.smoothing import chosen_widths
from xrf_sr_plans.sr import consistency
from xrf_sr_plans.sr.bicubic import baseline_of, is_smoothed
from xrf_sr_plans.sr.doubtful_pixels import run_without_doubts
from xrf_sr_plans.sr.evidence import evidence
from xrf_sr_plans.sr.intervals import Calibration, Regime, intervals, restated
from xrf_sr_plans.sr.kriging import kriging_choice
from xrf_sr_plans.sr.prepare import Prepared, without_background
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel
from xrf_sr_plans.sr.threads import for_each
from xrf_sr_plans.sr.trust_mask import untrust

if TYPE_CHECKING:
    import torch

STRIP_PIXELS = 2**14
"""Fine pixels whose intervals are computed together, few enough for the processor's cache."""
LinearChoice = tuple[np.ndarray | None, np.ndarray | None]
"""Of each element the width of the smoothing and the covariance of kriging; None: not chosen."""
IN_PHOTONS = ("estimate", "sigma", "lower", "upper", "baseline")
"""The fields that are in photons per measured pixel."""
SUMMED = "rows summed to squares: the model reads no rows"
"""Note on rows that were enhanced as squares."""


def estimate(
    ready: Prepared,
    elements: Sequence[str],
    measurement: Measurement,
    calibration: Calibration,
    network: Any,
    device: str | None = None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return the fields of `EnhancedMaps`, gap-free, and the notes that a user should read.

    Every field is (element, Y, X) on the fine grid, in photons per measured pixel. The work is
    done in single precision and element by element, so that a map of 2048 x 2048 x 10 fits into
    8 GB. Rows are summed to squares for a model that reads no rows.

    Raises
    ------
    ModelError
        The model is not calibrated for such a measurement.
    """
    if calibration.as_read(measurement) != measurement:
        return _of_squares(ready, elements, measurement, calibration, network, device)
    shrink = _shrinkage(per_coarse_pixel(ready.counts, measurement), calibration.regime)
    counts = ready.counts / shrink[:, None, None] if (shrink > 1).any() else ready.counts
    scale = Scale.of(per_coarse_pixel(counts, measurement))
    wanted = network.smooths or is_smoothed(measurement)
    widths = chosen_widths(counts, measurement) if wanted else None
    covariances = kriging_choice(counts, measurement) if network.smooths else None

    def run(part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return run_network(part, scale, measurement, network, device, (widths, covariances))

    stabilised, sigma = run(counts)
    run_without_doubts(
        (stabilised, sigma),
        counts,
        ready.doubtful_pixels,
        measurement,
        max(network.reach, 3),
        run,
    )
    # The network's arrays become the first two fields: no second copy of a large map.
    fields = {"estimate": stabilised, "sigma": sigma}
    fields |= {name: np.empty_like(stabilised) for name in ("lower", "upper", "baseline")}
    fields["trusted"] = np.empty(stabilised.shape, dtype=bool)
    fields["doubtful"] = np.zeros(stabilised.shape, dtype=bool)

    distances = np.zeros(len(elements))

    def finish(index: int) -> None:
        only = slice(index, index + 1)
        views = {name: values[only] for name, values in fields.items()}
        own = None if widths is None else widths[only]
        single = counts[only].astype(np.float32)
        baseline = baseline_of(single, measurement, own)
        np.multiply(baseline, np.float32(shrink[index]), out=views["baseline"])
        of_one = (
            single,
            ready.measured[only],
            scale.only(index),
            measurement,
            calibration,
            float(shrink[index]),
        )
        distances[index] = _finish(views, *of_one)

    for_each(finish, len(elements), stabilised[0].size)
    notes = [*ready.notes]
    notes += [
        f"{element}: brighter than calibrated: taken for {1 / by:.2g} of its counts"
        for element, by in zip(elements, shrink, strict=True)
        if by > 1
    ]
    notes += [
        f"{element}: unlike all that the model was calibrated on ({distance:.1f} times as far as"
        " the farthest): its intervals are as much wider"
        for element, distance in zip(elements, distances, strict=True)
        if distance > 1
    ]
    notes += untrust(fields, elements, ready, scale, measurement, calibration.regime)
    without_background(fields, ready.background)
    return fields, notes


def _of_squares(
    ready: Prepared,
    elements: Sequence[str],
    measurement: Measurement,
    calibration: Calibration,
    network: Any,
    device: str | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return what `estimate` makes of rows whose pixels are summed, per measured pixel."""
    squares = ready.squares(measurement)
    fields, notes = estimate(squares, elements, measurement.squares, calibration, network, device)
    for name in IN_PHOTONS:
        fields[name] /= measurement.fast_pixels
    for index, counts in enumerate(ready.counts):
        fields["baseline"][index] = baseline_of(counts, measurement)
    without_background({"baseline": fields["baseline"]}, ready.background)
    return fields, [*notes, SUMMED]


def _shrinkage(counts: np.ndarray, regime: Regime) -> np.ndarray:
    """Return by how much to divide each element so that the model has seen such counts.

    `counts` are photons per coarse pixel. Where there are more, the counting noise is far below
    everything else, so taking it for larger than it is costs nothing.
    """
    top = np.quantile(counts.reshape(counts.shape[0], -1), 0.995, axis=1)
    return np.maximum(1.0, top / regime.largest_counts)


def _finish(
    fields: dict[str, np.ndarray],
    counts: np.ndarray,
    measured: np.ndarray,
    scale: Scale,
    measurement: Measurement,
    calibration: Calibration,
    shrink: float,
) -> float:
    """Fill the fields of one element but its baseline, each (1, Y, X), in place of the network's.

    All of it is in single precision, `counts` too.
    The network's are in stabilised photons per coarse pixel, and so are the intervals made.
    Returns how far the element is from what the model was calibrated on (`intervals.restated`).
    """
    pixels = measurement.fast_pixels
    projected = unstabilise(fields["estimate"])
    projected /= pixels
    projected = consistency.project(counts, projected, measurement)
    chi2 = consistency.local_chi2(counts, projected, measurement)
    agrees = chi2 <= calibration.regime.worst_chi2
    fields["trusted"][:] = repeat(agrees, measurement.refinement)
    np.multiply(projected, shrink, out=fields["estimate"])
    projected *= pixels
    law = calibration.law_of(measurement)
    known = np.empty((1, 0))
    if law is not None:
        known = evidence(counts, measurement, scale, measured)
    restate, distance = restated(law, known, fields["sigma"], scale)
    back = shrink / pixels
    rows = max(1, STRIP_PIXELS // projected.shape[2])
    for low in range(0, projected.shape[1], rows):
        strip = (slice(None), slice(low, low + rows))
        part, sigma = projected[strip], fields["sigma"][strip]
        ends = intervals(calibration, measurement, stabilise(part), sigma, scale, restate)
        np.multiply(ends.sigma, back, out=fields["sigma"][strip])
        np.multiply(np.minimum(ends.lower, part), back, out=fields["lower"][strip])
        np.multiply(np.maximum(ends.upper, part), back, out=fields["upper"][strip])
    return float(distance[0])


def _device(name: str | None) -> torch.device:
    import torch

    has_gpu = torch.cuda.is_available()
    try:
        where = torch.device(name or ("cuda" if has_gpu else "cpu"))
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is none that torch knows: {error}") from error
    if where.type == "cuda" and not has_gpu:
        raise ConfigError(f"device {name!r}: torch finds no GPU here; None or 'cpu' will do")
    return where


def run_network(
    counts: np.ndarray,
    scale: Scale,
    measurement: Measurement,
    network: Any,
    device: str | None,
    linear: LinearChoice = (None, None),
) -> tuple[np.ndarray, np.ndarray]:
    """Return the network's stabilised estimate and its sigma, float32 (element, Y, X).

    Both are in stabilised photons per coarse pixel.

    Parameters
    ----------
    counts
        Photons per measured pixel (element, y, x), without gaps.
    scale
        That of these counts per coarse pixel.
    measurement
        How they were measured.
    network
        One of `sr.registry.ARCHITECTURES`.
    device
        As in `enhance`.
    linear
        `physics.smoothing.chosen_widths` and `sr.kriging.kriging_choice` of the whole map, if
        `counts` are a part of it; None: they are chosen where the network wants to know them.

    Raises
    ------
    ConfigError
        A device that isn't there.
    MissingExtraError
        torch is not installed.
    ModelError
        The network doesn't read such a measurement.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("enhance", "sr") from error
    from xrf_sr_plans.sr.network import conditions_of
    from xrf_sr_plans.sr.tiled_inference import run_tiled

    if measurement.reading not in network.reads:
        known = " or ".join(reading_name(reading) for reading in network.reads)
        raise ModelError(
            f"{type(network).__name__} reads maps of factor {known}, not"
            f" {reading_name(measurement.reading)}"
        )
    widths, covariances = linear
    if network.smooths:
        widths = chosen_widths(counts, measurement) if widths is None else widths
        covariances = kriging_choice(counts, measurement) if covariances is None else covariances
    where = _device(device)
    told = [None if choice is None else choice[None] for choice in (widths, covariances)]
    conditions = conditions_of(scale.low[None], scale.span[None], [measurement], *told)
    return run_tiled(network.to(where), counts, conditions, measurement.factor, where)
