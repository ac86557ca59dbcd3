from __future__ import annotations

from pathlib import Path

import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.store.jsonl import JsonlWriter


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with the runs of three maps."""
    return write_runs(tmp_path / "runs", 3)


def write_runs(folder: Path, number: int) -> Path:
    grid = small_grid(8, 10)
    write = JsonlWriter(folder)
    for index in range(number):
        for name, doc in map_run(grid, truth(grid) + index, f"map-{index:04d}"):
            write(name, doc)
    return folder
