"""What the model invents, loses and leaks on samples of known structure; its trust boundary.

    python benchmarks/hallucination.py [--quick] [--model NAME] [--json OUT] [--picture OUT]
                                       [--write]

false       of the predicted features, those that aren't there
believed    the same on pixels called trusted (limit inside the boundary: 1 % at 2x, 3 % at 4x)
lost        of the true features, those that aren't predicted
leaked      predicted where only the other element has a feature, of such places
flagged     of the false ones, those on untrusted pixels
doubted     of the true ones that were predicted, those on untrusted pixels (the price)
misplaced   of the false ones on trusted pixels, those beside a true one that was lost: put in the
            wrong place, not invented

Each with Wilson's 95 % interval. A feature (dot or line) counts as predicted from half its
contrast on. Swept over size, contrast, counts, factor and the probe's blur; bicubic on the same
counts beside it, and in some cells bicubic + Gaussian and SRCNN. Then: samples that the forward
model can't tell apart (coverage of both by one interval), gratings and a Siemens star, patterns
finer than two steps, many elements, a boundary fitted without one standard and tested on it, and
what the boundary costs on phantoms.

--write, after every training: NAME.trust.json beside the weights, which the model cards and the
page on trust show, and (for the default model) docs/_static/trust-boundary.png. One thread; about
seven minutes on one free core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.evaluation.blind_spots import aliases, cost, gratings, hidden, many_elements, star
from xrf_sr_plans.evaluation.feature_sweep import (
    DOTS,
    QUICK,
    Cell,
    CellResult,
    cells,
    pooled,
    predictor,
    rate_json,
    sweep,
)
from xrf_sr_plans.evaluation.fit_boundary import (
    Hallucination,
    fit_boundary,
    hallucinate,
    usual_cells,
    within,
)
from xrf_sr_plans.measurement import COARSER_FACTORS, reading_name
from xrf_sr_plans.metrics.standards import BACKGROUND
from xrf_sr_plans.sr.registry import load_model, model_path
from xrf_sr_plans.sr.trust_boundary import NEVER, TrustBoundary, write_boundary

PICTURE = Path(__file__).parents[1] / "docs" / "_static" / "trust-boundary.png"
TESTED = ("believed", "flagged", "misplaced")
TITLES = {
    "summary": "known samples, % (95 % interval)",
    "compared": "all methods, 20 and 200 photons, 1 to 3 steps, no blur, % (95 % interval)",
    "hidden": "samples the forward model can't tell apart",
    "gratings": "gratings: share seen, and anything else seen",
    "star": "Siemens star: share of the spokes' contrast by local period",
    "aliases": "maps called regular, share",
    "elements": "coverage of 90 % intervals and gain over bicubic by number of elements",
    "left_out": "boundary fitted without a standard",
    "cost": "trusted share of phantoms",
}


def percent(rate: dict[str, Any]) -> str:
    """Format a rate with its interval."""
    if not rate["of"]:
        return "-"
    return f"{100 * rate['rate']:.2f} ({100 * rate['low']:.2f}-{100 * rate['high']:.2f})"


def steps(size: float) -> str:
    """Format a diameter."""
    return "-" if size >= NEVER else f"{size:g}"


def print_boundary(boundary: TrustBoundary) -> None:
    """Print smallest sizes and thresholds."""
    for what, table in (
        ("diameter of dots", boundary.smallest_steps),
        ("width of lines", boundary.smallest_line_steps),
    ):
        print(f"\nsmallest {what} believed / seen (at most 10 % lost), in coarse steps")
        print("columns: photons per coarse pixel at intensity 1 (background 0.2); rows: contrast")
        names = ("factor", "fast_pixels", "probe")
        for key in sorted({tuple(line[name] for name in names) for line in table}):
            here = [line for line in table if tuple(line[name] for name in names) == key]
            reading, probe = reading_name((int(key[0]), int(key[1]))), key[2]
            columns = sorted({line["counts"] for line in here})
            print(
                f"{reading} probe {probe:<7g}"[:14].ljust(14)
                + "".join(f"{n:>14g}" for n in columns)
            )
            for contrast in sorted({line["contrast"] for line in here}):
                row = {line["counts"]: line for line in here if line["contrast"] == contrast}
                text = [
                    f"{steps(row[n]['believed_steps'])} / {steps(row[n]['seen_steps'])}"
                    for n in columns
                ]
                print(f"{contrast:<14g}" + "".join(f"{value:>14s}" for value in text))
    print(f"\nsmallest significance of a blob by size {boundary.sizes_steps} steps:")
    for key, levels in boundary.significance.items():
        print(f"{key:10s}" + "  ".join("never" if v >= NEVER else f"{v:.2f}" for v in levels))
    print(f"largest share of the local structure at few frequencies: {boundary.regularity}")


def left_out(model: str | None, rows: Sequence[CellResult], wanted: Sequence[Cell]) -> list[Any]:
    """Fit the boundary without one standard; return how it does on that one."""
    predict, tested = predictor(model), []
    for standard in (*DOTS, "lines"):
        inner = [row for row in rows if row.cell.standard != standard]
        sharp = [cell for cell in wanted if cell.measurement.probe_steps == 0]
        outer = [cell for cell in sharp if cell.standard == standard]
        fitted = fit_boundary(inner, "0" * 64, "")
        tested += sweep(within(predict, fitted), outer, repeats=4, seed=3)
    lines = []
    kinds = ({"standard": name} for name in (*DOTS, "lines"))
    readings = sorted({cell.measurement.reading for cell in wanted})
    for where, (factor, pixels) in itertools.product((*kinds, {}), readings):
        rates = pooled(tested, "model", factor=factor, fast_pixels=pixels, **where)
        chosen = {name: rate_json(getattr(rates, name)) for name in TESTED}
        lines.append(
            {
                "standard": where.get("standard", "each in turn"),
                "factor": factor,
                "fast_pixels": pixels,
                **chosen,
            }
        )
    return lines


def print_lines(title: str, lines: list[dict[str, Any]]) -> None:
    """Print a table of plain numbers."""
    if not lines:
        return
    print(f"\n{title}")
    names = [n for n in lines[0] if n not in ("false_per_area",)]
    print("".join(f"{name:>24s}" for name in names))
    for line in lines:
        texts = [
            percent(line[name]) if isinstance(line[name], dict)
            else f"{line[name]:.4g}" if isinstance(line[name], float) else str(line[name])[-23:]
            for name in names
        ]  # fmt: skip
        print("".join(f"{text:>24s}" for text in texts))


def draw(found: Hallucination, target: Path) -> None:
    """Draw rates against significance, and the table of smallest features."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for axis, factor in zip(axes[:2], COARSER_FACTORS, strict=True):
        for method, colour in (("model", "tab:blue"), ("bicubic", "tab:gray")):
            for rate, style in (("false", "-"), ("lost", ":")):
                x, y = _curve(found, factor, method, rate)
                axis.plot(x, y, style, color=colour, label=f"{method}: {rate}")
        limit = 100 * found.boundary.false_rate_limit[str(factor)]
        axis.axhline(limit, color="tab:red", lw=0.8)
        axis.set(
            xscale="log",
            ylim=(0, 105),
            xlabel="significance of dots (1 step and more)",
            title=f"{factor}x (red: allowed false share)",
        )
        axis.set_yscale("symlog", linthresh=0.5)
    axes[0].set_ylabel("share of dots (%)")
    axes[0].legend(fontsize=7)
    for axis, factor in zip(axes[2:], COARSER_FACTORS, strict=True):
        _draw_table(axis, found, factor)
    figure.savefig(target, dpi=90)
    pyplot.close(figure)


