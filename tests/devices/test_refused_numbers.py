"""What a beamline can't be is refused when it is described: by name, value and what is allowed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xrf_sr_plans.config import AnalysisSettings, Settings
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import RowTimeModel
from xrf_sr_plans.devices.sim import faults, make_beamline
from xrf_sr_plans.devices.sim import sample as samples
from xrf_sr_plans.devices.sim.sample import Sample
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.physics.forward import Detector
from xrf_sr_plans.queueing.rescan_queue import RescanQueue
from xrf_sr_plans.ranges import Range
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.jsonl import JsonlWriter

NAN, INF = math.nan, math.inf
NO_BOXES = [5, (1, 2), "abcd", ((0, 1), (0, 1), (0, 1)), ((0, 1), (0, "1"))]
NO_PAIRS = [0.02, (1,), (1, 2, 3), "ab", (NAN, 0), (INF, 0), None]
MALFORMED: dict[str, list[Any]] = {
    "flux_ph_s": [0, -1, NAN, INF, "1e9", True],
    "probe_fwhm_um": [-1, NAN, INF, "x", 1e300],
    "safe_box_um": [*NO_BOXES, ((1, 0), (0, 1)), ((NAN, 0), (0, 1)), ((-INF, INF), (0, 1))],
    "reach_um": [*(pair for pair in NO_PAIRS if pair is not None), (0, 5), (-1, 5)],
    "max_rate_hz": [0, -1, NAN, INF, "x"],
    "max_points": [0, -1, NAN, 1.5, 10**400],
    "max_velocity_um_s": [0, -1, NAN, INF],
    "run_up_um": [-1, NAN, INF],
    "time_model": [5, None],
    "name": [5],
    "drift_um_per_s": NO_PAIRS,
    "position_um": NO_PAIRS,
    "limits_um": NO_BOXES,
    "axis_names": ["samx", ("x",), ("x", "x"), 5],
    "seed": [-1, 1.5, "x", NAN],
    "i0_ripple": [-1, NAN, INF],
    "backlash_um": [-1, NAN],
    "encoder_noise_um": [-1, NAN, INF],
    "acceleration_s": [0, -1, NAN, INF],
}


def said(call: Callable[[], Any]) -> str:
    """Return what a call is refused with."""
    with pytest.raises(ConfigError) as refused:
        call()
    return str(refused.value)


@pytest.mark.parametrize("name", MALFORMED)
def test_a_beamline_is_refused_at_once_where_a_value_makes_no_sense(name):
    for value in MALFORMED[name]:
        words = said(lambda wrong=value: make_beamline(**{name: wrong}))
        assert f"{name} is {value!r:.80}" in words
        assert "it must be" in words


def test_all_that_is_wrong_with_a_beamline_is_told_at_once():
    words = said(lambda: make_beamline(flux_ph_s=0, max_points=0, safe_box_um=5))
    assert words.startswith("beamline 'sim': ")
    for name in ("flux_ph_s is 0", "max_points is 0", "safe_box_um is 5"):
        assert name in words


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("fast", "no name, no set"),
        ("flyer", "no name, no elements, no prepare, no collect"),
        ("shutter", "no set"),
        ("analysis", "no trigger"),
        ("rescan_queue", "no name, no set, no read"),
    ],
)
def test_what_is_no_device_is_refused_where_the_beamline_is_described(name, lacks):
    words = said(lambda: dataclasses.replace(make_beamline(), **{name: 5}))
    assert f"{name} is 5" in words
    assert lacks in words
    if name not in ("fast", "flyer"):
        assert getattr(dataclasses.replace(make_beamline(), **{name: None}), name) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("overhead_s", [-1, NAN, INF]),
        ("dwell_scale", [0, -1, NAN]),
        ("patience", [-1, NAN, INF]),
        ("grace_s", [-1, NAN, INF]),
    ],
)
def test_a_time_model_takes_only_times(name, values):
    for value in values:
        words = said(lambda wrong=value: RowTimeModel(**{name: wrong}))
        assert f"{name} is {value!r}; it must be" in words


@pytest.mark.parametrize("psf", [np.zeros((3, 3)), np.ones(3), np.full((3, 3), NAN), 5, "x"])
def test_a_probe_that_is_no_image_is_refused(psf):
    assert "psf" in said(lambda: make_beamline(psf=psf))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rates_cps", np.full((5, 8, 8), NAN)),
        ("rates_cps", np.full((5, 8, 8), -1.0)),
        ("rates_cps", np.zeros((5, 8, 0))),
        ("rates_cps", np.full((5, 8, 8), "a")),
        ("pixel_um", NAN),
        ("pixel_um", INF),
        ("pixel_um", 0),
        ("pixel_um", "a"),
        ("x_low_um", NAN),
        ("y_low_um", INF),
    ],
)
def test_a_sample_of_what_no_sample_has_is_refused(name, value):
    words = said(lambda: dataclasses.replace(samples.zagami(), **{name: value}))
    assert words.startswith("sample 'zagami': ")
    assert name in words


@pytest.mark.parametrize(
    "make",
    [
        lambda: samples.zagami(pixel_um=0),
        lambda: samples.zagami(counts_p99=NAN),
        lambda: samples.cells(shape=5),
        lambda: samples.cells(shape=(0, 5)),
        lambda: samples.cells(seed=-1),
        lambda: samples.edges(shape=(10,)),
        lambda: Sample.centered(np.zeros((1, 4, 4)), ("Fe",), 1.0, counts_p99=5, name="dark"),
        lambda: make_beamline(5),  # type: ignore[arg-type]
        lambda: make_beamline(["zagami"]),  # type: ignore[arg-type]
        lambda: make_beamline(clock=True),
        lambda: make_beamline(clock="fast"),
        lambda: make_beamline(clock=NAN),
        lambda: make_beamline(clock="-1"),
        lambda: make_beamline(faults=5),  # type: ignore[arg-type]
        lambda: Detector(n_elements=0),
        lambda: Detector(dead_time_us=NAN),
        lambda: Detector(saturation_cps=0),
        lambda: AnalysisDevice(timeout_s=NAN),
        lambda: BackgroundSink(print, name="nowhere", limit=0),
        lambda: RescanQueue(timeout_s=INF),
        lambda: RescanQueue(position="middle"),  # type: ignore[arg-type]
        lambda: faults.StuckMotor("fasst"),  # type: ignore[arg-type]
        lambda: faults.StuckMotor("fast", mode="boom"),  # type: ignore[arg-type]
        lambda: faults.StuckMotor("fast", after_moves=-1),
        lambda: faults.BadLastColumns(columns=-1),
        lambda: faults.BadLastColumns(value=NAN),
        lambda: faults.Saturation(gain=INF),
        lambda: faults.BeamDump(row=-1),
        lambda: faults.HungFlyer(attempts=5),  # type: ignore[arg-type]
    ],
)
def test_what_is_simulated_is_refused_in_words(make):
    assert len(said(make)) > 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("hang_timeout_s", "nan"), ("hang_timeout_s", "inf"), ("memory_limit_mb", "1e300"),
     ("max_restarts", "-1"), ("threads", "1000000000"), ("nice", "20")],
)  # fmt: skip
def test_a_setting_is_refused_wherever_it_comes_from(tmp_path, name, value):
    file = tmp_path / "settings.toml"
    file.write_text(f"[analysis]\n{name} = {value}\n")
    for load in (
        lambda: Settings.load(environment={f"XRF_SR_{name.upper()}": value}),
        lambda: Settings.load(file, environment={}),
        lambda: Settings.load(environment={}, analysis={name: value}),
    ):
        assert name in said(load)


def test_a_variable_that_is_set_to_nothing_is_not_set():
    settings = Settings.load(environment={"XRF_SR_MODEL": "", "XRF_SR_THREADS": ""})
    assert settings.analysis == AnalysisSettings()


@pytest.mark.parametrize("name", ["pair_dir", "result_dir", "ledger_dir", "log_file"])
def test_a_session_is_refused_where_its_results_would_have_no_place(tmp_path: Path, name):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    settings = AnalysisSettings(**{name: str(taken / "below")})
    words = said(lambda: start_session(None, make_beamline(), settings=settings, in_process=True))
    assert name in words
    assert f"{taken} is a file, where a folder is needed" in words
    assert taken.read_text() == "a file"


def test_a_writer_without_a_place_is_refused_before_its_first_document(tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert "is a file" in said(lambda: JsonlWriter(taken))
    JsonlWriter(tmp_path / "not" / "yet")
    assert not (tmp_path / "not").exists()


def test_ranges_say_what_they_take():
    assert str(Range(1, 100, whole=True)) == "a whole number from 1 to 100"
    assert str(Range(0.0, above=True)) == "a finite number above 0"
    assert str(Range(0.0)) == "a finite number, 0 or more"
    assert str(Range(0.0, 5.0, above=True)) == "a finite number above 0 and at most 5"
    for value in (np.float32(3), np.int64(3), 3):
        assert value in Range(0.0)
    for value in (True, NAN, INF, "3", None, [3], 3j):
        assert value not in Range(0.0)
