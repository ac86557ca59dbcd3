"""`Watching`: what lets people watch the surveys of a session, and reports them afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xrf_sr_plans.config import PageSettings, QueueSettings
from xrf_sr_plans.page.process import PageProcess
from xrf_sr_plans.review.feed import SurveyFeed, default_feed_dir
from xrf_sr_plans.review.live_process import LiveWindow
from xrf_sr_plans.review.report_process import ReportWriter


class Watching:
    """The files of surveys, their reports, and the page and the window if they are wanted.

    It is a document sink for the RunEngine and for the analysis.

    Parameters
    ----------
    settings
        What is wanted.
    approvals
        Folder of the approvals; None: the default one.
    queue
        The queue server that the page sends regions to; None: the one on this computer.

    Raises
    ------
    ConfigError
        The folder can't be written to.
    """

    wants_preview = True
    takes_arrays = True

    def __init__(
        self,
        settings: PageSettings,
        approvals: str | Path | None = None,
        queue: QueueSettings | None = None,
    ) -> None:
        folder = settings.surveys or default_feed_dir()
        self.reports = ReportWriter()
        self.feed = SurveyFeed(folder, ended=self.reports)
        self.page: PageProcess | None = None
        self.live: LiveWindow | None = None
        if settings.serve:
            self.page = PageProcess(
                folder, approvals=approvals, host=settings.host, port=settings.port, queue=queue
            )
        if settings.live:
            self.live = LiveWindow(folder)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of any run; microseconds, never raises, never blocks."""
        self.feed(name, doc)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what is waiting, begin the reports that are due, and end page and window."""
        self.feed.close(timeout_s)
        self.reports.close()
        if self.page is not None:
            self.page.close()
        if self.live is not None:
            self.live.close()