def _curve(
    found: Hallucination, factor: int, method: str, rate: str
) -> tuple[np.ndarray, np.ndarray]:
    edges = np.geomspace(0.3, 300, 16)
    x, y = [], []
    for low, high in itertools.pairwise(edges):
        rows = [
            row
            for row in found.rows
            if low <= row.cell.significance < high
            and row.cell.standard in DOTS
            and row.cell.measurement.probe_steps == 0
            and row.cell.measurement.fast_pixels == 1
            and row.cell.diameter_steps >= 1
        ]
        value = getattr(pooled(rows, method, factor=factor), rate)
        if value.total >= 50:
            x.append(np.sqrt(low * high))
            y.append(100 * value.value)
    return np.array(x), np.array(y)


def _draw_table(axis: Any, found: Hallucination, factor: int) -> None:
    table = found.boundary.smallest_steps
    lines = [
        line
        for line in table
        if (line["factor"], line["fast_pixels"], line["probe"]) == (factor, 1, 0)
    ]
    counts = sorted({line["counts"] for line in lines})
    contrasts = sorted({line["contrast"] for line in lines})
    plane = np.full((len(contrasts), len(counts)), np.nan)
    for line in lines:
        at = contrasts.index(line["contrast"]), counts.index(line["counts"])
        plane[at] = np.nan if line["believed_steps"] >= NEVER else line["believed_steps"]
        text = f"{steps(line['believed_steps'])}\n({steps(line['seen_steps'])})"
        axis.text(at[1], at[0], text, ha="center", va="center", fontsize=8)
    axis.imshow(plane, cmap="YlGn_r", vmin=-2, vmax=4, origin="lower", aspect="auto")
    axis.set_xticks(range(len(counts)), [f"{n:g}" for n in counts])
    axis.set_yticks(range(len(contrasts)), [f"{c:g}" for c in contrasts])
    axis.set(
        xlabel="photons at intensity 1",
        ylabel=f"contrast (background {BACKGROUND:g})",
        title=f"{factor}x: smallest diameter believed (seen)",
    )


