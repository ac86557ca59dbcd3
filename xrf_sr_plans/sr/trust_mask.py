"""What is not to be trusted, and why: elements out of the calibrated regime, doubtful pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.physics.counting import NORMAL_90
from xrf_sr_plans.physics.quantiles import quantiles
from xrf_sr_plans.physics.resample import repeat
from xrf_sr_plans.sr.aliasing import regular
from xrf_sr_plans.sr.bicubic import bicubic_sigma, is_smoothed
from xrf_sr_plans.sr.error_odds import doubt, doubted
from xrf_sr_plans.sr.intervals import Regime
from xrf_sr_plans.sr.prepare import Prepared
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel
from xrf_sr_plans.sr.threads import for_each
from xrf_sr_plans.sr.trust_boundary import blob_limits, doubtful


def untrust(
    fields: dict[str, np.ndarray],
    elements: Sequence[str],
    ready: Prepared,
    scale: Scale,
    measurement: Measurement,
    regime: Regime,
) -> list[str]:
    """Take the trust from what is out of the regime, in place; return the reasons.

    Where `fields["trusted"]` is False already, the estimate contradicts the measured counts.
    """

    def notes(index: int) -> list[str]:
        element = elements[index]
        if measurement.probe_steps > regime.largest_probe:
            _fall_back(fields, index, ready.counts[index], measurement)
            way = "interpolated and smoothed" if is_smoothed(measurement) else "bicubic"
            return [
                f"{element}: {way}, untrusted: the probe is {measurement.probe_steps:.2f} steps"
                f" wide; calibrated up to {regime.largest_probe}"
            ]
        reason = _out_of_regime(index, len(elements), scale, regime)
        if reason:
            fields["trusted"][index] = False
            return [f"{element}: untrusted: {reason}"]
        return list(_pixels(fields, index, element, ready, measurement, regime))

    found = for_each(notes, len(elements), fields["trusted"][0].size)
    return [note for some in found for note in some]


def _fall_back(
    fields: dict[str, np.ndarray], index: int, counts: np.ndarray, measurement: Measurement
) -> None:
    """Replace an element's estimate by its baseline, in place."""
    for name in ("estimate", "lower", "upper"):
        fields[name][index] = fields["baseline"][index]
    sigma = bicubic_sigma(counts, fields["baseline"][index], measurement.refinement)
    fields["sigma"][index] = sigma
    fields["lower"][index] -= NORMAL_90 * sigma
    fields["upper"][index] += NORMAL_90 * sigma
    fields["lower"][index] = np.clip(fields["lower"][index], 0, None)
    fields["trusted"][index] = False


def _out_of_regime(index: int, n_elements: int, scale: Scale, regime: Regime) -> str:
    """Return why nothing of an element can be trusted, or "" where something can."""
    most, roughest = regime.most_elements, regime.largest_roughness
    if scale.span[index] < regime.smallest_range:
        return "nothing above the counting noise"
    if most is not None and n_elements > most:
        return f"{n_elements} elements at once; calibrated up to {most}: enhance fewer at a time"
    if roughest is not None and scale.roughness[index] > roughest:
        return (
            f"neighbouring pixels have little in common (roughness {scale.roughness[index]:.2f};"
            f" calibrated up to {roughest:.2f})"
        )
    return ""


def _pixels(
    fields: dict[str, np.ndarray],
    index: int,
    element: str,
    ready: Prepared,
    measurement: Measurement,
    regime: Regime,
) -> Iterator[str]:
    """Untrust pixels of one element, in place; yield a note for each reason."""
    trusted = fields["trusted"][index]
    marks = [("the estimate contradicts the measured counts", ~trusted)]
    limits = blob_limits(regime.blobs, measurement)
    if limits is not None and trusted.any():
        # What stands out of the noise is judged in photons per coarse pixel.
        in_coarse = fields["estimate"][index : index + 1]
        if measurement.fast_pixels > 1:
            in_coarse = in_coarse * measurement.fast_pixels
        faint = doubtful(in_coarse, measurement.factor, limits)[0]
        marks.append(("features too faint for their size", faint))
    if regime.regularity is not None and trusted.any():
        coarse = per_coarse_pixel(ready.counts[index : index + 1], measurement)
        found = regular(coarse, regime.regularity)[0]
        found = repeat(found, (measurement.factor, measurement.factor))
        marks.append(("regular, may be the alias of structure finer than two steps", found))
    if regime.largest_doubt is not None:
        estimate, baseline, sigma = (
            fields[key][index] for key in ("estimate", "baseline", "sigma")
        )
        coarse = per_coarse_pixel(ready.counts[index], measurement) / measurement.fast_pixels
        span = max(float(np.ptp(quantiles(coarse, (0.01, 0.995)))), 1e-9)
        unsure = doubted(doubt(estimate, baseline, sigma, span), regime.largest_doubt)
        otherwise = marks[0][1].copy()
        for _, mark in marks[1:]:
            otherwise |= mark
        np.greater(unsure, otherwise, out=fields["doubtful"][index])
        marks.append(("likeliest to be far off, or worse than the baseline", unsure))
    for reason, mark in marks:
        number = int(np.count_nonzero(mark))
        if number:
            yield f"{element}: {100 * number / mark.size:.1f} % untrusted: {reason}"
            # Trusted, and not marked.
            np.greater(trusted, mark, out=trusted)
