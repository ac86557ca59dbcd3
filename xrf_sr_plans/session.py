"""Wire a RunEngine, a beamline and the analysis together: what a profile calls, once."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bluesky import RunEngine

from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import Beamline
from xrf_sr_plans.plans.binding import bind_plans

logger = logging.getLogger(__name__)

DocumentSink = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, eq=False)
class Session:
    """Plans bound to a beamline, with the analysis listening.

    Attributes
    ----------
    plans
        The bound plans by name; a profile puts them into its namespace.
    analysis
        The results device; also one of the names that a profile exposes.
    link
        The analysis process (or thread) behind it.
    """

    run_engine: RunEngine
    beamline: Beamline
    link: Any
    analysis: AnalysisDevice
    plans: Mapping[str, Callable[..., Any]]
    _tokens: Sequence[int] = ()

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop listening and end the analysis; documents under way get `timeout_s` seconds."""
        atexit.unregister(self.close)
        for token in self._tokens:
            self.run_engine.unsubscribe(token)
        self.link.close(timeout_s)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_session(
    run_engine: RunEngine,
    beamline: Beamline,
    *,
    settings: AnalysisSettings | None = None,
    in_process: bool = False,
    result_sinks: Sequence[DocumentSink] = (),
) -> Session:
    """Start the analysis, subscribe its tap, and bind the plans.

    Parameters
    ----------
    run_engine
        The session's own; this package never makes one.
    beamline
        Its `analysis` device is replaced by one that reads this session's analysis.
    settings
        Of the analysis; default: environment and built-in values.
    in_process
        Run the analysis in a thread of this process instead of its own process.
    result_sinks
        Take the documents of result runs, such as a `TiledWriter` (called in a thread of their
        own; an exception is logged).
    """
    settings = settings or AnalysisSettings.load()
    link = _link(settings, result_sinks, in_process=in_process)
    analysis = AnalysisDevice(name="analysis", source=link)
    bound = replace(beamline, analysis=analysis)
    token = run_engine.subscribe(Tap(link))
    session = Session(run_engine, bound, link, analysis, bind_plans(bound), (token,))
    atexit.register(session.close)
    return session


def _link(settings: AnalysisSettings, sinks: Sequence[DocumentSink], *, in_process: bool) -> Any:
    if in_process:
        from xrf_sr_plans.callbacks.service.local_analysis import LocalAnalysis

        return LocalAnalysis(settings, sinks)
    from xrf_sr_plans.callbacks.service.analysis_process import AnalysisProcess

    return AnalysisProcess(settings, sinks)
