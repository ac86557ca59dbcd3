"""Maps that a beamline's own plan flies, in the same documents as rows that we fly."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator, NoReplayAllowed, ensure_generator
from event_model import DataKey, PartialEvent
from ophyd.status import Status

from xrf_sr_plans.devices.file_rows import FileRows, rows_of_file
from xrf_sr_plans.devices.foreign_messages import watched
from xrf_sr_plans.devices.jobs import Job
from xrf_sr_plans.devices.map_protocols import WholeMapRequest
from xrf_sr_plans.devices.protocols import RowRequest
from xrf_sr_plans.devices.row_device import RowDevice
from xrf_sr_plans.devices.rows import describe_row, row_event
from xrf_sr_plans.devices.scan_file import ScanFile, Settling, Stamp, value_of
from xrf_sr_plans.errors import (
    ConfigError,
    FileFormatError,
    FlightError,
    XrfSrError,
    in_our_words,
    in_words,
)
from xrf_sr_plans.maps.files import MapsFile, ReadOptions
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.readers import read_map
from xrf_sr_plans.measurement import doubled_names
from xrf_sr_plans.ranges import ABOVE_ZERO, Range, check

logger = logging.getLogger(__name__)

ScanPlan = Callable[[ScanGrid, float], MsgGenerator[Any]]
"""Somebody's plan for a whole map: takes the pixels, in um of the axes, and the dwell in ms."""

_POLL_S = 0.1
_PARTLY = 10
"""How many times as long a file has to be unchanged that lacks rows, before no more are due."""

_READING_S = 120.0
"""Longest time that reading one file takes, be it large and far away."""
_COLUMNS = Range(0, 1000, whole=True)


