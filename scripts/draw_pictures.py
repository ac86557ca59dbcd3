"""Draw the pictures of the documentation from the survey that the tutorial flies.

``python scripts/draw_pictures.py`` writes ``first-survey.png`` and ``enhanced-map.png`` into
``docs/_static``. The other pictures there come from ``make demo`` (``survey.png``) and from
``benchmarks/hallucination.py`` and ``benchmarks/uncertainty.py``, which say so in their help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from bluesky import RunEngine

from xrf_sr_plans.demo import expected_counts
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.session import start_session

STATIC = Path(__file__).resolve().parents[1] / "docs" / "_static"
SURVEY = {
    "x_center_um": 0,
    "y_center_um": 0,
    "width_um": 80,
    "height_um": 30,
    "step_um": 2,
    "dwell_ms": 10,
    "find": "K",
    "factor": 4,
    "budget_s": 120,
    "max_regions": 4,
}
"""The call of docs/tutorials/first-survey.md."""
ELEMENT = "Si"
ORANGE, BLUE = "#d95f02", "#1b6ca8"


def main(out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = STATIC) -> None:
    """Fly the survey of the tutorial on the simulated beamline and draw what came of it."""
    run_engine, latest, beamline = RunEngine({}), LatestSurvey(), make_beamline()
    run_engine.subscribe(latest)
    with start_session(run_engine, beamline, result_sinks=[latest]) as session:
        run_engine(session.plans["coarse_survey_with_sr"](**SURVEY))
        session.link.flush(120.0)
    latest.picture(out / "first-survey.png")
    record = latest.record
    (coarse,), (enhanced,) = record.coarse.values(), record.enhanced.values()
    truth = expected_counts(beamline, enhanced.grid, float(SURVEY["dwell_ms"]))
    # Rows are read out in shorter pixels, each with its share of the photons.
    truth = truth / enhanced.fast_pixels
    draw_one_element(coarse, enhanced, truth, out / "enhanced-map.png")


def draw_one_element(
    coarse: ElementalMaps, enhanced: EnhancedMaps, truth: np.ndarray, path: Path
) -> None:
    """Save one element's maps, and what they say along one line, as PNG.

    Parameters
    ----------
    coarse, enhanced
        What was measured and what was made of it.
    truth
        (element, y, x) noise-free photons on the enhanced grid.
    path
        The file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    index = enhanced.elements.index(ELEMENT)
    # The line goes where most pixels are untrusted, so that the picture has some.
    row = int(np.argmin(enhanced.trusted.values[index].mean(axis=1)))
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(
        [["coarse", "baseline"], ["estimate", "sigma"], ["line"] * 2], height_ratios=[1, 1, 1.2]
    )
    panels = {
        "coarse": (coarse.grid, coarse.counts.values[index], "the coarse map, as measured"),
        "baseline": (enhanced.grid, enhanced.baseline.values[index], "baseline"),
        "estimate": (enhanced.grid, enhanced.estimate.values[index], "estimate"),
        "sigma": (enhanced.grid, enhanced.sigma.values[index], "sigma (hatched: not trusted)"),
    }
    brightest = float(np.nanpercentile(panels["estimate"][1], 99.5))
    for name, (grid, plane, title) in panels.items():
        x, y = grid.fast, grid.slow
        image = axes[name].imshow(
            plane,
            origin="lower",
            extent=(x.low_um, x.high_um, y.low_um, y.high_um),
            cmap="magma" if name == "sigma" else "viridis",
            vmin=0,
            vmax=float(np.nanpercentile(plane, 99.5)) if name == "sigma" else brightest,
            interpolation="nearest",
        )
        axes[name].set_title(title, fontsize=10)
        axes[name].tick_params(labelsize=7)
        figure.colorbar(image, ax=axes[name], shrink=0.8, label="photons")
    y_um = float(enhanced.grid.slow.centers_um[row])
    axes["estimate"].axhline(y_um, color="white", linewidth=0.8, linestyle="--")
    _hatch(axes["sigma"], enhanced, index)
    _draw_line(axes["line"], enhanced, truth[index, row], index, row)
    figure.savefig(path, dpi=110)


def _hatch(axis: Any, enhanced: EnhancedMaps, index: int) -> None:
    untrusted = ~enhanced.trusted.values[index].astype(bool)
    grid = enhanced.grid
    if untrusted.any():
        axis.contourf(
            grid.fast.centers_um,
            grid.slow.centers_um,
            untrusted,
            levels=[0.5, 1.5],
            colors="none",
            hatches=["////"],
        )


def _draw_line(axis: Any, enhanced: EnhancedMaps, truth: np.ndarray, index: int, row: int) -> None:
    x = enhanced.grid.fast.centers_um

    def line(name: str) -> np.ndarray:
        return enhanced.dataset[name].values[index, row]

    axis.fill_between(
        x,
        line("lower"),
        line("upper"),
        color=ORANGE,
        alpha=0.3,
        linewidth=0,
        label="lower to upper",
    )
    axis.plot(x, line("estimate"), color=ORANGE, label="estimate")
    axis.plot(x, line("baseline"), color=BLUE, linewidth=1, linestyle="--", label="baseline")
    axis.plot(x, truth, color="black", linewidth=1, label="truth (known only in a simulation)")
    untrusted = ~line("trusted").astype(bool)
    top = float(max(line("upper").max(), truth.max()))
    axis.fill_between(
        x, 0, top, where=untrusted, step="mid", facecolor="none", edgecolor="grey", hatch="////",
        linewidth=0, label="not trusted",
    )  # fmt: skip
    axis.set_xlim(float(x[0]), float(x[-1]))
    axis.set_xlabel("x (µm)")
    axis.set_ylabel(f"{ELEMENT}, photons per measured pixel")
    axis.set_title(
        f"along the dashed line, y = {float(enhanced.grid.slow.centers_um[row]):g} µm", fontsize=10
    )
    axis.set_ylim(0, 1.35 * top)
    axis.legend(fontsize=8, ncols=3, loc="upper left")


if __name__ == "__main__":
    typer.run(main)
