"""Maps over real Channel Access: an IOC in one process, a RunEngine in another."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.epics_client import DWELL_MS, GRID
from support.epics_servers import ca_environment, simulated_ioc
from xrf_sr_plans import schema
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.sample import zagami
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.grid import ScanGrid

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        not (importlib.util.find_spec("caproto") and importlib.util.find_spec("epics")),
        reason="needs the extra 'epics'",
    ),
]
CLIENT = ["-m", "support.epics_client"]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Fly everything once, in `epics_client`."""
    folder = tmp_path_factory.mktemp("epics")
    environment, results = ca_environment(), folder / "results.json"
    with simulated_ioc(folder / "ioc.log", environment, "--same-noise") as ioc:
        client = subprocess.run(
            [sys.executable, *CLIENT, str(results), str(ioc.pid)],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            timeout=90,
            env=environment,
        )
        log_of_ioc = (folder / "ioc.log").read_text(errors="replace")
        assert results.exists(), f"{client.stdout}\n{client.stderr}\n{log_of_ioc}"
        assert "Traceback" not in log_of_ioc
        yield json.loads(results.read_text())


def stop_document(flight: dict[str, Any]) -> dict[str, Any]:
    (stop,) = [document for name, document in flight["documents"] if name == "stop"]
    return stop


def ledger(flight: dict[str, Any]) -> list[tuple[int, int, int]]:
    return [(row["row"], row["attempt"], row["direction"]) for row in flight["rows"]]


def is_still(state: dict[str, Any]) -> bool:
    """Nothing moves, the detector isn't armed, and the axis has its own velocity."""
    before, after = state["places"]
    return before == after and state["busy"] == 0 and state["velocity"] == pytest.approx(0.5)


def test_a_map_over_channel_access_has_all_rows_and_ends_well(flights: dict[str, Any]) -> None:
    whole = flights["whole"]
    assert whole["error"] == ""
    assert stop_document(whole)["exit_status"] == "success"
    assert ledger(whole) == [(0, 0, 1), (1, 0, -1), (2, 0, 1), (3, 0, -1)]
    assert [row["n_frames"] for row in whole["rows"]] == [12] * 4
    assert is_still(whole["after"])


def test_a_beamline_of_a_settings_file_flies_its_devices_over_channel_access(
    flights: dict[str, Any],
) -> None:
    flown = flights["from a settings file"]
    assert flown["error"] == ""
    assert stop_document(flown)["exit_status"] == "success"
    assert ledger(flown) == ledger(flights["whole"])
    assert is_still(flown["after"])


def test_axes_in_mm_become_encoder_positions_in_um(flights: dict[str, Any]) -> None:
    for k, row in enumerate(flights["whole"]["rows"]):
        centres = GRID.fast.centers_um[:: GRID.direction(k)]
        np.testing.assert_allclose(row["fast_um"], centres, atol=0.05)
        np.testing.assert_allclose(row["slow_um"], GRID.slow.centers_um[k], atol=1e-6)


def test_the_counts_are_those_that_the_microscope_expects(flights: dict[str, Any]) -> None:
    microscope = Microscope(zagami(), probe_fwhm_um=0.5)
    half = GRID.fast.step_um / 2

    def deviation(shift_um: float) -> float:
        """Mean square deviation from the expectation, in units of Poisson noise."""
        found = []
        for row in flights["whole"]["rows"]:
            where = np.array(row["fast_um"]) + shift_um
            rates = microscope.rates_cps(where - half, where + half, row["slow_um"][0])
            i0 = np.array(row["i0"]) / microscope.i0_cps
            expected = rates * np.array(row["live_time"]) * i0
            found.append((np.array(row["counts"]) - expected) ** 2 / np.maximum(expected, 1))
        return float(np.mean(found))

    assert 0.7 < deviation(0.0) < 1.5
    assert deviation(1.0) > 2 * deviation(0.0)
    assert deviation(-1.0) > 2 * deviation(0.0)
    live = np.array([row["live_time"] for row in flights["whole"]["rows"]])
    assert ((live > 0.9 * DWELL_MS * 1e-3) & (live < DWELL_MS * 1e-3)).all()


def test_the_documents_assemble_to_a_complete_map(flights: dict[str, Any]) -> None:
    documents = flights["whole"]["documents"]
    (start,) = [document for name, document in documents if name == "start"]
    builder = MapBuilder(start)
    for name, document in documents:
        if name == "descriptor" and document["name"] == schema.STREAM_ROWS:
            builder.descriptor(document)
        elif name == "event_page":
            builder.event_page(document)
    maps = builder.maps()
    assert builder.complete
    assert list(maps.counts.coords["element"].values) == ["Si", "Mg", "K", "Fe", "Ca"]
    forth, back = flights["whole"]["rows"][:2]
    np.testing.assert_allclose(maps.counts.values[:, 0], np.array(forth["counts"]))
    np.testing.assert_allclose(maps.counts.values[:, 1], np.array(back["counts"])[:, ::-1])


