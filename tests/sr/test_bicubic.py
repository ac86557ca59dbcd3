"""The fallback needs no torch and says that it is one."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.sr.bicubic import enhance_bicubic


def maps(peak: float = 100) -> tuple[ElementalMaps, np.ndarray]:
    y, x = np.mgrid[:48, :40]
    truth = peak * (1.2 + np.sin(y / 5)[None] * np.cos(x / 7)[None])
    counts = truth.reshape(1, 24, 2, 20, 2).mean((2, 4))
    counts = np.random.default_rng(0).poisson(counts).astype(float)
    grid = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=20, height_um=24, step_um=1)
    return ElementalMaps.from_arrays(counts, grid, ["Fe"], source_uid="abc"), truth


def test_it_says_why_and_names_no_weights():
    made = enhance_bicubic(maps()[0], 2, "the worker died")
    assert made.fallback == "the worker died"
    assert made.model == {"name": "bicubic", "sha256": "", "calibration": ""}
    assert made.dataset.attrs["source_uid"] == "abc"


def test_its_error_bars_are_not_too_small_on_a_smooth_sample():
    measured, truth = maps()
    made = enhance_bicubic(measured, 2, "")
    inside = (made.lower.values <= truth) & (truth <= made.upper.values)
    assert inside.mean() >= 0.88


def test_rows_that_were_not_measured_are_nan():
    measured, _ = maps()
    counts = measured.counts.values.copy()
    counts[:, 20:] = np.nan
    partial = ElementalMaps.from_arrays(counts, measured.grid, ["Fe"])
    made = enhance_bicubic(partial, 4, "")
    assert np.isnan(made.estimate.values[:, 80:]).all()
    assert np.isfinite(made.estimate.values[:, :80]).all()


def test_it_runs_without_torch():
    code = "import sys; import xrf_sr_plans.sr.bicubic; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
