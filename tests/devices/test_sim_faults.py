"""Every declared fault is visible in the documents, where it was declared and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus

from support.sim_support import Documents, fly, grid_of, row_request, small_map
from xrf_sr_plans.devices.sim import FaultPlan, make_beamline
from xrf_sr_plans.devices.sim.faults import (
    BadDetectorElement,
    BadLastColumns,
    BeamDump,
    Fault,
    HungFlyer,
    MissingRow,
    MonitorZero,
    Saturation,
    ShiftedRow,
    ShortRow,
    StuckMotor,
)
from xrf_sr_plans.errors import ConfigError

GRID = grid_of(nx=12, ny=4)


def rows_with(*faults: Fault | StuckMotor, **kwargs: Any) -> list[dict[str, Any]]:
    beamline = make_beamline(faults=FaultPlan(faults), **kwargs)
    return fly(beamline.flyer, GRID).rows()


@pytest.fixture(scope="module")
def good() -> list[dict[str, Any]]:
    return rows_with()


def others_untouched(rows: list[dict], good: list[dict], hit: set[int]) -> bool:
    by_row = {row["row"]: row for row in rows}
    return all(by_row[k]["counts"] == good[k]["counts"] for k in set(range(4)) - hit)


def test_a_short_row_is_padded_with_nan_and_says_how_many_frames_it_has(good: list) -> None:
    rows = rows_with(ShortRow(rows=(2,), frames=9))
    assert rows[2]["n_frames"] == 9
    assert np.isnan(np.array(rows[2]["counts"])[:, 9:]).all()
    assert np.isnan(rows[2]["fast_um"][9:]).all()
    np.testing.assert_array_equal(
        np.array(rows[2]["counts"])[:, :9], np.array(good[2]["counts"])[:, :9]
    )
    assert others_untouched(rows, good, {2})


def test_a_missing_row_has_no_event(good: list) -> None:
    rows = rows_with(MissingRow(rows=(1,)))
    assert [row["row"] for row in rows] == [0, 2, 3]
    assert others_untouched(rows, good, {1})


def test_a_shifted_row_shows_its_neighbours_pixels_under_unchanged_encoder_values() -> None:
    quiet = {"sample": "edges", "i0_ripple": 0.0, "backlash_um": 0.0, "probe_fwhm_um": None}
    good = rows_with(**quiet)
    rows = rows_with(ShiftedRow(rows=(1, 2), pixels=1), **quiet)
    assert others_untouched(rows, good, {1, 2})
    for row in (1, 2):
        assert rows[row]["fast_um"] == good[row]["fast_um"]
        iron, before = np.array(rows[row]["counts"])[0], np.array(good[row]["counts"])[0]
        # The Fe half is left of x = 0: frame k now shows what frame k + 1 should.
        assert ((iron[:-1] > 200) == (before[1:] > 200)).all()
        assert not ((iron > 200) == (before > 200)).all()


@pytest.mark.parametrize(("weight", "factor"), [(0.0, 0.75), (3.0, 1.5)])
def test_a_dead_or_hot_detector_element_scales_the_sum(
    good: list, weight: float, factor: float
) -> None:
    rows = rows_with(BadDetectorElement(rows=(3,), index=2, weight=weight))
    ratio = np.sum(rows[3]["counts"]) / np.sum(good[3]["counts"])
    assert ratio == pytest.approx(factor, rel=0.05)
    assert others_untouched(rows, good, {3})


def test_a_detector_element_that_does_not_exist_is_named() -> None:
    with pytest.raises(FailedStatus) as caught:
        rows_with(BadDetectorElement(index=7))
    assert "no detector element 7; there are 4" in str(caught.value.__cause__)
    assert isinstance(caught.value.__cause__, ConfigError)


def test_saturation_empties_its_pixels_and_their_live_time(good: list) -> None:
    rows = rows_with(Saturation(rows=(0,), first=3, last=5))
    counts, live = np.array(rows[0]["counts"]), np.array(rows[0]["live_time"])
    assert counts[:, 3:6].sum() == 0
    assert (live[3:6] == 0).all()
    assert (live[6:] > 0.009).all()
    assert counts[:, 6:].sum() > 0
    assert others_untouched(rows, good, {0})


def test_a_blind_monitor_reads_zero_while_photons_come(good: list) -> None:
    rows = rows_with(MonitorZero(rows=(1,), first=4, last=4))
    assert [k for k, value in enumerate(rows[1]["i0"]) if value == 0] == [4]
    assert rows[1]["counts"] == good[1]["counts"]


def test_a_beam_dump_takes_counts_and_i0_from_its_pixel_on_until_the_beam_is_back(
    good: list,
) -> None:
    rows = rows_with(BeamDump(row=1, pixel=6, back_at_row=3))
    i0 = np.array([row["i0"] for row in rows])
    assert (i0[1, :6] > 0).all()
    assert (i0[1, 6:] == 0).all()
    assert (i0[2] == 0).all()
    assert np.sum(rows[2]["counts"]) == 0
    assert others_untouched(rows, good, {1, 2})


def test_the_last_two_frames_of_every_row_are_rubbish(good: list) -> None:
    rows = rows_with(BadLastColumns())
    for row, other in zip(rows, good, strict=True):
        assert np.array(row["counts"])[:, -2:].sum() == 0
        np.testing.assert_array_equal(
            np.array(row["counts"])[:, :-2], np.array(other["counts"])[:, :-2]
        )


def test_a_hung_flyer_times_out_its_row(good: list) -> None:
    beamline = make_beamline(faults=HungFlyer(rows=(2,)))
    documents = Documents()
    with pytest.raises(TimeoutError):
        RunEngine({})(small_map(beamline.flyer, GRID, timeout_s=0.5), documents)
    assert [row["row"] for row in documents.rows()] == [0, 1]


def test_a_hung_flyer_completes_when_stopped_without_a_row_and_flies_it_at_the_next_attempt(
    good: list,
) -> None:
    flyer = make_beamline(faults=HungFlyer(rows=(2,))).flyer
    flyer.prepare(row_request(GRID, 2, 10.0, "m"))
    flyer.kickoff()
    status = flyer.complete()
    assert not status.done
    flyer.stop()
    status.wait(1)
    assert list(flyer.collect()) == []
    flyer.kickoff()
    flyer.complete().wait(1)
    (event,) = flyer.collect()
    assert event["data"]["xrf_attempt"] == 1
    assert event["data"]["xrf_counts"] == good[2]["counts"]


def test_a_stuck_motor_fails_the_row_and_says_where() -> None:
    beamline = make_beamline(faults=StuckMotor("fast", after_moves=3))
    documents = Documents()
    with pytest.raises(FailedStatus) as caught:
        RunEngine({})(small_map(beamline.flyer, GRID), documents)
    assert "samx" in str(caught.value.__cause__)
    assert documents.named("stop")[0]["exit_status"] == "fail"


def test_a_motor_that_hangs_is_a_timeout() -> None:
    beamline = make_beamline(faults=StuckMotor("slow", after_moves=1, mode="hang"))
    with pytest.raises(TimeoutError):
        RunEngine({})(small_map(beamline.flyer, GRID, timeout_s=0.5))


def test_a_motor_that_lies_shows_in_the_encoder() -> None:
    beamline = make_beamline(faults=StuckMotor("slow", after_moves=2, mode="silent"))
    rows = fly(beamline.flyer, GRID).rows()
    heights = [np.mean(row["slow_um"]) for row in rows]
    assert heights == pytest.approx([-1.5, -0.5, -0.5, -0.5], abs=0.02)


def test_faults_can_be_limited_to_one_map_and_one_attempt() -> None:
    beamline = make_beamline(faults=[MissingRow(rows=(0,), maps=(1,), attempts=(0,))])
    assert len(fly(beamline.flyer, GRID, map_key="a").rows()) == 4
    assert len(fly(beamline.flyer, GRID, map_key="b").rows()) == 3
    assert len(fly(beamline.flyer, GRID, map_key="c").rows()) == 4


def test_what_is_no_fault_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a fault"):
        make_beamline(faults=["short row"])
