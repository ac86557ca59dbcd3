"""What the model invents, loses and leaks on samples of known structure; its trust boundary.

    python benchmarks/hallucination.py [--quick] [--model NAME] [--json OUT] [--picture OUT]
                                       [--write]

false       of the predicted features, those that aren't there
believed    the same on pixels called trusted (limit inside the boundary: 1 % at 2x, 3 % at 4x)
lost        of the true features, those that aren't predicted
leaked      predicted where only the other element has a feature, of such places
flagged     of the false ones, those on untrusted pixels
doubted     of the true ones that were predicted, those on untrusted pixels (the price)

Each with Wilson's 95 % interval; bicubic on the same counts beside it. A feature counts as
predicted from half its contrast on. Then: samples that the forward model can't tell apart
(coverage of both by one interval), gratings and a Siemens star at and below the coarse step's
limit, a boundary fitted without one standard and tested on it, and what the boundary costs on
phantoms. --write puts NAME.trust.json beside the weights. One thread; the full sweep takes
less than ten minutes on one core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xrf_sr_plans.metrics.classical import Coarse
from xrf_sr_plans.metrics.standards import (
    BACKGROUND,
    dots,
    grating,
    indistinguishable_pair,
    siemens_star,
)
from xrf_sr_plans.sr.boundary import NEVER, TrustBoundary
from xrf_sr_plans.sr.registry import model_path
from xrf_sr_plans.training.calibration import fit_to_blocks, phantom_samples
from xrf_sr_plans.training.pairs import Measurement, measure
from xrf_sr_plans.training.phantoms import TEST_SEED
from xrf_sr_plans.training.trust import (
    QUICK,
    SHOWN,
    Cell,
    Hallucination,
    Predict,
    cells,
    fit_boundary,
    hallucinate,
    pooled,
    predictor,
    rate_json,
    sweep,
    within,
)

COUNTS = 200.0
DOTS = ("isolated dots", "paired dots", "dots in one element")


def percent(rate: dict[str, Any]) -> str:
    """Format a rate with its interval."""
    if not rate["of"]:
        return "-"
    return f"{100 * rate['rate']:.2f} ({100 * rate['low']:.2f}-{100 * rate['high']:.2f})"


def print_sweep(found: Hallucination) -> None:
    """Print rates and boundary."""
    print(f"\n{'':37s}" + "".join(f"{name + ' %':>22s}" for name in SHOWN))
    for line in found.summary():
        label = f"{line['factor']}x {line['method']:8s} {line['standard']}"
        print(f"{label:37s}" + "".join(f"{percent(line[name]):>22s}" for name in SHOWN))
    print("\nsmallest believed / seen (at most 10 % lost) diameter, in coarse steps")
    print("columns: photons per coarse pixel at intensity 1 (background 0.2); rows: contrast")
    table = found.boundary.smallest_steps
    for factor in sorted({line["factor"] for line in table}):
        here = [line for line in table if line["factor"] == factor]
        columns = sorted({line["counts"] for line in here})
        print(f"{factor:g}x   " + "".join(f"{n:>14g}" for n in columns))
        for contrast in sorted({line["contrast"] for line in here}):
            row = {line["counts"]: line for line in here if line["contrast"] == contrast}
            text = [f"{steps(row[n]['believed_steps'])} / {steps(row[n]['seen_steps'])}"
                    for n in columns]  # fmt: skip
            print(f"{contrast:<5g}" + "".join(f"{value:>14s}" for value in text))
    print(f"\nsmallest significance of a blob by size {found.boundary.sizes_steps} steps:")
    for factor, levels in found.boundary.significance.items():
        print(f"{factor}x  " + "  ".join("never" if v >= NEVER else f"{v:.2f}" for v in levels))


def steps(size: float) -> str:
    """Format a diameter."""
    return "-" if size >= NEVER else f"{size:g}"


def pair(maps: np.ndarray, factor: int, seed: int, counts: float = COUNTS) -> Any:
    """Measure a sample (element, y, x) by a fly scan."""
    how = Measurement(factor, "fly", 0.0, 0.0, (counts,) * len(maps))
    return measure(maps, how, np.random.default_rng(seed))


def hidden(predict: Predict) -> list[dict[str, float]]:
    """Cover two samples that only differ in what can't be measured, by one interval."""
    lines = []
    for factor in (2, 4):
        base = dots(64 * factor, 1.5 * factor, 0.6, np.random.default_rng(0), n_elements=1)
        for contrast in (0.02, 0.05, 0.1):
            twins = indistinguishable_pair(
                base.maps[0] + 0.2, Coarse(factor), contrast, np.random.default_rng(1)
            )
            first, second = (pair(np.clip(twin, 0, None)[None], factor, 2) for twin in twins)
            fields = predict(first.counts, factor)
            inside = [
                float(((fields["lower"] <= one.truth) & (one.truth <= fields["upper"])).mean())
                for one in (first, second)
            ]
            lines.append(
                {
                    "factor": factor,
                    "hidden_contrast": contrast,
                    "largest_difference_sigma": float(
                        (np.abs(first.counts - second.counts) / np.sqrt(first.counts + 1)).max()
                    ),
                    "coverage_first": inside[0],
                    "coverage_second": inside[1],
                }
            )
    return lines


