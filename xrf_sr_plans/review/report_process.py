"""``python -m xrf_sr_plans.review.report_process FOLDER``: write the report of one survey.

Pictures take seconds, so that they are drawn in a process of their own, with the lowest priority.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

from xrf_sr_plans.review.feed import FeedReader
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.review.report import write_report

logger = logging.getLogger(__name__)

NAME = "report.html"
_SETTLE_S = 5.0
"""How long nothing more must have come of a survey before its report is written."""


class ReportWriter:
    """Writes the report of a survey, in a process of its own, once nothing more comes of it.

    Calls return at once. A report that is asked for again while it is waited for is written once.
    """

    def __init__(self) -> None:
        self._timers: dict[Path, threading.Timer] = {}
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def __call__(self, home: Path) -> None:
        """Ask for the report of the survey with that folder."""
        with self._lock:
            self._wait(home)

    def close(self) -> None:
        """Begin all reports that are asked for. They are finished by themselves."""
        with self._lock:
            waiting = list(self._timers)
        for home in waiting:
            self._begin(home, at_once=True)

    def _wait(self, home: Path) -> None:
        if waiting := self._timers.pop(home, None):
            waiting.cancel()
        timer = threading.Timer(_SETTLE_S, self._begin, [home])
        timer.daemon = True
        self._timers[home] = timer
        timer.start()

    def _begin(self, home: Path, *, at_once: bool = False) -> None:
        with self._lock:
            timer = self._timers.pop(home, None)
            if timer is None:
                return
            timer.cancel()
            running = self._processes.pop(home, None)
            if running is not None and running.poll() is None and not at_once:
                # It may have begun too early. One report at a time is enough of a load.
                self._processes[home] = running
                self._wait(home)
                return
            try:
                process = subprocess.Popen(
                    [sys.executable, "-m", __spec__.name, str(home)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                logger.warning("%s: no report: %s", home, error)
                return
            self._processes[home] = process
        logger.info("the report of survey %s will be in %s", home.name[:8], home / NAME)


def main() -> None:
    """Write the report of the survey whose folder is the argument."""
    os.nice(19)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    home = Path(sys.argv[1])
    survey = GrowingSurvey()
    if survey.take(FeedReader(home).new_documents()):
        write_report(survey, home / NAME)


if __name__ == "__main__":
    main()
