"""`fly_watched`: a survey on the simulated beamline that is watched and approved in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bluesky import RunEngine

from xrf_sr_plans.config import PageSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import MissingExtraError
from xrf_sr_plans.review.report_process import NAME
from xrf_sr_plans.session import start_session

_SURVEY = {
    "x_center_um": 0,
    "y_center_um": 0,
    "width_um": 80,
    "height_um": 30,
    "step_um": 2,
    "dwell_ms": 10,
    "find": "K",
    "factor": 4,
    "max_regions": 6,
    "rescan": "ask",
    "preview_every_rows": 4,
}
_OPEN_S = 60.0


def fly_watched(
    out: Path | str, *, port: int, tell: Callable[[str], None], wait: Callable[[], None]
) -> Path:
    """Fly a survey that asks on the page which of its regions to map, and map those.

    Parameters
    ----------
    out
        Folder of the survey's files.
    port
        Port of the page; 0: any that is free.
    tell
        Called with what the user should know.
    wait
        Called when the survey is over; the page is open until it returns.

    Returns
    -------
    pathlib.Path
        Where the report of the survey is being written.

    Raises
    ------
    MissingExtraError
        The page can't be served.
    """
    out = Path(out)
    page = PageSettings(surveys=str(out / "surveys"), serve=True, port=port)
    run_engine, approvals = RunEngine({}), str(out / "approvals")
    with start_session(run_engine, make_beamline(), approvals=approvals, page=page) as session:
        assert session.watching is not None
        assert session.watching.page is not None
        address = session.watching.page.wait_until_open(_OPEN_S)
        if not address:
            raise MissingExtraError("the page of the demo", "page")
        tell(f"Open {address} in a browser, and say there which regions to map.")
        run_engine(session.plans["coarse_survey_with_sr"](**_SURVEY), sample="Zagami meteorite")
        session.link.flush(60.0)
        session.watching.feed.flush(10.0)
        wait()
        return session.watching.feed.latest / NAME
