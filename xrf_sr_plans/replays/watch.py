"""`watch_folder`: enhance the files of a folder as somebody finishes them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import ConfigError, FileBusyError, MissingExtraError, XrfSrError, in_words
from xrf_sr_plans.ranges import Range, check
from xrf_sr_plans.replays.batch import journal_in
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.settling import Settling
from xrf_sr_plans.replays.task import UnitReport, replay_unit
from xrf_sr_plans.replays.units import Unit, as_units, why_left_alone
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.store.run_file import left_alone
from xrf_sr_plans.store.sources import Place, StoredRun, places, runs, survey_of

logger = logging.getLogger(__name__)

_SETTLE_S = Range(0.1, 3600.0)
_TAIL_BYTES = 2**16


class _NotYet(Exception):
    """A file is being written, as far as one can tell."""


def watch_folder(
    folder: str | Path,
    out: str | Path,
    options: ReplayOptions | None = None,
    *,
    settle_s: float = 3.0,
    tries: int = 5,
    poll: bool = False,
    stop: threading.Event | None = None,
    told: Callable[[UnitReport], None] = lambda _: None,
) -> dict[str, str]:
    """Enhance every file of a folder once it is finished, those that are there already included.

    A file counts as finished when its size and its time haven't changed for `settle_s` and it can
    be read: files of documents end with a stop document and nobody holds their lock. One that
    can't be read is tried again later. Of a survey each map is enhanced when its run is over, and
    its maps are put together when its outcomes are there.

    Parameters
    ----------
    folder
        The folder; folders in it count as well.
    out
        Folder of the results, which may be inside.
    options
        What is asked of the files; None: what they asked themselves.
    settle_s
        Seconds without a change.
    tries
        How often a file that can't be read is tried.
    poll
        Whether to look at the folder all the time, as the system tells of no changes where another
        computer makes them (NFS).
    stop
        Ends the watch; None: only an exception does, such as KeyboardInterrupt.
    told
        Called with the report of each file.

    Returns
    -------
    dict of str to str
        What failed, and why.

    Raises
    ------
    ConfigError
        `folder` is no folder, `out` can't be written to, `settle_s` is not allowed, or there is
        no such reader.
    MissingExtraError
        watchfiles is not installed, which `poll` doesn't need.
    """
    folder, out = Path(folder), Path(out)
    missing = "" if folder.is_dir() else f"{folder} is no folder"
    check("watch", missing, folder_flaw("out", out), _SETTLE_S.flaw("settle_s", settle_s))
    options = options or ReplayOptions()
    options.check()
    out.mkdir(parents=True, exist_ok=True)
    watch = _Watch(folder, out, options, Settling(settle_s, tries), told)
    for _ in _wake_ups(folder, settle_s, poll, stop or threading.Event()):
        watch.look(time.monotonic())
    return watch.failures


def _wake_ups(folder: Path, settle_s: float, poll: bool, stop: threading.Event) -> Iterator[None]:
    """Yield whenever the folder should be looked at, until `stop` is set."""
    if poll:
        while not stop.is_set():
            yield
            stop.wait(settle_s)
        return
    try:
        from watchfiles import watch
    except ImportError as error:
        raise MissingExtraError("watching a folder without --poll", "watch") from error
    yield
    # Also without a change: a file is finished when nothing has changed for a while.
    timeout_ms = max(int(settle_s * 500), 50)
    for _ in watch(
        folder, stop_event=stop, rust_timeout=timeout_ms, yield_on_timeout=True, debounce=200
    ):
        yield


class _Watch:
    """The files of a folder, and what became of them."""

    def __init__(
        self,
        folder: Path,
        out: Path,
        options: ReplayOptions,
        settling: Settling,
        told: Callable[[UnitReport], None],
    ) -> None:
        self.failures: dict[str, str] = {}
        self._folder, self._out, self._options, self._told = folder, out, options, told
        self._settling = settling
        self._journal = journal_in(out, options)

    def look(self, now: float) -> None:
        """Read the files that are finished now."""
        there = dict(self._files())
        for path in self._settling.update({path: state for path, (_, state) in there.items()}, now):
            self._take(path, there[path][0])

    def _files(self) -> Iterator[tuple[Path, tuple[Place, tuple[int, int]]]]:
        try:
            found = list(places(self._folder, without=self._out))
        except (OSError, ConfigError) as error:
            # A file server may be away for a while.
            logger.warning("%s can't be looked at: %s", self._folder, in_words(error))
            return
        for place in found:
            path = Path(place.where)
            try:
                stat = path.stat()
            except OSError:
                continue
            yield path, (place, (stat.st_size, stat.st_mtime_ns))

    def _take(self, path: Path, place: Place) -> None:
        version: str | None = None
        try:
            unit = self._unit(path, place)
            if unit is None or self._journal.done(unit) is not None:
                self._settling.read(path)
                return
            version = unit.version
            report = replay_unit(unit, self._options, str(self._out.absolute()))
        except _NotYet as reason:
            logger.info("%s is not finished: %s", path, reason)
            return
        except (XrfSrError, OSError) as error:
            report, version = UnitReport(str(path), error=in_words(error)), None
        if report.error and not self._settling.unreadable(path):
            logger.info("%s is tried again: %s", path, report.error)
            return
        if not report.error:
            self._settling.read(path)
        self._conclude(report, version)

    def _conclude(self, report: UnitReport, version: str | None) -> None:
        if report.failures:
            self.failures[report.key] = "; ".join(report.failures)
        else:
            self.failures.pop(report.key, None)
        if version is not None:
            self._journal.add(version, report)
        self._told(report)

    def _unit(self, path: Path, place: Place) -> Unit | None:
        """Return what is to be replayed now that a file is finished, or None."""
        if place.kind == "lines":
            _check_finished(path)
        (run,) = runs(place)
        if kind_of_run(run.start) == "outcomes":
            return self._survey(run)
        if why_left_alone(run, self._options):
            return None
        (unit,) = as_units([run], self._options, surveys=False) or (None,)
        return unit

    def _survey(self, outcomes: StoredRun) -> Unit | None:
        survey = survey_of(outcomes.start)
        members = []
        for place in places(self._folder, without=self._out):
            if place.kind != "lines":
                continue
            try:
                members += [run for run in runs(place) if survey_of(run.start) == survey]
            except XrfSrError as error:
                logger.info("%s: %s", place.label, in_words(error))
        taken = [run for run in members if not why_left_alone(run, self._options)]
        return next(iter(as_units(taken, self._options)), None)


def _check_finished(path: Path) -> None:
    """Refuse a file of documents that somebody writes, or that has no stop document yet."""
    try:
        with left_alone(path):
            pass
    except FileBusyError as error:
        raise _NotYet(in_words(error)) from error
    except OSError:
        # It may be readable only, so that it can't be locked.
        pass
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - _TAIL_BYTES, 0))
        last = file.read().rstrip(b" \t\r\n],").rsplit(b"\n", 1)[-1]
    if b'"stop"' not in last:
        raise _NotYet("it has no stop document")
