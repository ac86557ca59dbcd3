"""Shared by the tests of buses: a model that is quick, the same as in the listener's process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def bicubic_model() -> Iterator[None]:
    """Let bicubic pose as the model, as `support.quick_listener` does."""
    from xrf_sr_plans.sr import predict
    from xrf_sr_plans.sr.bicubic import enhance_bicubic

    def enhance_maps(maps: Any, factor: int, **_how: Any) -> Any:
        enhanced = enhance_bicubic(maps, factor, "")
        identity = {"name": "stand-in", "sha256": "ab" * 32, "calibration": "none"}
        return type(enhanced)(enhanced.dataset.assign_attrs(model=identity), enhanced.grid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "enhance_maps", enhance_maps)
        yield
