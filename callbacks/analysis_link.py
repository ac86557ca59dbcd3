"""`AnalysisLink`: what a session knows of the analysis, wherever that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from xrf_sr_plans.devices.protocols import ResultsSource


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

    def close(self, timeout_s: float = 10.0) -> None:
        """Let what is under way finish within the time, then end the analysis."""
        ...
