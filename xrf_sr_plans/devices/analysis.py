"""The analysis device, through which a plan waits for a result as it waits for a motor."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from bluesky.protocols import Hints, Reading
from event_model import DataKey
from ophyd.status import Status

from xrf_sr_plans.devices.protocols import AnalysisSummary, ResultsSource
from xrf_sr_plans.errors import ConfigError, in_words
from xrf_sr_plans.maps.region_documents import regions_to_json
from xrf_sr_plans.ranges import ABOVE_ZERO, check

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 512
"""How many runs' outcomes the device keeps; the oldest are forgotten."""

_STRING_FIELDS = (
    "source_uid",
    "result_uid",
    "status",
    "reason",
    "model",
    "model_sha256",
    "regions",
)
"""Endings of the keys of a reading, except ``elapsed_s``, which is a number."""


@dataclass(frozen=True)
class _Outcome:
    """The result of one trigger: how long the plan waited for it, in s, and when it came."""

    summary: AnalysisSummary
    elapsed_s: float
    time: float


class AnalysisDevice:
    """A device that is set to a run, triggered (which waits for the analysis) and read.

    The status of `trigger` always succeeds, and in bounded time. It means that the outcome is
    known. The reading says whether the outcome is ``done``, ``fallback`` or ``failed``, and why.
    Triggering again, as after a pause and rewind, repeats the same outcome and starts nothing
    twice.

    Parameters
    ----------
    name
        Name of the device, with which the keys of its reading begin (``<name>_status``).
    source
        Where results come from, an `AnalysisProcess` or a `LocalAnalysis`; None: every trigger
        reports that no analysis is configured.
    timeout_s
        How long to wait for the model before falling back; `set` may override it.
    fallback_timeout_s
        How long to wait for the fallback before reporting a failure.

    Raises
    ------
    ConfigError
        A timeout is not a finite number above 0.
    """

    parent = None

    def __init__(
        self,
        name: str = "analysis",
        source: ResultsSource | None = None,
        timeout_s: float = 60.0,
        fallback_timeout_s: float = 30.0,
    ) -> None:
        check(
            f"analysis device {name!r}",
            ABOVE_ZERO.flaw("timeout_s", timeout_s),
            ABOVE_ZERO.flaw("fallback_timeout_s", fallback_timeout_s),
        )
        self.name = name
        self.source = source
        self.timeout_s = timeout_s
        self.fallback_timeout_s = fallback_timeout_s
        self._source_uid = ""
        self._model_timeout_s = timeout_s
        self._outcomes: OrderedDict[str, Future[_Outcome]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def hints(self) -> Hints:
        """Nothing to plot, because a reading is mostly text."""
        return {"fields": []}

    def set(self, value: Mapping[str, Any]) -> Status:
        """Choose the run whose analysis is awaited, or wait until all results are delivered.

        Parameters
        ----------
        value
            ``{"source_uids": [uid], "timeout_s": seconds}``; without a timeout, that of the
            device counts. With ``{"settled_within_s": seconds}`` the status finishes once every
            run that is over has its results, and whoever takes them has them; it fails with a
            `TimeoutError` where that takes longer.

        Raises
        ------
        ConfigError
            There is not exactly one uid, or the timeout is not above 0.
        """
        if "settled_within_s" in value:
            return self._settled(float(value["settled_within_s"]))
        uids = list(value.get("source_uids", ()))
        timeout_s = value.get("timeout_s")
        timeout_s = self.timeout_s if timeout_s is None else float(timeout_s)
        if len(uids) != 1 or not isinstance(uids[0], str):
            raise ConfigError(f"{self.name}: source_uids is {uids!r}; exactly one uid is needed")
        if not timeout_s > 0:
            raise ConfigError(f"{self.name}: timeout_s is {timeout_s}; it must be above 0")
        self._source_uid, self._model_timeout_s = uids[0], timeout_s
        return _finished(Status(self))

    def _settled(self, timeout_s: float) -> Status:
        status, flush = Status(self), getattr(self.source, "flush", None)
        if flush is None:
            return _finished(status)

        def wait() -> None:
            try:
                done = flush(timeout_s)
            except Exception as error:  # noqa: BLE001 - told to the plan
                status.set_exception(error)
                return
            if done:
                _finished(status)
            else:
                text = f"{self.name}: not all results are in after {timeout_s:g} s"
                status.set_exception(TimeoutError(text))

        threading.Thread(target=wait, name=f"{self.name}-settled", daemon=True).start()
        return status

    def trigger(self) -> Status:
        """Return a status that finishes when the outcome of the chosen run is known.

        The status never fails.
        """
        status = Status(self)
        with self._lock:
            outcome = self._outcomes.get(self._source_uid)
            is_first = outcome is None
            if outcome is None:
                outcome = self._outcomes[self._source_uid] = Future()
                while len(self._outcomes) > MAX_REMEMBERED:
                    self._outcomes.popitem(last=False)
        outcome.add_done_callback(lambda _: _finished(status))
        if is_first:
            _PendingOutcome(self, self._source_uid, self._model_timeout_s, outcome).begin()
        return status

    def read(self) -> dict[str, Reading[Any]]:
        """Return the outcome of the chosen run; ``<name>_status`` is "pending" until there is one.

        ``<name>_regions`` is a JSON list of `Region` dicts.
        """
        outcome = self._outcomes.get(self._source_uid)
        if outcome is None or not outcome.done():
            pending = AnalysisSummary(self._source_uid, "", "failed", "not triggered yet", ())
            return self._reading(_Outcome(pending, 0.0, time.time()), status="pending")
        return self._reading(outcome.result())

    def describe(self) -> dict[str, DataKey]:
        """Return the data keys of `read`: strings, and the seconds waited."""
        source = f"analysis:{self.name}"
        keys = {
            f"{self.name}_{field}": DataKey(source=source, dtype="string", shape=[])
            for field in _STRING_FIELDS
        }
        keys[f"{self.name}_elapsed_s"] = DataKey(source=source, dtype="number", shape=[], units="s")
        return keys

    def read_configuration(self) -> dict[str, Reading[float]]:
        """Return the default timeout in seconds."""
        return {f"{self.name}_timeout_s": {"value": self.timeout_s, "timestamp": time.time()}}

    def describe_configuration(self) -> dict[str, DataKey]:
        """Return the data key of the default timeout."""
        key = DataKey(source=f"analysis:{self.name}", dtype="number", shape=[], units="s")
        return {f"{self.name}_timeout_s": key}

    def _reading(self, outcome: _Outcome, status: str = "") -> dict[str, Reading[Any]]:
        summary = outcome.summary
        values: dict[str, Any] = {
            "source_uid": summary.source_uid,
            "result_uid": summary.result_uid,
            "status": status or summary.status,
            "reason": summary.reason,
            "model": str(summary.model.get("name", "")),
            "model_sha256": str(summary.model.get("sha256", "")),
            "regions": regions_to_json(summary.regions),
            "elapsed_s": outcome.elapsed_s,
        }
        return {
            f"{self.name}_{field}": {"value": value, "timestamp": outcome.time}
            for field, value in values.items()
        }


class _PendingOutcome:
    """The way from one trigger to its outcome: the result, else the fallback, else a failure.

    Results, errors and timers arrive in threads of their own, and the first of them that settles
    the outcome wins.
    """

    def __init__(
        self, device: AnalysisDevice, uid: str, timeout_s: float, outcome: Future[_Outcome]
    ) -> None:
        self._device = device
        self._source = device.source
        self._uid = uid
        self._timeout_s = timeout_s
        self._outcome = outcome
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._falling_back = False
        self._timer: threading.Timer | None = None

    def begin(self) -> None:
        """Ask for the result, and set the timer after which the fallback is asked for."""
        if not self._uid:
            self._fail("no source run was set")
        elif self._source is None:
            self._fail("no analysis configured")
        else:
            self._set_timer(self._timeout_s, self._on_timeout)
            self._ask(self._source.request, self._uid, then=self._on_result)

    def _on_result(self, summary: AnalysisSummary) -> None:
        if summary.status == "failed":
            self._fall_back(summary.reason)
        else:
            self._settle(summary)

    def _on_timeout(self) -> None:
        self._fall_back(f"no result within {self._timeout_s:g} s")

    def _fall_back(self, reason: str) -> None:
        """Ask for the fallback, unless it was asked for or the outcome is known."""
        with self._lock:
            if self._falling_back or self._outcome.done() or self._source is None:
                return
            self._falling_back = True
        timeout_s = self._device.fallback_timeout_s
        self._set_timer(
            timeout_s, lambda: self._fail(f"{reason}; no fallback within {timeout_s:g} s")
        )
        self._ask(self._source.fall_back, self._uid, reason, then=self._settle)

    def _ask(
        self,
        question: Callable[..., Future[AnalysisSummary]],
        *args: str,
        then: Callable[[AnalysisSummary], None],
    ) -> None:
        """Call a method of the source, and pass its answer on. An error counts as a failure."""

        def answered(future: Future[AnalysisSummary]) -> None:
            try:
                then(future.result())
            except Exception as error:  # The trigger's status must succeed whatever happens.
                logger.exception("%s: no answer for run %s", self._device.name, self._uid)
                self._fail(in_words(error))

        try:
            question(*args).add_done_callback(answered)
        except Exception as error:  # Here too.
            logger.exception("%s: cannot ask for run %s", self._device.name, self._uid)
            self._fail(in_words(error))

    def _set_timer(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after some seconds, in place of what the timer was set to before."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._outcome.done():
            self._timer = threading.Timer(seconds, function)
            self._timer.daemon = True
            self._timer.start()

    def _fail(self, reason: str) -> None:
        self._settle(AnalysisSummary(self._uid, "", "failed", reason, ()))

    def _settle(self, summary: AnalysisSummary) -> None:
        """Make a summary the outcome, unless there is one."""
        with self._lock:
            if self._outcome.done():
                return
            elapsed_s = time.monotonic() - self._began
            self._outcome.set_result(_Outcome(summary, elapsed_s, time.time()))
        if self._timer is not None:
            self._timer.cancel()
        # Nothing unusual ends without a word at the prompt.
        usual = summary.status == "done" and not summary.reason
        level = logging.INFO if usual else logging.WARNING
        logger.log(level, "analysis of run %s: %s %s", self._uid, summary.status, summary.reason)


def _finished(status: Status) -> Status:
    if not status.done:
        status.set_finished()
    return status
