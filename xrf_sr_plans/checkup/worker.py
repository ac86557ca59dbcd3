"""Whether the analysis process on another host starts, and what it says of itself."""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue

from xrf_sr_plans.callbacks.service.messages import TO_WORKER, Close, Configure, FromWorker, Ready
from xrf_sr_plans.callbacks.service.scratch_elsewhere import new_name
from xrf_sr_plans.callbacks.service.worker_process import WorkerProcess
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import WorkerError

_PATIENCE_S = 50.0
"""Longest wait for the worker."""
_LAST_WORDS_S = 1.0
"""Longest wait for what ssh says at last."""


def worker_elsewhere(settings: AnalysisSettings) -> str:
    """Start the worker that the settings say, let it look at its settings, and end it.

    Returns
    -------
    str
        Who it is, which versions it has, and how soon it was there.

    Raises
    ------
    WorkerError
        It doesn't start, has another version, or something of the settings is not as it should be
        on its host.
    """
    settings.check_places()
    heard: SimpleQueue[FromWorker | None] = SimpleQueue()
    began = time.monotonic()
    worker = WorkerProcess(settings, lambda _, message: heard.put(message))
    try:
        first = Configure(settings, False, False, scratch_name=new_name())
        worker.queue(TO_WORKER.encode(first))
        worker.queue(TO_WORKER.encode(Close()))
        worker.pump(_PATIENCE_S)
        said = heard.get(timeout=_PATIENCE_S)
    except (Empty, WorkerError):
        said = None
    ready_s = time.monotonic() - began
    how = worker.end(_LAST_WORDS_S)
    if isinstance(said, Ready) and not said.trouble:
        return f"{worker.greeting}; ready after {ready_s:.1f} s"
    if isinstance(said, Ready):
        raise WorkerError(f"{worker.name}: {said.trouble}")
    raise WorkerError(worker.refusal or f"no worker after {ready_s:.1f} s ({how})")
