"""Regions that are picked from maps that hold nothing to find, sound and with routine defects.

    python benchmarks/false_regions.py [--number 100] [--bicubic]

Object-free maps of three elements: flat, with a smooth gradient, with the noise of their counts, at
several doses. Each is enhanced as it is and with a defect of every kind: five rows without beam and
without a monitor that says so, the last two columns empty, ten hot pixels in one element, a dead
and a doubled row. Whatever is picked is false: from the counts as they are (no query) and where one
element is asked for. Prints the false regions in 100 maps for each defect.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.rois.pick import pick_regions
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.sr.bicubic import enhance_bicubic
from xrf_sr_plans.sr.predict import enhance_maps

ELEMENTS = ("Fe", "Zn", "Ca")
SIDE = 48
LEVELS = (3.0, 20.0, 200.0)
FACTOR = 2


def without_beam(counts: np.ndarray, rng: np.random.Generator) -> None:
    """Empty five rows, in place (element, y, x)."""
    row = rng.integers(5, SIDE - 10)
    counts[:, row : row + 5] = 0


def bad_columns(counts: np.ndarray, rng: np.random.Generator) -> None:
    """Empty the last two columns."""
    counts[:, :, -2:] = 0


def hot_pixels(counts: np.ndarray, rng: np.random.Generator) -> None:
    """Set ten pixels of one element to ten thousand counts."""
    y, x = rng.integers(0, SIDE, (2, 10))
    counts[0, y, x] = 1e4


def dead_row(counts: np.ndarray, rng: np.random.Generator) -> None:
    """Empty one row."""
    counts[:, rng.integers(2, SIDE - 2)] = 0


def doubled_row(counts: np.ndarray, rng: np.random.Generator) -> None:
    """Repeat one row in place of the next one."""
    row = rng.integers(2, SIDE - 2)
    counts[:, row + 1] = counts[:, row]


DEFECTS: dict[str, Callable[[np.ndarray, np.random.Generator], None]] = {
    "none": lambda counts, rng: None,
    "five rows without beam": without_beam,
    "last two columns empty": bad_columns,
    "ten hot pixels": hot_pixels,
    "a dead row": dead_row,
    "a doubled row": doubled_row,
}


def empty_map(rng: np.random.Generator) -> np.ndarray:
    """Return the counts (element, y, x) of a sample without objects."""
    slope = rng.uniform(-0.3, 0.3, (2, len(ELEMENTS), 1, 1)) / SIDE
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    expected = rng.choice(LEVELS) * (1 + slope[0] * y + slope[1] * x)
    return rng.poisson(expected).astype(float)


def false_regions(counts: np.ndarray, bicubic: bool) -> int:
    """Return how many regions are picked from a map, without a query and with one."""
    grid = ScanGrid.from_start_stop(0, SIDE - 1, SIDE, 0, SIDE - 1, SIDE)
    maps = ElementalMaps.from_arrays(counts, grid, ELEMENTS, dwell_ms=10.0, step_um=1.0)
    made = (
        enhance_bicubic(maps, FACTOR, "") if bicubic else enhance_maps(maps, FACTOR, device="cpu")
    )
    return sum(
        len(pick_regions(made, AnalysisRequest(find=find), source_uid="").regions)
        for find in (None, "Fe")
    )


def main() -> None:
    """Count, and print a line for each defect."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--bicubic", action="store_true")
    options = parser.parse_args()
    for name, spoil in DEFECTS.items():
        found = 0
        for number in range(options.number):
            rng = np.random.default_rng(number)
            counts = empty_map(rng)
            spoil(counts, rng)
            found += false_regions(counts, options.bicubic)
        print(
            f"{name:24s} {100 * found / options.number:6.1f} false regions in 100 maps", flush=True
        )


if __name__ == "__main__":
    main()
