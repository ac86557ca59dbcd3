"""Of the ways to fly a survey, each has the longest dwell that fits, and the limits that count."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.plan_support import small_beamline
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.plans import preflight
from xrf_sr_plans.plans.survey_options import (
    WAYS,
    Asked,
    Flight,
    SurveyOption,
    Way,
    survey_option,
    ways_of,
)
from xrf_sr_plans.sr.expected_error import ErrorTable, shipped_errors, way_of

SIDE = 64
"""Fine pixels along each side of the area."""


def beamline(overhead_s=0.1, **changes):
    changes = {"max_rate_hz": 1000.0, "max_velocity_um_s": 1000.0, **changes}
    made = small_beamline(**changes)
    object.__setattr__(made, "time_model", RowTimeModel(overhead_s=overhead_s))
    return made


def flight(way: Way) -> Flight:
    return Flight(SIDE // way.factor, (SIDE // way.factor) ** 2)


def options(stage, **asked) -> list[SurveyOption]:
    wanted = Asked(**{"fine_step_um": 0.5, **asked})
    found = [survey_option(stage, wanted, way, flight(way), shipped_errors()) for way in WAYS]
    return sorted(found, key=lambda option: option.rank)


def by_way(found: list[SurveyOption]) -> dict[str, SurveyOption]:
    return {str(option.way): option for option in found}


@given(
    overhead_s=st.sampled_from([0.0, 0.02, 0.2, 3.8]),
    rate_hz=st.sampled_from([50.0, 200.0, 2000.0]),
    velocity_um_s=st.sampled_from([20.0, 200.0, 2000.0]),
    time_s=st.floats(0.5, 2000.0),
)
@settings(max_examples=60)
def test_what_can_be_flown_keeps_the_time_and_every_limit(
    overhead_s, rate_hz, velocity_um_s, time_s
):
    stage = beamline(overhead_s, max_rate_hz=rate_hz, max_velocity_um_s=velocity_um_s)
    for option in options(stage, time_s=time_s):
        way, own = option.way, flight(option.way)
        frames_hz = way.fast_pixels * 1e3 / option.dwell_ms
        assert frames_hz <= rate_hz * (1 + 1e-9)
        assert option.step_um / option.dwell_ms * 1e3 <= velocity_um_s * (1 + 1e-9)
        needed_s = own.rows * overhead_s + own.steps * option.dwell_ms * 1e-3
        assert option.time_s == pytest.approx(needed_s)
        if option.allowed:
            # The time is used, but for the last digit of the dwell.
            assert 0.998 * time_s <= option.time_s <= time_s * (1 + 1e-3)
        else:
            assert option.time_s > time_s
            assert "takes" in option.problem


@pytest.mark.parametrize("limit", ["time_s", "max_dose"])
def test_more_time_or_dose_never_makes_it_worse(limit):
    stage, best = beamline(), []
    scale = {"time_s": 1.0, "max_dose": 1e6}[limit]
    for amount in (1.5, 3, 6, 12, 25, 50, 100, 400):
        found = [one for one in options(stage, **{limit: amount * scale}) if one.allowed]
        best.append(found[0].expected_db if found else -math.inf)
    assert best == sorted(best)
    assert best[-1] > best[0]


def test_where_rows_cost_nothing_many_are_flown_and_where_they_cost_much_few_are():
    quick = options(beamline(0.0, max_rate_hz=1e5, max_velocity_um_s=1e5), time_s=30)
    assert quick[0].way.factor < 4
    slow = options(beamline(3.8), time_s=16 * 3.8 + 5)
    assert slow[0].way.factor == 4
    assert "between its 64 rows alone" in by_way(slow)["every fine row"].problem


def test_a_slow_detector_makes_squares_of_rows():
    found = by_way(options(beamline(0.1, max_rate_hz=100), time_s=8))
    assert "at most 100 frames/s" in found["4x rows"].problem
    assert found["4x squares"].allowed


def test_a_slow_stage_is_named():
    found = by_way(options(beamline(0.0, max_velocity_um_s=20), time_s=40))
    assert "at most 20 um/s" in found["every fine row"].problem


def test_dose_limits_the_dwell_alike_in_all_ways():
    stage = beamline(0.0, max_rate_hz=1e5, max_velocity_um_s=1e5)
    for option in options(stage, time_s=1e4, max_dose=1e7):
        assert option.limit == "max_dose"
        assert option.dose == pytest.approx(1e7, rel=2e-3)
        assert option.dose == preflight.dose(stage, option.step_um**2, option.dwell_ms)


def test_a_dwell_that_is_given_is_kept_and_what_takes_longer_is_refused():
    found = by_way(options(beamline(), time_s=10, dwell_ms=10))
    assert {option.dwell_ms for option in found.values()} == {10}
    assert found["4x rows"].allowed
    assert "dwell_ms 10" in found["every fine row"].problem


def test_time_in_which_the_detector_is_read_out_counts_no_photons():
    without = by_way(options(beamline(), time_s=10))["4x rows"]
    withal = by_way(options(beamline(readout_ms=0.5), time_s=10))["4x rows"]
    lost = 4 * 0.5 / without.dwell_ms
    assert withal.photons == pytest.approx(without.photons * (1 - lost))
    assert withal.expected_db < without.expected_db


def test_on_the_grid_of_the_result_rows_are_squares_and_stepped_rows_are_always():
    assert len({str(way) for way in WAYS}) == len(WAYS) == 5
    assert [str(way) for way in ways_of(beamline(), 4)] == ["4x rows", "4x squares"]
    assert [str(way) for way in ways_of(beamline(), None, "rows")] == [
        "every fine row",
        "2x rows",
        "4x rows",
    ]


def test_the_shipped_table_knows_all_ways_and_more_photons_are_never_worse():
    table = shipped_errors()
    assert set(table.psnr_db) == {way_of(way.factor, rows=way.sampling == "rows") for way in WAYS}
    for name in table.psnr_db:
        for probe_px in (0.0, 1.0, 3.0, 50.0):
            found = [table.expected_db(name, photons, probe_px) for photons in (0.01, 1, 99, 1e6)]
            assert found == sorted(found)
    assert table.expected_db("8 rows", 10.0) is None


def test_at_many_photons_finer_is_better_and_rows_are_better_than_squares():
    table = shipped_errors()
    names = ("4 squares", "4 rows", "2 squares", "2 rows", "1")
    found = [table.expected_db(name, 1000.0) for name in names]
    assert found == sorted(found)


@pytest.mark.parametrize(
    "wrong",
    [
        {"photons": [1.0, 1.0]},
        {"photons": [0.0, 1.0]},
        {"probe_px": []},
        {"psnr_db": {"1": [[3.0, 2.0]]}},
        {"psnr_db": {"1": [[1.0, math.nan]]}},
        {"psnr_db": {"1": [[1.0]]}},
        {"classical_db": {"1": [[1.0]]}},
    ],
    ids=str,
)
def test_a_damaged_table_is_refused(wrong):
    sound = {"photons": [1.0, 10.0], "probe_px": [0.0], "psnr_db": {"1": [[1.0, 2.0]]}}
    sound["classical_db"] = {"1": [[0.5, 1.0]]}
    assert ErrorTable.from_dict(sound).gains_db("1") == [0.5, 1.0]
    with pytest.raises(ConfigError, match="damaged"):
        ErrorTable.from_dict({**sound, **wrong})
    with pytest.raises(ConfigError, match="damaged"):
        ErrorTable.from_dict({key: sound[key] for key in ("photons", "psnr_db")})