class OwnPlanFlyer(RowDevice):
    """A flyer whose maps are flown by a plan that isn't ours, and read from the file it leaves.

    The plan opens no run: its scan records, or whatever it drives, write files. Our run is open
    around it, and the shutter too. When the plan is done, `complete` waits in a thread until the
    file is written and has the rows; they are then emitted like those of any other flyer.

    A pause ends the plan, through its own clean-up, and the map is flown anew when the RunEngine
    is resumed. A deferred pause waits for the end of the map.

    Parameters
    ----------
    scan
        The plan. It gets the pixels (`ScanGrid`, in um) and the dwell in ms, moves there and
        returns when the scan has ended.
    file
        Which file the scan leaves behind.
    name
        Prefix of the event keys.
    elements
        Name of the channel in the file, by element; or the names of elements that are those of
        channels.
    reader
        Name of the reader of such files (``--reader``), or a function that takes the path and
        returns the maps. None: the first reader that matches.
    options
        What the reader should know that the file doesn't say.
    units
        Unit of the file's values, where it doesn't say it.
    stop
        Aborts the scan, such as ``lambda: abort_scans.put(1)``. It is called from the RunEngine
        and must not wait. None: all that the plan sets in motion are devices which the RunEngine
        stops.
    busy
        A signal or a function that is true while the scan goes on. It is waited for before and
        after each scan.
    bad_columns
        How many columns at the low and at the high end of the fast axis of the file say nothing.
        A scan that flies as many more columns than it is asked for loses nothing by them.
    fast
        Which axis of the file is the fast axis of the beamline.
    squares_only
        Whether the plan takes the same step along both axes only.
    timeout_s
        Longest wait for a scan that is still busy, and for the file, in s.

    Raises
    ------
    ConfigError
        There is no element or one twice, something that is to be called can't be, or a number is
        outside its range.
    """

    def __init__(
        self,
        scan: ScanPlan,
        file: ScanFile,
        *,
        name: str,
        elements: Mapping[str, str] | Sequence[str],
        reader: str | Callable[[Path], MapsFile] | None = None,
        options: ReadOptions | None = None,
        units: str | None = None,
        stop: Callable[[], object] | None = None,
        busy: Any = None,
        bad_columns: tuple[int, int] = (0, 0),
        fast: Literal["x", "y"] = "x",
        squares_only: bool = False,
        timeout_s: float = 120.0,
        **kwargs: Any,
    ) -> None:
        channels = (
            dict(elements) if isinstance(elements, Mapping) else {one: one for one in elements}
        )
        can_ask = busy is None or callable(busy) or hasattr(busy, "get")
        check(
            f"flyer {name!r}",
            "" if callable(scan) else f"scan is {scan!r:.80}; it must be a function",
            "" if isinstance(file, ScanFile) else f"file is {file!r:.80}; it must be a ScanFile",
            "" if channels else "elements names no element",
            "" if isinstance(elements, Mapping) else doubled_names(elements),
            "" if stop is None or callable(stop) else f"stop is {stop!r:.80}; not a function",
            "" if can_ask else f"busy is {busy!r:.80}; it must be a signal or a function",
            "" if fast in ("x", "y") else f"fast is {fast!r:.80}; it must be 'x' or 'y'",
            _COLUMNS.pair_flaw("bad_columns", bad_columns),
            ABOVE_ZERO.flaw("timeout_s", timeout_s),
        )
        super().__init__(name=name, elements=list(channels), **kwargs)
        self.file = file
        self.patience_s = 2 * timeout_s + file.settle_s + _READING_S
        self.squares_only = squares_only
        self._scan, self._stop_scan, self._busy = scan, stop, busy
        self._channels = channels
        self._reader = reader
        self._options, self._units = options, units
        self._bad_columns = (int(bad_columns[0]), int(bad_columns[1]))
        self._fast: Literal["x", "y"] = fast
        self._timeout_s = timeout_s
        self._request: WholeMapRequest | None = None
        self._before: dict[Path, Stamp] = {}
        self._rows: FileRows | None = None
        self._uncollected = False
        self._read_from: tuple[str, str] = ("", "")
        # Whether our plan is between prepare and complete, whether the scan may be going on, and
        # whether it was stopped.
        self._in_scan = self._may_run = self._stopped = False
        self._job: Job | None = None

    def stage(self) -> list[Any]:
        """Forget all attempts."""
        staged = super().stage()
        self._request, self._rows, self._uncollected = None, None, False
        self._in_scan = False
        return staged

    def prepare(self, value: WholeMapRequest) -> Status:
        """Begin one more attempt at a map; nothing moves until its plan is run.

        The status finishes once no earlier scan is busy, and the files that are there already are
        known.

        Raises
        ------
        ConfigError
            It is asked for a row, not for a map.
        """
        if "rows" not in value or not isinstance(value["rows"], list):
            raise ConfigError(f"flyer {self.name!r} flies whole maps, not a row: {value!r:.80}")
        self.stop()
        self._request, self._rows, self._uncollected = value, None, False
        self._attempt = self._attempts.begin(value["rows"][0])
        self._in_scan, self._stopped = True, False
        status = Status(self)

        def steps(job: Job) -> None:
            job.wait_until(self._is_idle, self._timeout_s, "the end of the scan before", _POLL_S)
            self._before = self.file.stamps()

        self._start_job(steps, status)
        return status

    def map_plan(self, request: WholeMapRequest) -> MsgGenerator[None]:
        """Run the plan of the scan.

        Raises
        ------
        FlightError
            The scan was stopped, as by a pause.
        ConfigError
            The plan opens a run of its own.
        TimeoutError
            It took longer than the request allows.
        """
        grid, dwell_ms = ScanGrid.from_dict(request["grid"]), request["dwell_ms"]
        owner = f"{self.name}: the plan {getattr(self._scan, '__name__', repr(self._scan))!r:.80}"

        def whole() -> MsgGenerator[None]:
            yield from bps.null()
            self._may_run = True
            yield from ensure_generator(self._scan(grid, dwell_ms))
            while not self._is_idle():
                yield from bps.sleep(_POLL_S)

        def flaw() -> Exception | None:
            return FlightError(f"{owner} was interrupted") if self._stopped else None

        yield from watched(whole(), owner, timeout_s=request["timeout_s"], flaw=flaw)
        if (interrupted := flaw()) is not None:
            raise interrupted

    def kickoff(self) -> Status:
        """Refuse: a map isn't flown row by row."""
        raise ConfigError(f"flyer {self.name!r} flies whole maps (map_plan), not rows")

    def complete(self) -> Status:
        """Return a status that finishes when the file is written and read.

        Where rows are missing in a file that doesn't change any more, it finishes with those that
        are there. It fails where there is none until the timeout.
        """
        self._in_scan = self._may_run = False
        status = Status(self)
        self._start_job(self._read, status)
        return status

    def collect(self) -> Iterator[PartialEvent]:
        """Yield one event for each row that the file has, once."""
        with self._frames_lock:
            found, self._uncollected = self._uncollected, False
        request, rows = self._request, self._rows
        if not found or request is None or rows is None:
            return
        for asked in request["rows"]:
            if asked["row"] in rows.frames:
                # Frames from a file come in ascending order of their positions.
                ascending = cast(RowRequest, {**asked, "direction": 1})
                yield row_event(self.name, rows.frames[asked["row"]], ascending, self._attempt)

    def missing_rows(self) -> Mapping[int, str]:
        """Return why a row of the map can't be collected, by its index."""
        if self._rows is not None:
            return dict(self._rows.missing)
        asked = [] if self._request is None else self._request["rows"]
        return {row["row"]: "no file was read" for row in asked}

    def provenance(self) -> Mapping[str, str]:
        """Return which file the rows come from, which reader read it, and its notes."""
        path, reader = self._read_from
        notes = "" if self._rows is None else "; ".join(self._rows.notes)
        return {"path": path, "reader": reader, "notes": notes}

    def describe_collect(self) -> dict[str, dict[str, DataKey]]:
        """Return the data keys of a row event, by stream."""
        num = None if self._request is None else self._request["rows"][0]["num"]
        return describe_row(self.name, len(self.elements), num)

    def pause(self) -> None:
        """Stop the scan. It can't be repeated message by message: the map is flown anew.

        Raises
        ------
        NoReplayAllowed
            A scan was going on.
        """
        in_scan = self._in_scan
        self.stop()
        if in_scan:
            raise NoReplayAllowed

    def stop(self, *, success: bool = False) -> None:
        """Abort a scan that may be going on, and give up waiting for its file."""
        if self._job is not None and not self._job.done:
            self._job.stop()
        self._stopped = self._stopped or self._in_scan
        may_run, self._may_run = self._may_run, False
        if may_run and self._stop_scan is not None:
            logger.warning("%s: the scan is stopped", self.name)
            self._stop_scan()

    def _is_idle(self) -> bool:
        return self._busy is None or not value_of(self._busy)

    def _start_job(self, steps: Callable[[Job], None], status: Status) -> None:
        """Do steps in a thread, after those of the job before have come to their end."""
        before = self._job
        self._job = Job(self.name, steps, (status,), connected=lambda: True, clean_up=lambda: None)
        self._job.start(before, self._timeout_s)

    def _read(self, job: Job) -> None:
        """Wait until the file is written and read it; make do with a part at the timeout."""
        settle_s, settling = self.file.settle_s, Settling()
        deadline = time.monotonic() + self._timeout_s
        reason, next_look = "it was not looked for", 0.0

        def is_read() -> bool:
            """Read the file where it is time to; return whether it has all that is to come."""
            nonlocal reason, next_look
            try:
                path, stamp = self.file.written_since(self._before)
                reason = f"{path} is still being written"
                unchanged_s = settling.unchanged_s(path, stamp)
                if unchanged_s >= settle_s and time.monotonic() >= next_look:
                    self._rows = self._rows_in(path)
                    next_look = time.monotonic() + max(settle_s, _POLL_S)
                    return not self._rows.missing or unchanged_s >= _PARTLY * settle_s
            except (XrfSrError, OSError) as error:
                reason = in_words(error)
                next_look = time.monotonic() + max(settle_s, _POLL_S)
            return False

        job.wait_until(
            lambda: is_read() or time.monotonic() > deadline,
            2 * self._timeout_s + settle_s,
            "the scan's file",
            _POLL_S,
        )
        if self._rows is None:
            raise FlightError(f"{self.name}: no map in {self._timeout_s:.4g} s: {reason}")
        for note in self._rows.notes:
            logger.info("%s: %s", self.name, note)
        with self._frames_lock:
            self._uncollected = True

    def _rows_in(self, path: Path) -> FileRows:
        """Return the rows of the map that are in a file."""
        request = self._request
        assert request is not None
        if callable(self._reader):
            with in_our_words(f"{path}: the reader failed", FileFormatError):
                file = self._reader(path)
            if not isinstance(file, MapsFile):
                raise FileFormatError(f"{path}: the reader returned {file!r:.80}, not a MapsFile")
        else:
            file = read_map(path, reader=self._reader, options=self._options)
        reader = file.meta.get("reader") or getattr(self._reader, "__name__", self._reader)
        self._read_from = (str(path), str(reader or file.meta.get("layout", "")))
        return rows_of_file(
            file,
            ScanGrid.from_dict(request["grid"]),
            request["rows"],
            elements=self._channels,
            dwell_ms=request["dwell_ms"],
            units=self._units,
            bad_columns=self._bad_columns,
            fast=self._fast,
        )
