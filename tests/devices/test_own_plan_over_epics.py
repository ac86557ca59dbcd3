"""Maps that scan records fly over real Channel Access, and that come back from their MDA files."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np
import pytest

from support.epics_servers import ca_environment, simulated_ioc
from support.scan_record_client import DWELL_MS, GRID
from xrf_sr_plans import schema
from xrf_sr_plans.devices.sim.microscope import Microscope
from xrf_sr_plans.devices.sim.sample import zagami
from xrf_sr_plans.maps.assemble import MapBuilder

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (importlib.util.find_spec("caproto") and importlib.util.find_spec("epics")),
        reason="needs the extra 'epics'",
    ),
]
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Fly everything once, in `scan_record_client`."""
    folder = tmp_path_factory.mktemp("scan_records")
    (folder / "scans").mkdir()
    environment, results = ca_environment(), folder / "results.json"
    path = os.pathsep.join([str(TESTS), environment.get("PYTHONPATH", "")])
    with simulated_ioc(folder / "ioc.log", environment, "--scan-folder", str(folder / "scans")):
        client = subprocess.run(
            [sys.executable, "-m", "support.scan_record_client", str(results)],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=580,
            env={**environment, "PYTHONPATH": path},
        )
        log_of_ioc = (folder / "ioc.log").read_text(errors="replace")
        assert results.exists(), f"{client.stdout}\n{client.stderr}\n{log_of_ioc}"
        assert "Traceback" not in log_of_ioc
        yield json.loads(results.read_text())


def of(flight: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [document for kind, document in flight["documents"] if kind == name]


def events(flight: dict[str, Any], stream: str) -> list[dict[str, Any]]:
    """Return the data of all events of a stream, in order."""
    streams = {document["uid"]: document["name"] for document in of(flight, "descriptor")}
    pages = [
        event for page in of(flight, "event_page") for event in event_model.unpack_event_page(page)
    ]
    return [
        event["data"]
        for event in [*pages, *of(flight, "event")]
        if streams[event["descriptor"]] == stream
    ]


def map_of(flight: dict[str, Any], start: dict[str, Any]) -> MapBuilder:
    """Return the map of one run of a flight, assembled."""
    builder = MapBuilder(start)
    rows = set()
    for document in of(flight, "descriptor"):
        if document["run_start"] == start["uid"] and document["name"] == schema.STREAM_ROWS:
            builder.descriptor(document)
            rows.add(document["uid"])
    for page in of(flight, "event_page"):
        if page["descriptor"] in rows:
            builder.event_page(page)
    return builder


def deviation(maps: Any, shift_um: float = 0.0, dwell_ms: float = DWELL_MS) -> float:
    """Return the mean square deviation from the expectation, in units of Poisson noise."""
    microscope = Microscope(zagami(), probe_fwhm_um=0.5)
    half = maps.grid.fast.step_um / 2
    x_um, found = maps.counts["x"].values + shift_um, []
    for k, y_um in enumerate(maps.counts["y"].values):
        rates = microscope.rates_cps(x_um - half, x_um + half, y_um)
        expected = rates * dwell_ms * 1e-3
        found.append((maps.counts.values[:, k] - expected) ** 2 / np.maximum(expected, 1))
    return float(np.mean(found))


def test_a_map_of_the_scan_records_is_complete_and_every_pixel_is_in_its_place(flights) -> None:
    whole = flights["whole"]
    assert whole["error"] == ""
    (start,), (stop,) = of(whole, "start"), of(whole, "stop")
    assert stop["exit_status"] == "success"
    builder = map_of(whole, start)
    assert builder.complete
    maps = builder.maps()
    assert list(maps.counts["element"].values) == ["Si", "Mg", "K", "Fe", "Ca"]
    assert maps.counts.shape == (5, GRID.slow.num, GRID.fast.num)
    np.testing.assert_allclose(maps.counts["x"], GRID.fast.centers_um)
    # Dead time and the ripple of the beam are not in the file, so it isn't 1.
    assert deviation(maps) < 5
    assert deviation(maps, 1.0) > 1.5 * deviation(maps)
    assert deviation(maps, -1.0) > 1.5 * deviation(maps)


def test_the_run_names_the_mda_file(flights) -> None:
    (source,) = events(flights["whole"], schema.STREAM_SCAN_FILE)
    assert Path(source["xrf_file_path"]).name == "xrfsim_0001.mda"
    assert source["xrf_file_reader"] == "mda"


def test_a_pause_aborts_the_scan_records_and_the_map_is_flown_anew(flights) -> None:
    paused = flights["paused"]
    assert paused["error"] == ""
    assert paused["paused"]["busy"] == 0
    assert paused["paused"]["message"] == "Scan aborted"
    assert paused["paused"]["velocity"] == pytest.approx(0.5)
    builder = map_of(paused, of(paused, "start")[0])
    assert builder.complete
    assert deviation(builder.maps()) < 5
    (source,) = events(paused, schema.STREAM_SCAN_FILE)
    assert Path(source["xrf_file_path"]).name == "xrfsim_0003.mda"


def test_a_scan_that_somebody_aborts_keeps_its_rows_and_names_those_that_are_missing(
    flights,
) -> None:
    aborted = flights["aborted by somebody"]
    (stop,) = of(aborted, "stop")
    rows = [row["xrf_row"] for row in events(aborted, schema.STREAM_ROWS)]
    lost = [row["xrf_lost_row"] for row in events(aborted, schema.STREAM_LOST_ROWS)]
    assert sorted([*rows, *lost]) == [0, 1, 2, 3]
    assert rows[:2] == [0, 1]
    assert lost
    assert stop["exit_status"] == ("success" if len(lost) < 3 else "fail")


def test_a_survey_by_scan_records_is_enhanced_and_rescans_what_it_finds(flights) -> None:
    survey = flights["survey"]
    assert survey["error"] == ""
    starts = of(survey, "start")
    coarse = [one for one in starts if one.get("xrf_sr", {}).get("purpose") == "coarse"]
    fine = [one for one in starts if one.get("xrf_sr", {}).get("purpose") == "fine"]
    assert len(coarse) == 1
    assert survey["regions"] == ["rescanned"]
    assert survey["analyses"] in (["done"], ["fallback"])
    assert fine
    # In rows: the records take a step along a row that isn't the one between rows.
    assert coarse[0]["xrf_sr"]["sampling"] == "rows"
    for start in [*coarse, *fine]:
        builder = map_of(survey, start)
        assert builder.complete
        assert deviation(builder.maps(), dwell_ms=start["xrf_sr"]["dwell_ms"]) < 10
    (grid,) = [one["xrf_sr"]["grid"] for one in coarse]
    assert grid["fast"]["step_um"] < grid["slow"]["step_um"]
