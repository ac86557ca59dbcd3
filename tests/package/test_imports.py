"""What importing the package costs, and under which names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "tiled",
    "databroker",
    "lightning",
    "bluesky_queueserver_api",
    "matplotlib",
    "pint",
}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import xrf_sr_plans",
        "from xrf_sr_plans import ScanGrid, Region, ElementalMaps",
        "import xrf_sr_plans.plans.survey",
        "import xrf_sr_plans.callbacks.tap",
        "import xrf_sr_plans.cli",
    ],
)
def test_importing_it_loads_nothing_heavy(statement: str) -> None:
    assert not modules_after(statement) & HEAVY


def test_the_callbacks_folder_is_refused_under_its_own_name() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import callbacks"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode
    assert "import 'xrf_sr_plans.callbacks', not 'callbacks'" in done.stderr


def test_every_public_name_exists() -> None:
    import xrf_sr_plans

    for name in xrf_sr_plans.__all__:
        assert getattr(xrf_sr_plans, name) is not None