def measure_all(model: str | None, quick: bool) -> Hallucination:
    """Run everything; the tables are in the boundary's figures."""
    readings = load_model(model)[1].readings
    wanted = list(cells(**QUICK)) if quick else usual_cells(readings)
    found = hallucinate(model, wanted=wanted, repeats=1 if quick else 2)
    limit = found.boundary.regularity
    predict = within(predictor(model, regularity=limit), found.boundary)
    figures: dict[str, list[Any]] = {
        "summary": found.summary(),
        "compared": found.compared(),
        "hidden": hidden(predict),
        "gratings": gratings(predict),
        "star": star(predict),
    }
    if not quick:
        some = list(cells(readings, counts=(5, 20, 200), diameters=(1.0, 2.0, 3.0)))
        figures["aliases"] = aliases(limit or 1.0)
        figures["elements"] = many_elements(predictor(model))
        figures["left_out"] = left_out(model, found.fitted_rows, some)
        figures["cost"] = cost(model, found.boundary)
    boundary = found.boundary.model_copy(update={"figures": figures})
    return Hallucination(boundary, found.rows, found.fitted_rows)


def main() -> None:
    """Run the sweep and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few cells, for tests")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--picture", type=Path, default=None)
    parser.add_argument("--write", action="store_true", help="NAME.trust.json beside the weights")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, worked = time.perf_counter(), time.process_time()
    found = measure_all(options.model, options.quick)
    for name, lines in found.boundary.figures.items():
        print_lines(TITLES[name], lines)
    print_boundary(found.boundary)
    plain = found.boundary.model_dump(mode="json")
    if options.write:
        file = write_boundary(model_path(options.model), found.boundary)
        print(f"\nwritten: {file}")
    if options.json is not None:
        rows = [row.to_dict() for row in found.rows]
        options.json.write_text(json.dumps({"boundary": plain, "rows": rows}, indent=1))
    by_default = options.write and options.model is None and not options.quick
    picture = options.picture or (PICTURE if by_default else None)
    if picture is not None:
        draw(found, picture)
    wall, worked = time.perf_counter() - began, time.process_time() - worked
    print(f"\n{wall:.0f} s, {worked:.0f} s of them on the processor")


if __name__ == "__main__":
    main()
