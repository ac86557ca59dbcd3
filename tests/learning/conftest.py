"""Shared by the tests of learning: a calibration that is quick."""

from __future__ import annotations

import pytest


@pytest.fixture
def quick_calibration(monkeypatch):
    """Calibrate on a few pixels of a few small phantoms, without photographs."""
    from xrf_sr_plans.learning import calibrate_on_areas, map_figures
    from xrf_sr_plans.training import calibrate_model
    from xrf_sr_plans.training.phantoms import phantom
    from xrf_sr_plans.training.samples import Sample

    def few(n_per_family, first_seed, real_maps, **_how):
        kinds = ("cells", "cathode")
        return [Sample(kind, kind, phantom(kind, first_seed, size=64)) for kind in kinds]

    monkeypatch.setattr(calibrate_model, "all_kinds", few)
    monkeypatch.setattr(calibrate_on_areas, "MOST_PIXELS", 400)
    monkeypatch.setattr(map_figures, "MOST_PIXELS", 200)
    monkeypatch.setattr(map_figures, "ALL_FAMILIES", ("cells", "particles"))
