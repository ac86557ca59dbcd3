"""The row flyer: documents, ledger, pauses, stops, and the way the stage moves."""

from __future__ import annotations

import threading
import time

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import count, scan
from bluesky.utils import RunEngineInterrupted

from support.sim_support import (
    Documents,
    fly,
    grid_of,
    messages_of,
    pause_once_in,
    pausing_at,
    row_request,
    small_map,
)
from xrf_sr_plans import schema
from xrf_sr_plans.devices.protocols import RowFlyer
from xrf_sr_plans.devices.sim import Clock, make_beamline
from xrf_sr_plans.errors import ConfigError, LimitsError

GRID = grid_of(nx=8, ny=4)


def test_a_map_is_one_valid_run_with_one_event_per_row() -> None:
    flyer = make_beamline().flyer
    assert isinstance(flyer, RowFlyer)
    documents = fly(flyer, GRID)
    assert [len(documents.named(n)) for n in ("start", "descriptor", "stop")] == [1, 1, 1]
    (descriptor,) = documents.named("descriptor")
    assert descriptor["name"] == schema.STREAM_ROWS
    assert set(descriptor["data_keys"]) == set(schema.row_keys("xrf").values())
    assert descriptor["data_keys"]["xrf_counts"]["shape"] == [5, 8]
    assert descriptor["hints"]["xrf"] == {"fields": []}
    elements = descriptor["configuration"]["xrf"]["data"][schema.elements_key("xrf")]
    assert elements == ["Si", "Mg", "K", "Fe", "Ca"]
    rows = documents.rows()
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["direction"] for row in rows] == [1, -1, 1, -1]
    assert {row["attempt"] for row in rows} == {0}


def test_every_value_in_a_document_is_a_plain_python_one() -> None:
    (row, *_) = fly(make_beamline().flyer, GRID).rows()

    def plain(value: object) -> bool:
        if isinstance(value, list):
            return all(plain(item) for item in value)
        return type(value) in (int, float)

    assert all(plain(value) for value in row.values())


def test_arrays_are_in_order_of_acquisition_and_the_encoder_says_where() -> None:
    rows = fly(make_beamline().flyer, GRID).rows()
    centres = GRID.fast.centers_um
    np.testing.assert_allclose(rows[0]["fast_um"], centres, atol=0.06)
    np.testing.assert_allclose(rows[1]["fast_um"], centres[::-1], atol=0.06)
    for k, row in enumerate(rows):
        np.testing.assert_allclose(row["slow_um"], GRID.slow.centers_um[k], atol=0.06)


def test_backlash_makes_the_zig_zag_of_a_snake_and_the_encoder_does_not_see_it() -> None:
    quiet = {"i0_ripple": 0.0, "encoder_noise_um": 0.0, "probe_fwhm_um": None, "sample": "edges"}
    grid = grid_of(nx=64, ny=2, step_um=0.25)
    edges = []
    for backlash in (0.0, 2.0):
        rows = fly(make_beamline(backlash_um=backlash, **quiet).flyer, grid).rows()
        for row in rows:
            where, iron = np.array(row["fast_um"]), np.array(row["counts"])[0]
            edges.append(where[iron > 400].max())
    tight_forth, tight_back, loose_forth, loose_back = edges
    assert tight_forth == pytest.approx(tight_back)
    assert loose_forth - tight_forth == pytest.approx(1.0)
    assert loose_back - tight_back == pytest.approx(-1.0)


def test_without_fresh_noise_the_same_row_is_the_same_row_and_another_row_is_not() -> None:
    flyer = make_beamline(seed=3, fresh_noise=False).flyer
    first, second = fly(flyer, GRID).rows(), fly(flyer, GRID, map_key="again").rows()
    assert first == second
    assert first[0]["counts"] != fly(make_beamline(seed=4).flyer, GRID).rows()[0]["counts"]
    shifted = fly(flyer, grid_of(nx=8, ny=4, y_um=0.001)).rows()
    assert shifted[0]["counts"] != first[0]["counts"]


