"""Exported maps in the programs that they are for, as far as those are installed.

`scripts/check_exports.sh` does the same with PyMca, PyXRF and scippnexus too, which are too heavy
for every environment.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

CHECKS = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "check_exports.py"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    CHECKS["make"](folder)
    return folder


@pytest.mark.parametrize("name", CHECKS["NAMES"])
@pytest.mark.parametrize("program", CHECKS["PROGRAMS"])
def test_a_program_finds_the_maps_where_they_are(program: str, name: str, exported: Path) -> None:
    module, check = CHECKS["PROGRAMS"][program]
    pytest.importorskip(module)
    found: Any = check(exported, name)
    assert found
