"""`xrf-sr evaluate`: how good is the enhancement on a measured map of the user's own.

The map counts as the truth. It is degraded by `physics.forward` to a coarse map, every method
gets that coarse map, and what each makes of it is compared with the truth. All methods share
one phase, one rule for spikes, and what is known about the measurement.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from xrf_sr_plans.cluster.device_lock import device_of_worker
from xrf_sr_plans.errors import ConfigError, MissingExtraError, ModelError
from xrf_sr_plans.evaluation.degraded_map import DegradedMap, degraded
from xrf_sr_plans.evaluation.table import (
    ElementFigures,
    EvaluationTable,
    Figures,
    Summary,
    average,
    render,
    to_json,
)
from xrf_sr_plans.maps.readers import ReadOptions, read_map
from xrf_sr_plans.measurement import Measurement, Sampling
from xrf_sr_plans.metrics.bias import count_bias, reduced_chi2, worst_ratio_bias
from xrf_sr_plans.metrics.image import foreground, psnr_db, ssim
from xrf_sr_plans.metrics.resolution import (
    Edge,
    boundary_fwhm_um,
    find_edges,
    fourier_ring_correlation,
)
from xrf_sr_plans.physics.counting import stabilise
from xrf_sr_plans.physics.operators import measure_again
from xrf_sr_plans.physics.resample import fill_unmeasured, repeat
from xrf_sr_plans.sr.classical import METHODS, methods_for, reference_of, upscale

__all__ = ["EvaluationTable", "evaluate", "evaluate_file", "render", "to_json"]

OURS = "xrf-sr"
NETWORKS = {"SRCNN": "srcnn-x{factor}", "notes' network": "notes-x{factor}"}
"""Peers that need weights, and the model names under which they are looked for, for rows with
"-rows" behind."""
LONGEST_NOTE = 200


def evaluate_file(
    path: str | Path,
    *,
    factor: int,
    counts: float | None = None,
    probe_um: float | None = None,
    sampling: Sampling = "fly",
    seed: int = 0,
    methods: Sequence[str] | None = None,
    model: str | None = None,
    reader: str | None = None,
    options: ReadOptions | None = None,
) -> EvaluationTable:
    """Evaluate all methods on a measured map, in a file of any kind that is read.

    Parameters
    ----------
    factor
        2, 4, or 1 for the same grid.
    counts
        Photons per coarse pixel at the 99th percentile of each element's map; None: no noise.
    probe_um
        FWHM of a Gaussian probe with which the truth is blurred before it is sampled; methods
        that can use it know it. None: no blur beyond what the file has.
    sampling
        As in `physics.forward.coarsen`; of ``rows``, too, gains are over bicubic of the squares.
    methods
        Names to run, in this order: those of `sr.classical.METHODS`, `NETWORKS`, or
        ``xrf-sr``; None: all. Bicubic of the squares always runs.
    model
        For ``xrf-sr``: as in `enhance`.
    reader
        Name of the reader; None: the first one that matches the file.
    options
        What is known better than the file says: the unit of its positions, elements of spectra.

    Raises
    ------
    FileFormatError
        No maps in the file.
    ConfigError
        An unknown method, an impossible factor or count, or too small a map.
    """
    file = read_map(path, reader=reader, options=options)
    return evaluate(
        degraded(file, factor, counts, probe_um, sampling, seed),
        path=str(path),
        layout=file.meta["layout"],
        methods=methods,
        model=model,
    )


def evaluate(
    case: DegradedMap,
    *,
    path: str = "",
    layout: str = "",
    methods: Sequence[str] | None = None,
    model: str | None = None,
) -> EvaluationTable:
    """Run the methods on a case and compare; see `evaluate_file`."""
    wanted = _wanted(methods, case.measurement)
    own = [
        _OwnEdges(case, index, name not in case.left_out)
        for index, name in enumerate(case.elements)
    ]
    rows: list[ElementFigures] = []
    summaries: list[Summary] = []
    notes = list(case.notes)
    base: dict[str, float] = {}
    for method in wanted:
        begin = time.perf_counter()
        try:
            estimate, ends = _run(method, case, model, notes)
        except (MissingExtraError, ModelError) as error:
            notes.append(f"{method}: {str(error).splitlines()[0][:LONGEST_NOTE]}")
            continue
        seconds = time.perf_counter() - begin
        mine = [
            ElementFigures(name, method, _figures(case, index, estimate[index], ends, own[index]))
            for index, name in enumerate(case.elements)
        ]
        if method == reference_of(case.measurement):
            base = {row.element: row.figures.psnr_db for row in mine}
        rows += mine
        summaries.append(_summary(case, method, mine, base, estimate, seconds))
    order = {name: index for index, name in enumerate(case.elements)}
    return EvaluationTable(
        path=path,
        layout=layout,
        shape=(int(case.reference.shape[1]), int(case.reference.shape[2])),
        degradation=case.degradation,
        rows=tuple(sorted(rows, key=lambda row: order[row.element])),
        summaries=tuple(summaries),
        reference_fwhm_um={
            name: edges.width_um for name, edges in zip(case.elements, own, strict=True)
        },
        left_out=case.left_out,
        notes=tuple(notes),
    )


class _OwnEdges:
    """The edges of one element's reference, at which every method is measured."""

    def __init__(self, case: DegradedMap, index: int, counts: bool) -> None:
        self.pixel_um = case.degradation.pixel_um
        self.edges: list[Edge] = find_edges(case.reference[index]) if counts else []
        self.width_um = boundary_fwhm_um(case.reference[index], self.pixel_um, self.edges)

    def width_in(self, estimate: np.ndarray) -> float:
        """Return the width in an estimate, in um: not below the reference's own (no merit)."""
        if not np.isfinite(self.width_um):
            return float("nan")
        width = boundary_fwhm_um(estimate, self.pixel_um, self.edges)
        return float(np.maximum(width, self.width_um))