def test_noise_differs_from_map_to_map_but_not_from_attempt_to_attempt() -> None:
    flyer = make_beamline().flyer
    first, second = fly(flyer, GRID).rows(), fly(flyer, GRID, map_key="again").rows()
    assert first[0]["counts"] != second[0]["counts"]
    paused = paused_map(make_beamline().flyer, 2).rows()
    assert [row["counts"] for row in paused] == [row["counts"] for row in first]


def test_a_whole_session_follows_from_its_seed_and_its_maps_are_independent() -> None:
    def session() -> np.ndarray:
        flyer = make_beamline(seed=5).flyer
        maps = [fly(flyer, GRID, map_key=key).rows() for key in "ab"]
        return np.array([[row["counts"] for row in rows] for rows in maps])

    once, again = session(), session()
    np.testing.assert_array_equal(once, again)
    first, second = once.astype(float)
    # The difference of two independent counts of one mean has twice the variance of either.
    spread = np.mean((first - second) ** 2 / np.maximum(first + second, 1))
    assert 0.7 < spread < 1.4


def test_step_scans_of_one_area_have_different_photons_and_see_one_beam() -> None:
    def scans(**options: object) -> np.ndarray:
        """Return (scan, pixel, i0 or photons) of two scans over the same pixels."""
        beamline = make_beamline(i0_ripple=0.2, **options)
        beamline.microscope.sample.rates_cps[:] = 1e6
        beamline.microscope._blurred[:] = 1e6
        run_engine, values = RunEngine({}), []
        # That the monitor was read alone before doesn't put the two out of step.
        run_engine(count([beamline.i0]))
        devices = [beamline.i0, beamline.detector]
        for _ in range(2):
            run_engine(
                scan(devices, beamline.fast, -3.0, 3.0, 7),
                {"event": lambda _, doc: values.append([doc["data"]["i0"], photons(doc["data"])])},
            )
        return np.array(values).reshape(2, 7, 2)

    def photons(data: dict) -> float:
        return sum(value for key, value in data.items() if key.startswith("xrfdet_"))

    first, second = scans()
    assert (first != second).all()
    for i0, counted in (first.T, second.T):
        assert np.corrcoef(i0, counted)[0, 1] > 0.95
    np.testing.assert_array_equal(scans(), [first, second])
    same, again = scans(fresh_noise=False)
    np.testing.assert_array_equal(same, again)


def test_a_drifting_sample_moves_under_the_beam_and_the_encoder_does_not_see_it() -> None:
    beamline = make_beamline(
        "edges", drift_um_per_s=(2.0, 0.0), i0_ripple=0.0, probe_fwhm_um=None, backlash_um=0.0
    )
    grid = grid_of(nx=64, ny=1, step_um=0.25)
    elapsed, edges = [], []
    for _ in range(2):
        (row,) = fly(beamline.flyer, grid).rows()
        elapsed.append(beamline.clock.elapsed_s)
        iron = np.array(row["counts"])[0] / 1000
        edges.append(-8.0 + 0.25 * iron.sum())
    assert edges[1] - edges[0] == pytest.approx(2.0 * (elapsed[1] - elapsed[0]), abs=0.2)


def paused_map(flyer: object, row: int) -> Documents:
    run_engine, documents = RunEngine({}), Documents()
    with pytest.raises(RunEngineInterrupted):
        run_engine(small_map(flyer, GRID, in_flight=pause_once_in(row)), documents)
    run_engine.resume()
    return documents


def test_a_pause_in_mid_row_flies_the_row_again_as_attempt_1_with_identical_data() -> None:
    whole = fly(make_beamline().flyer, GRID).rows()
    rows = paused_map(make_beamline().flyer, 2).rows()
    assert [(row["row"], row["attempt"]) for row in rows] == [(0, 0), (1, 0), (2, 1), (3, 0)]
    for row, expected in zip(rows, whole, strict=True):
        assert {**row, "attempt": 0} == expected


