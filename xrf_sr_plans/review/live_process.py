"""``python -m xrf_sr_plans.review.live_process FOLDER``: a window with the survey that is flown.

It is for those who want no browser. It draws with matplotlib in a process of its own, so that
neither the RunEngine nor its windows are disturbed. It closes with the session.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from xrf_sr_plans.review.feed import FeedReader
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.review.report import view_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

_POLL_S = 0.5
_NO_SCREEN = 3
"""Exit status where no window can be opened."""


class LiveWindow:
    """Open a window with the latest survey of a folder, in a process of its own.

    Where there is no screen it says so once, and nothing else happens.

    Parameters
    ----------
    folder
        Folder of the surveys.
    """

    def __init__(self, folder: str | Path) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closing = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "xrf_sr_plans.review.live_process", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the prompt is not for the window
            )
        except OSError as error:
            logger.warning("no live window: %s", error)
            return
        threading.Thread(target=self._watch, name="xrf-sr-live", daemon=True).start()

    @property
    def pid(self) -> int | None:
        """Process id of the window; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def close(self, timeout_s: float = 3.0) -> None:
        """Close the window."""
        if self._process is None:
            return
        self._closing = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _watch(self) -> None:
        assert self._process is not None
        status = self._process.wait()
        if status == _NO_SCREEN:
            logger.warning("no live window: there is no screen, or no toolkit to draw on it")
        elif status and not self._closing:
            logger.warning("the live window ended with status %d", status)


class LivePicture:
    """Keeps a figure up to date with the latest survey of a folder.

    Parameters
    ----------
    folder
        Folder of the surveys.
    figure
        What is drawn into.
    """

    def __init__(self, folder: str | Path, figure: Figure) -> None:
        self._folder = Path(folder)
        self._figure = figure
        self._home: Path | None = None
        self._began = time.time()
        self._reader: FeedReader | None = None
        self._survey = GrowingSurvey()

    def update(self) -> bool:
        """Draw what is new, and return whether there was anything."""
        latest = self._latest()
        if latest is None:
            return False
        if latest != self._home:
            self._home, self._reader = latest, FeedReader(latest)
            self._survey = GrowingSurvey()
        assert self._reader is not None
        if not self._survey.take(self._reader.new_documents()):
            return False
        record = self._survey.record
        if not record.coarse:
            return False
        from xrf_sr_plans.review.picture import draw_into

        progress = self._survey.progress()
        rows = f"row {progress.rows} of {progress.of_rows}"
        notes = [str(verdict) for verdict in record.verdicts]
        view = view_of(record, f"survey {latest.name[:8]}, {rows}", notes)
        draw_into(self._figure, view, resize=False)
        return True

    def _latest(self) -> Path | None:
        """Return the survey that something was written of last, since the window was opened."""
        changed = [
            (path.stat().st_mtime, path.parent)
            for path in self._folder.glob("*/documents-*.frames")
        ]
        since = [one for one in changed if one[0] >= self._began - 1.0]
        return max(since)[1] if since else None


def show(folder: Path, is_over: Callable[[], bool]) -> int:
    """Keep a window open until somebody closes it or `is_over`, and return the exit status."""
    import matplotlib.pyplot as plt

    try:
        figure = plt.figure(num="XRF survey", figsize=(14, 9), layout="constrained")
    except Exception:  # toolkits raise their own errors where there is no screen
        logger.exception("no window")
        return _NO_SCREEN
    if not getattr(figure.canvas, "required_interactive_framework", None):
        return _NO_SCREEN
    figure.text(0.5, 0.5, "waiting for a survey", ha="center")
    picture = LivePicture(folder, figure)
    plt.show(block=False)
    while plt.fignum_exists(figure.number) and not is_over():
        if picture.update():
            figure.canvas.draw_idle()
        figure.canvas.start_event_loop(_POLL_S)
    return 0


def main() -> None:
    """Show the surveys of the folder that is the argument, until the session ends."""
    os.nice(10)
    over = threading.Event()

    def wait() -> None:
        # Not by `sys.stdin`: at the end of the process Python waits for its lock, and aborts.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    raise SystemExit(show(Path(sys.argv[1]), over.is_set))


if __name__ == "__main__":
    main()
