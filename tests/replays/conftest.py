from __future__ import annotations

from pathlib import Path

import pytest

from support.many_runs import write_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with the runs of three maps."""
    return write_runs(tmp_path / "runs", 3)
