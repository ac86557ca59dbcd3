"""The survey that needs no beamline: what it finds, in which time, and what was possible."""

from __future__ import annotations

from xrf_sr_plans.demo.report import summary_tables
from xrf_sr_plans.demo.run import run_demo
from xrf_sr_plans.demo.truth import expected_counts

__all__ = ["expected_counts", "run_demo", "summary_tables"]