def test_a_pause_at_any_message_leaves_the_map_as_it_would_have_been() -> None:
    grid = grid_of(nx=4, ny=3)
    whole = fly(make_beamline().flyer, grid).rows()
    for index in range(2, messages_of(small_map(make_beamline().flyer, grid)) - 3):
        run_engine, documents = RunEngine({}), Documents()
        with pytest.raises(RunEngineInterrupted):
            run_engine(pausing_at(small_map(make_beamline().flyer, grid), index), documents)
        run_engine.resume()
        last = {row["row"]: {**row, "attempt": 0} for row in documents.rows()}
        assert [last[row["row"]] for row in whole] == whole


def test_a_pause_in_mid_row_in_real_time_abandons_the_row_and_flies_it_again() -> None:
    whole = fly(make_beamline().flyer, GRID).rows()
    rows = paused_map(make_beamline(clock=20.0).flyer, 1).rows()
    assert [row["attempt"] for row in rows] == [0, 1, 0, 0]
    assert [row["counts"] for row in rows] == [row["counts"] for row in whole]


@pytest.mark.parametrize("how", ["abort", "stop", "halt"])
def test_whoever_ends_a_run_in_mid_row_gets_no_half_row_and_a_still_stage(how: str) -> None:
    beamline = make_beamline(clock=5.0)
    run_engine, documents = RunEngine({}), Documents()
    with pytest.raises(RunEngineInterrupted):
        run_engine(small_map(beamline.flyer, GRID, in_flight=pause_once_in(2)), documents)
    getattr(run_engine, how)()
    assert [row["row"] for row in documents.rows()] == [0, 1]
    place = beamline.fast.position
    time.sleep(0.05)
    assert beamline.fast.position == place
    assert not beamline.fast.moving


def test_a_row_is_collected_once() -> None:
    flyer = make_beamline().flyer
    assert list(flyer.collect()) == []
    flyer.prepare(row_request(GRID, 0, 10.0, "m"))
    assert list(flyer.collect()) == []
    flyer.kickoff()
    flyer.complete()
    assert len(list(flyer.collect())) == 1
    assert list(flyer.collect()) == []


def test_attempts_are_counted_per_map_and_row_and_forgotten_by_stage() -> None:
    flyer = make_beamline().flyer

    def attempt(row: int, map_key: str) -> int:
        flyer.prepare(row_request(GRID, row, 10.0, map_key))
        flyer.kickoff()
        flyer.complete()
        (event,) = flyer.collect()
        return event["data"]["xrf_attempt"]

    assert [attempt(0, "a"), attempt(0, "a"), attempt(1, "a"), attempt(0, "b")] == [0, 1, 0, 0]
    flyer.stage()
    assert attempt(0, "a") == 0
    flyer.unstage()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slow_um": 1e9}, "samy.*row height"),
        ({"run_up_um": 500.0}, "samx.*run-up"),
        ({"dwell_ms": 0.01}, "samx.*um/s is needed"),
        ({"first_um": float("nan")}, "first_um is nan"),
    ],
)
def test_a_row_beyond_the_axes_is_refused_before_anything_moves(
    change: dict[str, float], message: str
) -> None:
    beamline = make_beamline()
    request = {**row_request(GRID, 0, 10.0, "m"), **change}
    with pytest.raises(LimitsError, match=message):
        beamline.flyer.prepare(request)
    assert beamline.clock.elapsed_s == 0


