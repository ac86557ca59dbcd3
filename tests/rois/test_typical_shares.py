"""What surveys have found is told from what the benchmark measured."""

from __future__ import annotations

import pytest

from xrf_sr_plans.measurement import COARSER_FACTORS
from xrf_sr_plans.rois.typical_shares import typical_share


@pytest.mark.parametrize("factor", COARSER_FACTORS)
def test_more_time_finds_more_of_the_targets(factor):
    shares = [typical_share(factor, time) for time in (0.05, 0.2, 0.3, 0.4, 0.9)]
    assert all(share is not None for share in shares)
    phantoms, real_maps = zip(*(share for share in shares if share is not None), strict=True)
    for found in (phantoms, real_maps):
        assert list(found) == sorted(found)
        assert found[-2] == found[-1] <= 1


def test_nothing_is_told_of_what_was_not_measured():
    assert typical_share(4, 0.01) is None
    assert typical_share(8, 0.5) is None
