"""The analysis process stays small over a session in which no two maps have the same shape."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings

SCRIPT = Path(__file__).parents[1] / "support" / "many_shapes.py"
ALLOWED_MB = 20.0
WAIT_S = 60.0


def use_mb(folder):
    written = folder / "use.json"
    command = [sys.executable, str(SCRIPT), str(written)]
    process = WorkerProcess(AnalysisSettings(), lambda *_: None, command=command)
    ended = process.end(WAIT_S)
    assert ended.startswith("exit code 0"), ended
    return json.loads(written.read_text())


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_number_of_shapes(tmp_path):
    pytest.importorskip("torch")
    warm, many = use_mb(tmp_path)
    assert many - warm < ALLOWED_MB
