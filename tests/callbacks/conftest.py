"""Shared by the tests of the analysis: documents without a beamline, and a model that is quick."""

from __future__ import annotations

import pytest


@pytest.fixture
def bicubic_model(monkeypatch):
    """Let bicubic pose as the model, so that these tests need neither torch nor time."""
    from xrf_sr_plans.sr import predict
    from xrf_sr_plans.sr.bicubic import enhance_bicubic

    def enhance_maps(maps, factor, *, model=None, device=None):
        enhanced = enhance_bicubic(maps, factor, "")
        identity = {"name": model or "stand-in", "sha256": "ab" * 32, "calibration": "none"}
        return type(enhanced)(enhanced.dataset.assign_attrs(model=identity), enhanced.grid)

    monkeypatch.setattr(predict, "enhance_maps", enhance_maps)
    return enhance_maps
