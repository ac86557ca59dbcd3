"""Random regions, stages and limits: no rescan may leave what the axes are allowed.

    python benchmarks/limits.py [--number 100000] [--seed 0]

Draws beamlines with one stage and with two (limits, safe boxes, reach, run-up, velocity, sign and
center of the fine stage) and regions in and around their limits, and designs the rescan of each.
What comes out is checked by itself, from the positions that the axes would be sent to: run-ups and
outer edges of pixels against the limits of the axis, where the coarse stage goes against its
limits, and whether each pixel is where the region asks for it. Prints how many rescans were
designed, how many were refused, and how many violated anything.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import replace

import numpy as np

from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.devices.sim import SimFineStage, make_beamline
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.placed_grid import PlacedGrid, StageFacts, placed_grid, stage_facts

PER_BEAMLINE = 200
"""Number of regions that are drawn for each beamline."""
SLACK_UM = 1e-6


def random_beamline(rng: np.random.Generator, *, two_stages: bool) -> Beamline:
    """Return a simulated beamline whose limits are anything that those of a real one may be."""

    def box(low: float, high: float) -> tuple[tuple[float, float], tuple[float, float]]:
        x, y = rng.uniform(low, high, 2), rng.uniform(low, high, 2)
        return (float(-x[0]), float(x[1])), (float(-y[0]), float(y[1]))

    fine = None
    if two_stages:
        signs = rng.choice((1, -1), 2)
        center_x, center_y = rng.uniform(-3, 3, 2)
        fine = SimFineStage(
            limits_um=box(4, 45),
            reach_um=(float(rng.uniform(3, 90)), float(rng.uniform(3, 90))),
            center_um=(float(center_x), float(center_y)),
            sign=(int(signs[0]), int(signs[1])),  # type: ignore[arg-type]
            acceleration_s=float(rng.uniform(0.001, 0.05)),
        )
    beamline = make_beamline(
        limits_um=box(20, 200),
        safe_box_um=box(20, 200) if rng.random() < 0.5 else None,
        reach_um=(float(rng.uniform(3, 90)), 40.0) if rng.random() < 0.5 else None,
        run_up_um=float(rng.uniform(0, 3)) if rng.random() < 0.5 else None,
        fine_stage=fine,
    )
    if beamline.fine is None:
        return beamline
    x, y, error_um = (float(um) for um in rng.uniform(0, 1, 3))
    fine_stage = replace(beamline.fine, coarse_error_um=error_um, offset_um=(x, -y))
    return replace(beamline, fine=fine_stage)


def random_region(rng: np.random.Generator) -> Region:
    """Return a region in or around the limits of `random_beamline`."""
    x, y = rng.uniform(-130, 130, 2)
    width, height = rng.uniform(0.2, 60, 2)
    edges = (float(x), float(x + width), float(y), float(y + height))
    return Region(*edges, elements=(), score=1.0, reason="", source_uid="")


def violations(
    beamline: Beamline, facts: StageFacts, region: Region, step_um: float, placed: PlacedGrid
) -> list[str]:
    """Return what is wrong with a designed rescan, from the positions of the axes alone."""
    wrong, grid, fine = [], placed.grid, beamline.fine
    safe = beamline.safe_box_um
    edges = (region.x_low_um, region.x_high_um), (region.y_low_um, region.y_high_um)
    for index, (axis, run_up) in enumerate(((grid.fast, grid.run_up_um), (grid.slow, 0.0))):
        ends = axis.low_um - run_up, axis.high_um + run_up
        low, high = facts.coarse[index].low_um, facts.coarse[index].high_um
        assert low is not None
        assert high is not None
        if safe is not None and not _within(ends, safe[index]):
            wrong.append("the sample leaves the safe box")
        if fine is None:
            if not _within(ends, (low, high)):
                wrong.append("the stage leaves its limits")
        else:
            assert placed.coarse_um is not None
            coarse = placed.coarse_um[index]
            if not _within((coarse, coarse), (low, high)):
                wrong.append("the coarse stage leaves its limits")
            # By the definition of the coordinates, for the largest error of the coarse stage.
            for error in (-fine.coarse_error_um, fine.coarse_error_um):
                on_fine = sorted(
                    fine.center_um[index]
                    + fine.sign[index] * (end - coarse - fine.offset_um[index] - error)
                    for end in ends
                )
                low, high = facts.fine[index].low_um, facts.fine[index].high_um
                assert low is not None
                assert high is not None
                if not _within((on_fine[0], on_fine[1]), (low, high)):
                    wrong.append("the fine stage leaves its limits")
        reach = (beamline.reach_um if fine is None else fine.reach_um) or (np.inf, np.inf)
        if axis.num * axis.step_um > reach[index] + SLACK_UM:
            wrong.append("the map is larger than the reach")
        offset = (axis.low_um - edges[index][0]) / step_um
        if abs(offset - round(offset)) > 1e-6 or offset < -1e-6:
            wrong.append("the pixels are not on the region's lattice")
        if axis.high_um > edges[index][1] + step_um + SLACK_UM:
            wrong.append("the map reaches beyond the region")
    return wrong


def checked(number: int, *, two_stages: bool, seed: int = 0) -> Counter[str]:
    """Return how often each thing happened to the rescans of `number` random regions."""
    rng = np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    for at in range(number):
        if at % PER_BEAMLINE == 0:
            beamline = random_beamline(rng, two_stages=two_stages)
            facts = stage_facts(beamline)
        region, step_um = random_region(rng), float(rng.uniform(0.05, 2))
        try:
            placed = placed_grid(beamline, region, fine_step_um=step_um, dwell_ms=10, facts=facts)
        except RefusedError:
            counts["refused"] += 1
            continue
        counts["designed"] += 1
        counts.update(violations(beamline, facts, region, step_um, placed))
    return counts


def _within(ends: tuple[float, float], limits: tuple[float, float]) -> bool:
    return limits[0] - SLACK_UM <= ends[0] and ends[1] <= limits[1] + SLACK_UM


def main() -> None:
    """Print the counts for one stage and for two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for two_stages in (False, True):
        began = time.perf_counter()
        counts = checked(arguments.number, two_stages=two_stages, seed=arguments.seed)
        seconds = time.perf_counter() - began
        wrong = {what: n for what, n in counts.items() if what not in ("designed", "refused")}
        print(
            f"{'two stages' if two_stages else 'one stage'}: {arguments.number} regions,"
            f" {counts['designed']} designed, {counts['refused']} refused,"
            f" {sum(wrong.values())} violations {wrong or ''} in {seconds:.1f} s"
        )


if __name__ == "__main__":
    main()