def test_a_run_up_too_short_narrows_the_first_frames_but_not_their_dwell() -> None:
    beamline = make_beamline(encoder_noise_um=0.0)
    short = fly(beamline.flyer, grid_of(nx=8, ny=1, run_up_um=0.0), dwell_ms=1.0).rows()[0]
    full = fly(beamline.flyer, grid_of(nx=8, ny=1, run_up_um=30.0), dwell_ms=1.0).rows()[0]
    lag = np.array(full["fast_um"]) - np.array(short["fast_um"])
    assert lag[0] > 0.2
    assert (np.abs(lag) < 0.5).all()
    np.testing.assert_allclose(full["fast_um"], grid_of(nx=8, ny=1).fast.centers_um, atol=1e-9)


def test_a_row_in_real_time_takes_its_time_without_blocking_and_stop_ends_it_at_once() -> None:
    beamline = make_beamline(clock="real")
    grid = grid_of(nx=100, ny=1, x_um=-40.0)
    request = row_request(grid, 0, 30.0, "m")
    beamline.flyer.prepare(request).wait(5)
    began = time.monotonic()
    beamline.flyer.kickoff().wait(1)
    status = beamline.flyer.complete()
    assert time.monotonic() - began < 0.5
    assert not status.done
    time.sleep(0.2)
    assert beamline.fast.moving
    beamline.flyer.stop()
    status.wait(1)
    assert time.monotonic() - began < 2.0
    assert not beamline.fast.moving
    assert list(beamline.flyer.collect()) == []


def test_a_sped_up_clock_shortens_the_row_by_its_factor() -> None:
    beamline = make_beamline(clock=Clock(speed=10.0))
    began = time.monotonic()
    fly(beamline.flyer, grid_of(nx=20, ny=2), dwell_ms=50.0)
    took = time.monotonic() - began
    assert 0.95 * beamline.clock.elapsed_s / 10 < took < 0.7 * beamline.clock.elapsed_s
    assert beamline.clock.elapsed_s > 2.0


def test_the_instant_clock_starts_no_thread_and_still_counts_beam_time() -> None:
    beamline = make_beamline()
    before = {t.name for t in threading.enumerate() if t.name.startswith("sim-")}
    fly(beamline.flyer, GRID)
    assert {t.name for t in threading.enumerate() if t.name.startswith("sim-")} == before
    assert beamline.clock.elapsed_s > 4 * 8 * 0.01


def test_point_detectors_work_in_any_bluesky_plan() -> None:
    import bluesky.plans as bp

    beamline = make_beamline()
    documents = Documents()
    plan = bp.grid_scan(
        [beamline.detector, beamline.i0], beamline.slow, -1, 1, 3, beamline.fast, -2, 2, 5
    )
    RunEngine({})(plan, documents)
    events = documents.named("event")
    assert len(events) == 15
    iron = [event["data"]["xrfdet_Fe"] for event in events]
    assert max(iron) > 0
    for event in events:
        x, y = event["data"]["samx_setpoint"], event["data"]["samy_setpoint"]
        rates = beamline.microscope.rates_cps(np.array([x]), np.array([x]), y)[:, 0]
        counted = np.array([event["data"][f"xrfdet_{e}"] for e in beamline.flyer.elements])
        assert counted.sum() == pytest.approx(
            rates.sum() * 0.01, abs=6 * np.sqrt(counted.sum()) + 30
        )


def test_the_shutter_takes_open_and_close_only() -> None:
    beamline = make_beamline(shutter_open=False)
    assert beamline.shutter.position == "close"
    RunEngine({})(bps.mv(beamline.shutter, "open"))
    assert beamline.microscope.shutter_open
    with pytest.raises(ConfigError, match="'open' or 'close'"):
        beamline.shutter.set("ajar")


def test_unknown_samples_clocks_and_fields_are_named() -> None:
    with pytest.raises(ConfigError, match="no sample 'cheese'"):
        make_beamline("cheese")
    with pytest.raises(ConfigError, match="clock is 'slow'"):
        make_beamline(clock="slow")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="colour unknown"):
        make_beamline(colour="red")
    assert make_beamline(reach_um=(30.0, 30.0)).reach_um == (30.0, 30.0)