def test_rows_are_read_out_in_pixels_finer_than_they_are_apart(flights: dict[str, Any]) -> None:
    """The map of `xrf_map`, 2 um apart, in pixels of 1 um, at their true places."""
    rows = flights["rows"]
    assert rows["error"] == ""
    start = next(document for name, document in rows["documents"] if name == "start")
    asked = start["xrf_sr"]
    assert (asked["sampling"], asked["step_um"], asked["dwell_ms"]) == ("rows", 2.0, DWELL_MS)
    grid = ScanGrid.from_dict(asked["grid"])
    assert (grid.fast.num, grid.fast.step_um, grid.slow.num, grid.slow.step_um) == (16, 1, 4, 2)
    assert [row["n_frames"] for row in rows["rows"]] == [16] * 4
    for k, row in enumerate(rows["rows"]):
        centres = grid.fast.centers_um[:: grid.direction(k)]
        np.testing.assert_allclose(row["fast_um"], centres, atol=0.05)
        np.testing.assert_allclose(row["slow_um"], grid.slow.centers_um[k], atol=1e-6)
        assert np.isfinite(row["counts"]).all()


@pytest.mark.parametrize(
    ("flight", "message"),
    [
        ("beyond the limits", "LimitsError: axis 'samx'.*limits allow -110..110 um"),
        ("row beyond the limits", "LimitsError: axis 'samy': row height 10000 um is outside"),
    ],
)
def test_what_the_motor_record_forbids_is_refused_before_anything_moves(
    flights: dict[str, Any], flight: str, message: str
) -> None:
    refused = flights[flight]
    assert re.match(message, refused["error"])
    assert refused["documents"] == []
    assert refused["after"]["places"] == flights["rows"]["after"]["places"]


def test_a_pause_in_mid_row_stops_the_stage_and_costs_nothing_but_that_row(
    flights: dict[str, Any],
) -> None:
    paused, whole = flights["paused"], flights["whole"]
    assert paused["error"] == ""
    assert is_still(paused["paused"])
    left_at = paused["paused"]["places"][0][0] * 1e3
    assert GRID.fast.low_um < left_at < GRID.fast.high_um
    assert ledger(paused) == [(0, 0, 1), (1, 0, -1), (2, 1, 1), (3, 0, -1)]
    for key in ("counts", "i0", "live_time", "slow_um"):
        assert [row[key] for row in paused["rows"]] == [row[key] for row in whole["rows"]]


def test_an_abort_in_mid_row_keeps_the_rows_so_far_and_leaves_the_stage_still(
    flights: dict[str, Any],
) -> None:
    aborted = flights["aborted"]
    assert stop_document(aborted)["exit_status"] == "abort"
    assert ledger(aborted) == [(0, 0, 1)]
    assert is_still(aborted["after"])
    assert aborted["after"]["places"] == aborted["paused"]["places"]


def test_a_detector_that_gets_no_triggers_is_named_and_disarmed(flights: dict[str, Any]) -> None:
    blind = flights["without triggers"]
    assert blind["error"].startswith("FlightError: xrf: rows [0, 1, 2] could not be measured")
    assert blind["rows"] == []
    lost = [document["data"] for name, document in blind["documents"] if name == "event"]
    assert [row["xrf_lost_row"] for row in lost] == [0, 1, 2]
    assert all("the detector's end of the row: not done in" in r["xrf_lost_reason"] for r in lost)
    assert is_still(blind["after"])


def test_an_ioc_that_dies_in_mid_map_fails_the_map_soon_and_keeps_its_rows(
    flights: dict[str, Any],
) -> None:
    killed = flights["killed"]
    assert "not connected" in killed["error"]
    stop = stop_document(killed)
    assert stop["exit_status"] == "fail"
    assert "not connected" in stop["reason"]
    assert ledger(killed) == [(0, 0, 1), (1, 0, -1)]
    assert killed["took_s"] < 15


def test_the_ioc_s_maps_have_photons_of_their_own_and_a_row_flown_again_has_the_same() -> None:
    detector = pytest.importorskip("xrf_sr_plans.devices.ioc").RowDetector(prefix="x:")
    first, second = ("row", 1), ("row", 2)
    flown = [detector._noise_key(row) for row in (first, second, second, first, second)]
    assert flown[1] == flown[2]
    assert len(set(flown)) == 4
    detector.microscope = Microscope(zagami(), fresh_noise=False)
    assert detector._noise_key(first) == first
