"""The public names and where they live agree."""

from __future__ import annotations

import xrf_sr_plans


def test_every_home_is_announced_and_every_announced_name_has_a_home() -> None:
    assert (
        {*xrf_sr_plans._HOMES, "__version__"} == set(xrf_sr_plans.__all__) == set(dir(xrf_sr_plans))
    )
