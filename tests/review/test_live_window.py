"""The window for those who want no browser."""

from __future__ import annotations

import logging
import time
import uuid
from pathlib import Path

import pytest
from bluesky import RunEngine
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.plans.fly_map import fly
from xrf_sr_plans.plans.map_run import MapRun
from xrf_sr_plans.review.feed import SurveyFeed
from xrf_sr_plans.review.live_process import LivePicture, LiveWindow


def fly_a_tile(feed: SurveyFeed) -> None:
    run_engine = RunEngine({})
    run_engine.subscribe(feed)
    grid = ScanGrid.from_center(
        x_center_um=0,
        y_center_um=0,
        width_um=12,
        height_um=12,
        step_um=2,
        fast="samx",
        slow="samy",
    )
    run_engine(
        fly(MapRun(make_beamline(), grid, 10, purpose="coarse", survey_uid=str(uuid.uuid4())))
    )
    assert feed.flush(10)


def test_it_shows_what_is_new_and_the_latest_survey(tmp_path: Path):
    figure = Figure()
    FigureCanvasAgg(figure)
    picture = LivePicture(tmp_path, figure)
    assert not picture.update()
    feed = SurveyFeed(tmp_path)
    fly_a_tile(feed)
    assert picture.update()
    assert "row 6 of 6" in figure.get_suptitle()
    assert len(figure.axes) >= 5
    assert not picture.update()
    first = figure.get_suptitle()
    fly_a_tile(feed)
    assert picture.update()
    assert figure.get_suptitle() != first
    feed.close()


@pytest.mark.e2e
def test_without_a_screen_the_session_says_so_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MPLBACKEND", "agg")
    with caplog.at_level(logging.WARNING):
        window = LiveWindow(tmp_path)
        deadline = time.monotonic() + 110
        while window.pid is not None or not caplog.messages:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    window.close()
    assert caplog.messages == ["no live window: there is no screen, or no toolkit to draw on it"]
