"""`AnalysisLink`: what a session knows of the analysis, wherever that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from xrf_sr_plans.devices.protocols import ResultsSource
from xrf_sr_plans.schema import Documents


@dataclass(frozen=True)
class LinkState:
    """How the analysis is doing."""

    ready: bool
    """Whether it takes documents at the moment."""
    pid: int | None
    """Its process on this host, be it only ssh to it; None where there is none."""
    starts: int
    """How many processes there have been."""
    waiting_runs: int
    """Runs that are over and whose results are not in."""
    host: str = ""
    """Where it runs; empty: on this host, or nowhere at the moment."""


class DocumentLink(Protocol):
    """Where the tap sends documents."""

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Take a document of the run with that uid; microseconds, never raises, never blocks."""
        ...


class AnalysisLink(DocumentLink, ResultsSource, Protocol):
    """The analysis, as `AnalysisProcess` and `LocalAnalysis` offer it.

    It takes documents from the tap (`DocumentLink`) and gives results to the results device
    (`ResultsSource`). Whoever started it waits for it and closes it.
    """

    def flush(self, timeout_s: float = 60.0) -> bool:
        """Wait until all runs that are over have results, and the sinks have them.

        Returns
        -------
        bool
            Whether that was so within the time.
        """
        ...

    def state(self) -> LinkState:
        """Return how the analysis is doing; microseconds."""
        ...

    def deliver(self, documents: Documents) -> None:
        """Give a whole run to the sinks that take results, in their thread; return at once."""
        ...

    def close(self, timeout_s: float = 10.0) -> None:
        """Let what is under way finish within the time, then end the analysis."""
        ...
