"""A network is told of no wider a probe than it was trained with."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from xrf_sr_plans.measurement import TRAINED_PROBE_STEPS, Measurement  # noqa: E402
from xrf_sr_plans.sr.network import conditions_of  # noqa: E402


@pytest.mark.parametrize("deblur", [True, False])
def test_wider_probes_than_trained_count_as_the_widest_that_was(deblur):
    widths = (0.0, 0.7, TRAINED_PROBE_STEPS, 4.0)
    hows = [Measurement(1, probe_steps=width, deblur=deblur) for width in widths]
    conditions = conditions_of([[0.0]] * 4, [[9.0]] * 4, hows)
    expected = [min(width, TRAINED_PROBE_STEPS) for width in widths]
    assert conditions.probe.tolist() == pytest.approx(expected)
    assert conditions.target_probe.tolist() == pytest.approx([0.0] * 4 if deblur else expected)