def gratings(predict: Predict) -> list[dict[str, float]]:
    """Return what of a grating is predicted, and what else is, by period in coarse steps."""
    lines = []
    for factor in (2, 4):
        for period in (1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0):
            for angle in (0.0, 0.5):
                truth = grating(64 * factor, period * factor, 0.8, angle)
                fields = predict(pair(truth[None], factor, 3).counts, factor)
                line: dict[str, float] = {"factor": factor, "period_steps": period, "angle": angle}
                for name, key in (("estimate", "model"), ("baseline", "bicubic")):
                    line |= _modulation(fields[name][0] / COUNTS, truth, key)
                line["trusted"] = float(fields["trusted"].mean())
                lines.append(line)
    return lines


def _modulation(made: np.ndarray, truth: np.ndarray, key: str) -> dict[str, float]:
    window = np.outer(*(np.hanning(side) for side in truth.shape))
    got, true = (np.fft.rfft2((plane - plane.mean()) * window) for plane in (made, truth))
    power = np.abs(true) ** 2
    own = power > 1e-3 * power.max()
    share = float((got[own] * true[own].conj()).real.sum() / power[own].sum())
    other = float(np.sqrt((np.abs(got[~own]) ** 2).sum() / power.sum()))
    return {f"{key}_seen": share, f"{key}_spurious": other}


def star(predict: Predict) -> list[dict[str, float]]:
    """Return by local period of a Siemens star how well spokes are predicted (1: perfectly)."""
    spokes, lines = 24, []
    for factor in (2, 4):
        truth = siemens_star(96 * factor, 0.8, spokes)
        fields = predict(pair(truth[None], factor, 4).counts, factor)
        rows, columns = np.mgrid[: len(truth), : len(truth)] - (len(truth) - 1) / 2
        period = 2 * np.pi * np.hypot(rows, columns) / spokes / factor
        for low, high in ((1, 1.5), (1.5, 2), (2, 3), (3, 4), (4, 6), (6, 10)):
            ring = (period >= low) & (period < high)
            line: dict[str, float] = {"factor": factor, "from_steps": low, "to_steps": high}
            for name, key in (("estimate", "model"), ("baseline", "bicubic")):
                values = fields[name][0][ring] / COUNTS
                line[key] = float(np.cov(values, truth[ring])[0, 1] / np.var(truth[ring]))
            lines.append(line)
    return lines


def left_out(predict: Predict, wanted: list[Cell]) -> list[dict[str, Any]]:
    """Fit the boundary without one standard; return how it does on that one."""
    lines = []
    for standard in DOTS:
        inner = [cell for cell in wanted if cell.standard != standard]
        outer = [cell for cell in wanted if cell.standard == standard]
        fitted = fit_boundary(sweep(predict, inner, repeats=1, seed=2), "0" * 64, "")
        rows = sweep(within(predict, fitted), outer, repeats=1, seed=3)
        for factor in sorted({cell.factor for cell in wanted}):
            rates = pooled(rows, "model", factor=factor)
            line = {"standard": standard, "factor": factor}
            chosen = {name: rate_json(getattr(rates, name)) for name in ("believed", "flagged")}
            lines.append({**line, **chosen})
    return lines


