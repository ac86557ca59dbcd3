"""`AnalysisDevice`: a plan waits for an analysis result as it waits for a motor."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from ophyd.status import Status

from xrf_sr_plans.devices.protocols import AnalysisSummary, ResultsSource
from xrf_sr_plans.errors import ConfigError, in_words

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 512
_FIELDS = ("source_uid", "result_uid", "status", "reason", "model", "model_sha256", "regions")


@dataclass(frozen=True)
class _Outcome:
    summary: AnalysisSummary
    elapsed_s: float
    time: float


class AnalysisDevice:
    """The results device: ``set`` which run, ``trigger`` (waits), ``read``.

    The status of `trigger` always succeeds, in bounded time: it means "the outcome is known",
    and the reading says whether that is ``done``, ``fallback`` or ``failed``, and why. Triggering
    again (after a pause and rewind) repeats the same outcome and starts nothing twice.

    Parameters
    ----------
    name
        Name of the device; readings are called ``<name>_status`` and so on.
    source
        Where results come from: `AnalysisProcess` or `LocalAnalysis`; None: every trigger
        reports that no analysis is configured.
    timeout_s
        Wait so long for the model, then for the fallback; `set` may override it.
    fallback_timeout_s
        Wait so long for the fallback, then report a failure.
    """

    parent = None

    def __init__(
        self,
        name: str = "analysis",
        source: ResultsSource | None = None,
        timeout_s: float = 60.0,
        fallback_timeout_s: float = 30.0,
    ) -> None:
        self.name = name
        self.source = source
        self.timeout_s = timeout_s
        self.fallback_timeout_s = fallback_timeout_s
        self._source_uid = ""
        self._wait_s = timeout_s
        self._outcomes: OrderedDict[str, Future[_Outcome]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def hints(self) -> dict[str, Any]:
        """Nothing to plot."""
        return {"fields": []}

    def set(self, value: Mapping[str, Any]) -> Status:
        """Choose the run: ``{"source_uids": [uid], "timeout_s": seconds}``.

        Raises
        ------
        ConfigError
            Not exactly one uid, or a timeout that is not a positive number.
        """
        uids = list(value.get("source_uids", ()))
        wait_s = value.get("timeout_s")
        wait_s = self.timeout_s if wait_s is None else float(wait_s)
        if len(uids) != 1 or not isinstance(uids[0], str):
            raise ConfigError(f"{self.name}: source_uids is {uids!r}; exactly one uid is needed")
        if not wait_s > 0:
            raise ConfigError(f"{self.name}: timeout_s is {wait_s}; it must be above 0")
        self._source_uid, self._wait_s = uids[0], wait_s
        return _finished(Status(self))

    def trigger(self) -> Status:
        """Wait for the outcome of the chosen run; the status never fails."""
        status = Status(self)
        with self._lock:
            outcome = self._outcomes.get(self._source_uid)
            new = outcome is None
            if outcome is None:
                outcome = self._outcomes[self._source_uid] = Future()
                while len(self._outcomes) > MAX_REMEMBERED:
                    self._outcomes.popitem(last=False)
        outcome.add_done_callback(lambda _: _finished(status))
        if new:
            _Wait(self, self._source_uid, self._wait_s, outcome).begin()
        return status

    def read(self) -> dict[str, Any]:
        """Return the outcome of the chosen run; ``status`` is "pending" until there is one."""
        outcome = self._outcomes.get(self._source_uid)
        if outcome is None or not outcome.done():
            pending = AnalysisSummary(self._source_uid, "", "failed", "not triggered yet", ())
            return self._reading(_Outcome(pending, 0.0, time.time()), status="pending")
        return self._reading(outcome.result())

    def describe(self) -> dict[str, Any]:
        """Return the data keys of `read`: strings, and the seconds waited."""
        source = f"analysis:{self.name}"
        keys: dict[str, Any] = {
            f"{self.name}_{field}": {"source": source, "dtype": "string", "shape": []}
            for field in _FIELDS
        }
        keys[f"{self.name}_elapsed_s"] = {
            "source": source,
            "dtype": "number",
            "shape": [],
            "units": "s",
        }
        return keys

    def read_configuration(self) -> dict[str, Any]:
        """Return the default timeout."""
        return {f"{self.name}_timeout_s": {"value": self.timeout_s, "timestamp": time.time()}}

    def describe_configuration(self) -> dict[str, Any]:
        """Return the data key of the default timeout."""
        key = {"source": f"analysis:{self.name}", "dtype": "number", "shape": [], "units": "s"}
        return {f"{self.name}_timeout_s": key}

    def _reading(self, outcome: _Outcome, status: str = "") -> dict[str, Any]:
        summary = outcome.summary
        values: dict[str, Any] = {
            "source_uid": summary.source_uid,
            "result_uid": summary.result_uid,
            "status": status or summary.status,
            "reason": summary.reason,
            "model": str(summary.model.get("name", "")),
            "model_sha256": str(summary.model.get("sha256", "")),
            "regions": json.dumps([region.to_dict() for region in summary.regions]),
            "elapsed_s": outcome.elapsed_s,
        }
        return {
            f"{self.name}_{field}": {"value": value, "timestamp": outcome.time}
            for field, value in values.items()
        }


class _Wait:
    """From one trigger to its outcome: the result, else the fallback, else a failure."""

    def __init__(
        self, device: AnalysisDevice, uid: str, wait_s: float, outcome: Future[_Outcome]
    ) -> None:
        self._device = device
        self._source = device.source
        self._uid = uid
        self._wait_s = wait_s
        self._outcome = outcome
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._falling_back = False
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        if not self._uid:
            self._fail("no source run was set")
        elif self._source is None:
            self._fail("no analysis configured")
        else:
            self._in(self._wait_s, self._late)
            self._ask(self._source.request, self._uid, then=self._came)

    def _came(self, summary: AnalysisSummary) -> None:
        if summary.status == "failed":
            self._fall_back(summary.reason, summary)
        else:
            self._settle(summary)

    def _late(self) -> None:
        self._fall_back(f"no result within {self._wait_s:g} s", None)

    def _fall_back(self, reason: str, first: AnalysisSummary | None) -> None:
        with self._lock:
            if self._falling_back or self._outcome.done() or self._source is None:
                return
            self._falling_back = True
        self._in(
            self._device.fallback_timeout_s,
            lambda: self._fail(
                f"{reason}; no fallback within {self._device.fallback_timeout_s:g} s"
            ),
        )
        self._ask(self._source.fall_back, self._uid, reason, then=self._settle)

    def _ask(self, question: Any, *args: str, then: Any) -> None:
        def answered(future: Future[AnalysisSummary]) -> None:
            try:
                then(future.result())
            except Exception as error:  # the status must succeed whatever happens
                logger.exception("%s: no answer for run %s", self._device.name, self._uid)
                self._fail(in_words(error))

        try:
            question(*args).add_done_callback(answered)
        except Exception as error:  # same here
            logger.exception("%s: cannot ask for run %s", self._device.name, self._uid)
            self._fail(in_words(error))

    def _in(self, seconds: float, function: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._outcome.done():
            self._timer = threading.Timer(seconds, function)
            self._timer.daemon = True
            self._timer.start()

    def _fail(self, reason: str) -> None:
        self._settle(AnalysisSummary(self._uid, "", "failed", reason, ()))

    def _settle(self, summary: AnalysisSummary) -> None:
        with self._lock:
            if self._outcome.done():
                return
            elapsed_s = time.monotonic() - self._began
            self._outcome.set_result(_Outcome(summary, elapsed_s, time.time()))
        if self._timer is not None:
            self._timer.cancel()
        level = logging.INFO if summary.status == "done" else logging.WARNING
        logger.log(level, "analysis of run %s: %s %s", self._uid, summary.status, summary.reason)


def _finished(status: Status) -> Status:
    if not status.done:
        status.set_finished()
    return status
