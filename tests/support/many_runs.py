"""Folders with the runs of many small maps."""

from __future__ import annotations

from pathlib import Path

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.store.jsonl import JsonlWriter


def write_runs(folder: Path, number: int) -> Path:
    """Write the runs `map-0000` and so on into a folder, and return it."""
    grid = small_grid(8, 10)
    write = JsonlWriter(folder)
    for index in range(number):
        for name, doc in map_run(grid, truth(grid) + index, f"map-{index:04d}"):
            write(name, doc)
    return folder