def cost(predict: Predict, boundary: TrustBoundary) -> list[dict[str, float]]:
    """Return the trusted share of phantoms with and without the boundary."""
    guarded, lines = within(predict, boundary), []
    samples = [fit_to_blocks(s.maps, 4) for s in phantom_samples(1, TEST_SEED)]
    for factor in (2, 4):
        for counts in (20.0, 50.0, 200.0, 1000.0):
            shares = []
            for number, maps in enumerate(samples):
                measured = pair(maps, factor, number, counts).counts
                each = [f(measured, factor)["trusted"].mean() for f in (predict, guarded)]
                shares.append(each)
            before, after = np.mean(shares, axis=0)
            lines.append({"factor": factor, "counts": counts, "before": before, "after": after})
    return lines


def print_lines(title: str, lines: list[dict[str, Any]]) -> None:
    """Print a table of plain numbers."""
    print(f"\n{title}")
    print("".join(f"{name:>26s}" for name in lines[0]))
    for line in lines:
        texts = [
            percent(value) if isinstance(value, dict)
            else f"{value:.4g}" if isinstance(value, float) else str(value)
            for value in line.values()
        ]  # fmt: skip
        print("".join(f"{text:>26s}" for text in texts))


def draw(found: Hallucination, target: Path) -> None:
    """Draw rates against significance, and the table of smallest features."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    for axis, factor in zip(axes[:2], (2, 4), strict=True):
        for method, colour in (("model", "tab:blue"), ("bicubic", "tab:gray")):
            for rate, style in (("false", "-"), ("lost", ":")):
                x, y = _curve(found, factor, method, rate)
                axis.plot(x, y, style, color=colour, label=f"{method}: {rate}")
        limit = 100 * found.boundary.false_rate_limit[str(factor)]
        axis.axhline(limit, color="tab:red", lw=0.8)
        axis.set(
            xscale="log",
            ylim=(0, 105),
            xlabel="significance of features (1 step and more)",
            title=f"{factor}x (red: allowed false share)",
        )
        axis.set_yscale("symlog", linthresh=0.5)
    axes[0].set_ylabel("share of features (%)")
    axes[0].legend(fontsize=7)
    for axis, factor in zip(axes[2:], (2, 4), strict=True):
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
            and row.cell.standard != "empty field"
            and row.cell.diameter_steps >= 1
        ]
        value = getattr(pooled(rows, method, factor=factor), rate)
        if value.total >= 50:
            x.append(np.sqrt(low * high))
            y.append(100 * value.value)
    return np.array(x), np.array(y)


def _draw_table(axis: Any, found: Hallucination, factor: int) -> None:
    lines = [line for line in found.boundary.smallest_steps if line["factor"] == factor]
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
    began = time.perf_counter()
    wanted = list(cells(**QUICK)) if options.quick else list(cells())
    found = hallucinate(options.model, wanted=wanted, repeats=1 if options.quick else 2)
    print(f"{len(wanted)} cells, {time.perf_counter() - began:.0f} s")
    print_sweep(found)
    if options.write:
        file = model_path(options.model).with_suffix(".trust.json")
        file.write_text(json.dumps(found.boundary.model_dump(mode="json"), indent=1) + "\n")
        print(f"\nwritten: {file}")
    predict = within(predictor(options.model), found.boundary)
    more = {
        "hidden": ("samples the forward model can't tell apart", hidden(predict)),
        "gratings": ("gratings: share seen, and anything else seen", gratings(predict)),
        "star": ("Siemens star: share of the spokes' contrast by local period", star(predict)),
    }
    if not options.quick:
        some = list(cells(counts=(5, 20, 200), diameters=(1.0, 2.0, 3.0)))
        plain = predictor(options.model)
        more |= {
            "left_out": ("boundary fitted without a standard", left_out(plain, some)),
            "cost": ("trusted share of phantoms", cost(plain, found.boundary)),
        }
    for title, lines in more.values():
        print_lines(title, lines)
    if options.json is not None:
        report = {
            "boundary": found.boundary.model_dump(mode="json"),
            "summary": found.summary(),
            "rows": [row.to_dict() for row in found.rows],
            **{name: lines for name, (_, lines) in more.items()},
        }
        options.json.write_text(json.dumps(report, indent=1))
    if options.picture is not None:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
