"""`FallbackProcess`: bicubic results from a helper process, which lives for one of them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue

from xrf_sr_plans.callbacks.service.bicubic_fallback import (
    MadeFallback,
    no_result,
    settings_of_fallback,
    whole_runs,
)
from xrf_sr_plans.callbacks.service.frames import unpack_frame
from xrf_sr_plans.callbacks.service.messages import (
    TO_WORKER,
    Close,
    Configure,
    FromWorker,
    ResultDocument,
    RunDocument,
    RunDone,
    RunSummary,
)
from xrf_sr_plans.callbacks.service.result_board import failed
from xrf_sr_plans.callbacks.service.sink_thread import SinkThread
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.schema import Documents

logger = logging.getLogger(__name__)

_PIPE_FULL_S = 0.1
"""Longest wait for a pipe that takes nothing."""
_WAIT_S = 0.5
"""Longest wait for a message before it is looked whether the time is over."""


class _EndedError(WorkerError):
    """The helper ended before its result."""


class FallbackProcess:
    """Make bicubic results outside of the RunEngine's process, one at a time.

    A bicubic map takes many times the memory of the map that was measured. The helper is the
    analysis process without its model: it gets the documents as they are kept, packed, and is
    killed where it makes no progress for ``hang_timeout_s``.

    Parameters
    ----------
    settings
        Settings of the analysis.
    sinks
        Where result runs go. Documents are asked for only if anybody takes them.
    frames_of
        Returns the kept documents of the run with the given uid, packed, and [] where none are
        kept any more.
    scratch_dir
        Returns the folder in which predictions are remembered for the worker, which has to know
        the tiles of a survey that fell back, or "" where there is none.
    """

    def __init__(
        self,
        settings: AnalysisSettings,
        sinks: SinkThread,
        frames_of: Callable[[str], list[bytes]],
        scratch_dir: Callable[[], str] = str,
    ) -> None:
        self._settings = settings_of_fallback(settings)
        self._sinks = sinks
        self._frames_of = frames_of
        self._scratch_dir = scratch_dir
        self._one_at_a_time = threading.Lock()
        self._closed = False

    def __call__(self, run: str, reason: str) -> MadeFallback:
        """Return the fallback."""
        with self._one_at_a_time:
            frames = self._frames_of(run)
            if not frames or not _is_stop(frames[-1]):
                return MadeFallback(no_result(run, reason, bool(frames)))
            try:
                try:
                    return self._helped(run, reason, frames)
                except _EndedError as error:
                    # Somebody may have killed it, or the memory was short for a moment.
                    logger.warning("the fallback of run %s is made again: %s", run, error)
                    return self._helped(run, reason, frames)
            except WorkerError as error:
                logger.error("the fallback of run %s failed: %s", run, error)
                return MadeFallback(failed(run, f"{reason}; fallback: {error}"))

    def close(self) -> None:
        """Kill the helper that is at work, if any, within a second."""
        self._closed = True

    def _helped(self, run: str, reason: str, frames: list[bytes]) -> MadeFallback:
        said: SimpleQueue[FromWorker | None] = SimpleQueue()
        helper = WorkerProcess(self._settings, lambda _, message: said.put(message))
        first = Configure(
            self._settings,
            self._sinks.has_sinks,
            False,
            fallback_reason=reason,
            scratch_dir=self._scratch_dir(),
        )
        for frame in (TO_WORKER.encode(first), *frames, TO_WORKER.encode(Close())):
            helper.queue(frame, run)
        summaries: dict[str, AnalysisSummary] = {}
        documents: Documents = []
        is_done, trouble = False, ""
        try:
            for message in self._messages(helper, said):
                match message:
                    case RunSummary(told):
                        summaries[told.source_uid] = told
                    case ResultDocument(_, name, doc):
                        documents.append((name, doc))
                    case RunDone():
                        is_done = True
                        break
        except WorkerError as error:
            trouble = str(error)
        finally:
            how = helper.end(patience_s=0.0)
        if trouble:
            raise WorkerError(f"{trouble} ({how})")
        summary = summaries.pop(run, None)
        if summary is None or not is_done:
            raise _EndedError(f"it ended before its result ({how})")
        return MadeFallback(summary, whole_runs(documents), list(summaries.values()))

    def _messages(
        self, helper: WorkerProcess, said: SimpleQueue[FromWorker | None]
    ) -> Iterator[FromWorker]:
        """Yield what a helper says until it ends after all that it was told.

        Raises
        ------
        WorkerError
            It ended before, or made no progress in time.
        """
        unsent, progress = helper.unsent, time.monotonic()
        while not self._closed:
            helper.pump(_PIPE_FULL_S)
            try:
                message = said.get(timeout=0.0 if helper.unsent else _WAIT_S)
            except Empty:
                if helper.unsent < unsent:
                    unsent, progress = helper.unsent, time.monotonic()
                if time.monotonic() - progress > self._settings.hang_timeout_s:
                    raise WorkerError(
                        f"no progress for {self._settings.hang_timeout_s:g} s"
                    ) from None
                continue
            progress = time.monotonic()
            if message is None:
                return
            yield message
        raise WorkerError("the analysis was closed")


def _is_stop(frame: bytes) -> bool:
    message = TO_WORKER.decode(unpack_frame(frame))
    return isinstance(message, RunDocument) and message.name == "stop"
