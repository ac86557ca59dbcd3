"""Elements are told apart by name: a name that is there twice is refused before anything moves."""

from __future__ import annotations

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import GOOD_CALLS, Recorder, small_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import MapRun
from xrf_sr_plans.plans.preview import preview

DOUBLED = "flyer 'xrf': 'Fe' is named more than once; each element needs a name of its own"
GRID = ScanGrid.from_start_stop(0, 3, 4, 0, 1, 2)


@pytest.mark.parametrize("plan", GOOD_CALLS)
@pytest.mark.parametrize(
    ("elements", "words"), [(["Fe", "Zn", "Fe"], DOUBLED), ([], "measures no element")]
)
def test_a_plan_is_refused_once_and_moves_nothing(
    plan: str, elements: list[str], words: str
) -> None:
    run_engine, beamline = RunEngine({}), small_beamline()
    recorder = Recorder(run_engine)
    beamline.flyer.elements = elements
    bound = bind_plans(beamline)[plan]
    with pytest.raises(ConfigError, match=words) as refused:
        run_engine(bound(**GOOD_CALLS[plan]))
    assert recorder.docs == []
    assert beamline.fast.axis.num_moves == 0
    assert list(preview(bound, **GOOD_CALLS[plan]).problems) == [str(refused.value)]


def test_a_map_that_no_plan_has_designed_is_refused_too() -> None:
    beamline = small_beamline()
    beamline.flyer.elements = ["Fe", "Fe"]
    with pytest.raises(ConfigError, match=DOUBLED):
        RunEngine({})(fly(MapRun(beamline, GRID, 10.0)))


def test_maps_of_one_name_twice_are_refused() -> None:
    arrays = dict.fromkeys(
        ("estimate", "sigma", "lower", "upper", "baseline", "trusted"), np.ones((2, 2, 4))
    )
    for build in (
        lambda: ElementalMaps.from_arrays(np.ones((2, 2, 4)), GRID, ["Fe", "Fe"]),
        lambda: EnhancedMaps.from_arrays(GRID, ["Fe", "Fe"], **arrays),
    ):
        with pytest.raises(ValueError, match="'Fe' is named more than once"):
            build()