def _wanted(methods: Sequence[str] | None, measurement: Measurement) -> list[str]:
    sensible = methods_for(measurement)
    if methods is None:
        return [*sensible, *NETWORKS, OURS]
    allowed = [*METHODS, *NETWORKS, OURS]
    unknown = [name for name in methods if name not in allowed]
    if unknown:
        raise ConfigError(f"methods {unknown} are unknown; allowed: {allowed}")
    return list(dict.fromkeys([sensible[0], *methods]))


def _run(
    method: str, case: DegradedMap, model: str | None, notes: list[str]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """Return a method's estimate, and the ends of its 90 % interval where it has one."""
    if method in METHODS:
        return upscale(fill_unmeasured(case.counts), case.measurement, method), None
    with device_of_worker("bulk"):
        return _run_network(method, case, model, notes)


def _run_network(
    method: str, case: DegradedMap, model: str | None, notes: list[str]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    if method in NETWORKS:
        rows = "-rows" if case.measurement.fast_pixels > 1 else ""
        name = NETWORKS[method].format(factor=case.measurement.factor) + rows
        return _peer_network(fill_unmeasured(case.counts), name, case.measurement), None
    from xrf_sr_plans.sr.predict import enhance

    enhanced = enhance(
        case.counts,
        elements=case.elements,
        factor=case.measurement.factor,
        step_um=case.degradation.step_um,
        probe_fwhm_um=case.degradation.probe_um,
        sampling=case.measurement.sampling,
        model=model,
    )
    notes.append(f"{OURS}: {enhanced.model['name']}, sha256 {enhanced.model['sha256'][:12]}")
    notes.extend(f"{OURS}: {note}" for note in enhanced.dataset.attrs.get("notes", ()))
    return enhanced.estimate.values, (enhanced.lower.values, enhanced.upper.values)


def _peer_network(counts: np.ndarray, name: str, measurement: Measurement) -> np.ndarray:
    """Run a peer as it is: without the projection onto measured totals that ours ends with."""
    from xrf_sr_plans.physics.counting import unstabilise
    from xrf_sr_plans.sr.estimate import run_network
    from xrf_sr_plans.sr.registry import load_network, model_path, read_card
    from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel

    try:
        path = model_path(name)
    except ModelError:
        raise ModelError(f"no weights shipped ({name})") from None
    card = read_card(path)
    network = load_network(path, card)
    at_once = card.architecture.elements if card.architecture.kind == "notes" else len(counts)
    made = []
    for first in range(0, len(counts), at_once):
        part = counts[first : first + at_once]
        # The notes' network has a fixed number of elements: too few are repeated.
        filled = part[np.arange(at_once) % len(part)]
        scale = Scale.of(per_coarse_pixel(filled, measurement))
        found = run_network(filled, scale, measurement, network, None)[0]
        made.append(unstabilise(found[: len(part)]) / measurement.fast_pixels)
    return np.concatenate(made)


def _figures(
    case: DegradedMap,
    index: int,
    estimate: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray] | None,
    edges: _OwnEdges,
) -> Figures:
    reference, pixel = case.reference[index], case.degradation.pixel_um
    valid = np.isfinite(reference)
    inside = None
    if ends is not None:
        within = (reference >= ends[0][index]) & (reference <= ends[1][index])
        inside = float(within[valid].mean()) if valid.any() else None
    filled = fill_unmeasured(estimate)
    chi2 = None
    if case.measurement.noisy:
        chi2 = reduced_chi2(case.counts[index], measure_again(filled, case.measurement))
    rings = fourier_ring_correlation(filled, fill_unmeasured(reference), pixel)
    return Figures(
        psnr_db=psnr_db(estimate, reference),
        psnr_stabilised_db=psnr_db(stabilise(estimate), stabilise(reference)),
        ssim=ssim(estimate, reference),
        ssim_foreground=ssim(estimate, reference, foreground=foreground(reference)),
        count_bias=count_bias(_measured_part(estimate, case, index), case.counts[index]),
        truth_bias=count_bias(estimate, reference),
        chi2=chi2,
        edge_fwhm_um=edges.width_in(estimate),
        frc_um=rings.resolution_um(0.5),
        coverage_90=inside,
    )


def _measured_part(estimate: np.ndarray, case: DegradedMap, index: int) -> np.ndarray:
    """Blank an element's estimate where the coarse map has nothing."""
    missing = np.isnan(case.counts[index])
    return np.where(repeat(missing, case.measurement.refinement), np.nan, estimate)


def _summary(
    case: DegradedMap,
    method: str,
    rows: list[ElementFigures],
    base: dict[str, float],
    estimate: np.ndarray,
    seconds: float,
) -> Summary:
    counted = [row for row in rows if row.element not in case.left_out] or rows
    gains = {row.element: row.figures.psnr_db - base[row.element] for row in counted}
    worst = min(gains, key=lambda name: gains[name] if np.isfinite(gains[name]) else np.inf)
    chosen = [case.elements.index(row.element) for row in counted]
    finite = [gain for gain in gains.values() if np.isfinite(gain)]
    biases = [abs(row.figures.count_bias) for row in counted]
    return Summary(
        method=method,
        mean=average(row.figures for row in counted),
        gain_db=float(np.mean(finite)) if finite else float("nan"),
        worst_gain_db=float(gains[worst]),
        worst_element=worst,
        worst_count_bias=float(np.nanmax(biases)) if np.isfinite(biases).any() else float("nan"),
        worst_ratio_bias=worst_ratio_bias(
            [_measured_part(estimate[index], case, index) for index in chosen],
            case.counts[chosen],
        ),
        seconds=seconds,
    )
