"""What the default model gains over classical methods: error, similarity, sharpness, coverage.

    python benchmarks/enhancement.py [--real FOLDER] [--per-family 4] [--ensemble] [--json OUT]
    python benchmarks/enhancement.py --rows-only [--real FOLDER]

Held-out phantoms (seeds that neither training nor calibration used), tissue block C3 and the
calibration part of Zagami (the last two took part in the calibration of the intervals, never in
training). Strengths of classical methods (sigma, iterations) are chosen by each from the coarse
counts alone. Gains are over bicubic of the squares, for rows too. A table of its own holds rows
against squares of the same time and dose, noise by noise; --rows-only measures nothing else.
--ensemble adds what the mean over the four mirrored maps gains. "Best classical" is the one that
does best on the very cell of the table, which favours it; it and the widths of edges are had from
two elements of the first sample of each kind.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from xrf_sr_plans.evaluation.model_assessment import (
    SMOOTHED,
    Assessed,
    Case,
    assess,
    gain_db,
    summary,
)
from xrf_sr_plans.measurement import COARSER_FACTORS, SAME_GRID, Sampling, reading_name
from xrf_sr_plans.sr.intervals import Calibration
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.phantoms import TEST_SEED
from xrf_sr_plans.training.samples import phantom_samples, real_samples

LEVELS = (20.0, 50.0, 200.0, 1000.0, float("inf"))
FREE = float("inf")
GAINS = (
    ("maps", "maps"),
    ("dB bicub", "db_over_bicubic"),
    ("worst", "db_over_bicubic_worst"),
    ("<-0.1", "maps_below_bicubic"),
    ("dB Gauss", "db_over_gaussian"),
    ("dB smooth", "db_over_smoothed"),
    ("ensemble", "ensemble_db"),
    ("dB best", "db_over_best"),
    ("best classical", "best_classical"),
    ("cover", "coverage_90"),
    ("width", "width_over_bicubic"),
    ("total", "total_bias_rms"),
    ("chi2", "chi2"),
    ("of truth", "chi2_of_truth"),
    ("split", "chi2_split"),
    ("trusted", "trusted"),
)
LOOKS = (
    ("SSIM bic", "ssim_bicubic"),
    ("ours", "ssim_ours"),
    ("fg bic", "ssim_fg_bicubic"),
    ("ours", "ssim_fg_ours"),
    ("edge true", "fwhm_truth"),
    ("bicubic", "fwhm_bicubic"),
    ("ours", "fwhm_ours"),
    ("maps", "fwhm_maps"),
    ("FRC bic", "frc_bicubic"),
    ("ours", "frc_ours"),
)
_WIDTHS = {"best classical": 26}
Cell = dict[str, float | str | None]


def plain_cases(calibration: Calibration) -> list[Case]:
    """Return squares and rows of all factors that the model reads, at all levels, without blur.

    On the same grid there is nothing to do without noise.
    """
    return [
        Case.of(factor, level, "rows" if pixels > 1 else "fly")
        for factor, pixels in calibration.readings
        for level in LEVELS
        if factor != SAME_GRID or level != FREE
    ]


def cases(calibration: Calibration) -> list[Case]:
    """Return the rows of the table: sampling and probe, with and without noise."""
    made = plain_cases(calibration)
    ways: tuple[tuple[Sampling, float], ...] = (("area", 0.0), ("area", 1.0), ("fly", 1.0))
    for sampling, probe in ways:
        made += [
            Case.of(factor, level, sampling, probe)
            for factor in COARSER_FACTORS
            for level in (200, FREE)
        ]
    if (SAME_GRID, 1) in calibration.readings:
        made += [Case.of(SAME_GRID, level, "fly", 1.0) for level in (200, FREE)]
    return made


def tables(rows: Sequence[Assessed], real: set[str]) -> dict[str, dict[str, Cell]]:
    """Return the cells by kind of sample and case; "phantoms" are all families together."""
    found = {}
    for kind in ("phantoms", *sorted({row.sample.kind for row in rows})):
        chosen = [
            row
            for row in rows
            if row.sample.kind == kind or (kind == "phantoms" and row.sample.kind not in real)
        ]
        cells = {}
        for case in dict.fromkeys(row.case for row in chosen):
            how = case.measurement
            name = f"x{how.factor} {how.sampling} probe {how.probe_steps:g} N {case.n99:g}"
            cells[name] = summary([row for row in chosen if row.case == case])
        levels = [row for row in chosen if row.case in _averaged(chosen)]
        for reading in sorted({row.case.measurement.reading for row in levels}):
            part = [row for row in levels if row.case.measurement.reading == reading]
            cells[f"x{reading_name(reading)} fly, mean of N 20-1000"] = summary(part)
        found[kind] = cells
    return found


def _averaged(rows: Sequence[Assessed]) -> set[Case]:
    """Return the cases that the mean is taken over: fly scans without blur, with noise."""
    every = {row.case for row in rows}
    plain = {case for case in every if case.n99 in LEVELS[:4]}
    return {
        case
        for case in plain
        if case.measurement.sampling in ("fly", "rows") and case.measurement.probe_steps == 0
    }


def rows_against_squares(rows: Sequence[Assessed], real: set[str]) -> str:
    """Return the mean gain over bicubic of the squares at equal time and dose, as text.

    Columns: squares with the best classical smoothing and with the model, then rows the same.
    """
    heads = ("squares, smoothed", "squares, model", "rows, smoothed", "rows, model")
    lines = ["\nrows against squares at equal time and dose, dB over bicubic of the squares"]
    lines.append(f"{'':30s}" + "".join(f"{head:>20s}" for head in heads))
    for kind in ("phantoms", *sorted({row.sample.kind for row in rows})):
        chosen = [
            row
            for row in rows
            if (row.sample.kind == kind or (kind == "phantoms" and row.sample.kind not in real))
            and row.case.measurement.probe_steps == 0
        ]
        for factor in COARSER_FACTORS:
            for level in LEVELS:
                cells = []
                for sampling in ("fly", "rows"):
                    case = Case.of(factor, level, sampling)
                    part = [row for row in chosen if row.case == case]
                    own = float(gain_db(part).mean()) if part else float("nan")
                    over = float(gain_db(part, SMOOTHED).mean()) if part else float("nan")
                    cells += [own - over, own]
                if any(value == value for value in cells):
                    name = f"{kind} x{factor} N {level:g}"
                    lines.append(f"{name:30s}" + "".join(f"{value:+20.2f}" for value in cells))
    return "\n".join(lines) + "\n"


def show(kind: str, cells: dict[str, Cell]) -> str:
    """Return the two tables of a kind as text."""
    lines = []
    for columns in (GAINS, LOOKS):
        lines.append(
            f"\n{kind:30s}" + "".join(f"{head:>{_WIDTHS.get(head, 10)}s}" for head, _ in columns)
        )
        for name, figures in cells.items():
            lines.append(f"{name:30s}" + "".join(_cell(figures[key]) for _, key in columns))
    return "\n".join(lines) + "\n"


def _cell(value: float | str | None) -> str:
    if value is None:
        return f"{'-':>10s}"
    if isinstance(value, str):
        return f" {value:>25s}"
    return f"{value:10d}" if isinstance(value, int) else f"{value:10.3f}"


def main() -> None:
    """Print two tables per kind of sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder with the real maps")
    parser.add_argument("--per-family", type=int, default=4)
    parser.add_argument("--ensemble", action="store_true", help="what mirrored maps would gain")
    parser.add_argument("--rows-only", action="store_true", help="only rows against squares")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    card, calibration, network = load_model(options.model)
    measured = list(real_samples(options.real)) if options.real else []
    samples = [*phantom_samples(options.per_family, TEST_SEED), *measured]
    real = {sample.kind for sample in measured}
    sys.stdout.write(f"{card.name} {card.sha256[:12]}\n")
    wanted = plain_cases(calibration) if options.rows_only else cases(calibration)
    rows = assess(
        samples,
        wanted,
        network,
        calibration,
        detailed=not options.rows_only,
        ensemble=options.ensemble,
    )
    sys.stdout.write(rows_against_squares(rows, real))
    if options.rows_only:
        return
    found = tables(rows, real)
    for kind, cells in found.items():
        sys.stdout.write(show(kind, cells))
    if options.json:
        rounded = {
            kind: {
                name: {k: round(v, 3) if isinstance(v, float) else v for k, v in cell.items()}
                for name, cell in cells.items()
            }
            for kind, cells in found.items()
        }
        options.json.write_text(json.dumps(rounded, indent=1, allow_nan=False))


if __name__ == "__main__":
    main()
