"""The maps that a model is adapted to are read like those of every other command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from support.foreign_runs import Field, hxn_run
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.replays.source_flags import known
from xrf_sr_plans.training.thinned_maps import read_coarse_maps


def test_a_run_is_read_with_its_own_sampling_and_the_keys_that_are_told(tmp_path: Path) -> None:
    # Rows two pixels apart, which the run says of itself.
    field = Field(nx=64, ny=32, dx_um=2.0, dy_um=4.0)
    path = tmp_path / "scan.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in hxn_run(of=field)))
    # Zinc falls below 0 in so large a field.
    (found,) = read_coarse_maps([path], options=known(elements="Ca,Fe"))
    assert (found.sampling, found.fast_pixels) == ("rows", 2)
    np.testing.assert_allclose(found.counts, field.counts[:2])
    told = known(channel=["Fe=Det1_Fe,Det2_Fe"])
    (found,) = read_coarse_maps([path], reader="hxn", options=told)
    # Photons are whole.
    np.testing.assert_allclose(found.counts, 0.75 * field.counts[1:2], rtol=0, atol=0.5)
    with pytest.raises(ConfigError, match="reader is 'hxm'"):
        read_coarse_maps([path], reader="hxm")
