"""`HealthReport`: how a session is doing, as a small file that other processes read."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from time import time as now

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.store.run_store import default_place

logger = logging.getLogger(__name__)

STALE_S = 30.0
"""Age in seconds from which a report says that its session hangs."""
_MAX_BYTES = 2**16


class HealthReport(BaseModel):
    """How a session is doing."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    beamline: str = ""
    host: str = Field(default_factory=socket.gethostname)
    pid: int = Field(default_factory=os.getpid)
    time: float = Field(default_factory=now)
    """When it was written, in seconds since 1970."""
    started: float = Field(default_factory=now)
    """When the session began."""
    ready: bool = False
    """Whether the analysis takes documents."""
    analysis_pid: int | None = None
    """Process of the analysis; None: there is none at the moment, or it is a thread."""
    analysis_host: str = ""
    """Where the analysis runs, if that is another host; the process is then that of ssh to it."""
    waiting_runs: int = 0
    """Runs that are over and whose results are not in."""
    restarts: int = 0
    """How often the analysis process had to be replaced."""
    fallbacks: int = 0
    """Maps that became bicubic, as the model failed or was late."""
    results: int = 0
    latency_s: float | None = None
    """Seconds from the end of the last map to its result."""
    rows: int = 0
    rows_per_s: float = 0.0
    """Over the last minute."""
    coverage_90: float | None = None
    """Share of rescanned pixels inside the 90 % intervals, as the last comparison pooled it."""
    flying: str = ""
    """Which row of which map is flown, in words; "" where none is."""
    waits_for_approval: str = ""
    """Uid of the survey that waits for somebody to approve regions."""

    cluster: str = ""
    """Address of the Dask cluster that enhances maps; "" where there is none."""
    maps_on_cluster: int = 0
    """Maps that it enhanced."""
    maps_here: int = 0
    """Maps that were enhanced beside the RunEngine, as it didn't; bicubic ones don't count."""
    cluster_trouble: str = ""
    """Why it didn't enhance the last map; "" where it did."""

    @property
    def problems(self) -> list[str]:
        """What is wrong, in words."""
        age_s = now() - self.time
        found = []
        if age_s > STALE_S:
            found.append(f"no sign of life for {age_s:.0f} s")
        if not self.ready:
            found.append("the analysis is not ready")
        if self.cluster_trouble:
            found.append(f"the cluster did not enhance the last map: {self.cluster_trouble}")
        return found

    def __str__(self) -> str:
        analysis = f"process {self.analysis_pid}" if self.analysis_pid else "in the session"
        if self.analysis_host:
            analysis = f"on {self.analysis_host} by {analysis}"
        latency = "" if self.latency_s is None else f", the last after {self.latency_s:.1f} s"
        parts = [
            f"analysis {analysis if self.ready else 'not ready'}",
            f"{self.waiting_runs} runs wait",
            f"{self.results} results{latency}",
            f"{self.restarts} restarts",
            f"{self.fallbacks} fallbacks",
            f"{self.rows_per_s:.2g} rows/s",
        ]
        if self.cluster:
            there, here = self.maps_on_cluster, self.maps_here
            parts.append(f"{there} maps enhanced on {self.cluster}, {here} on this machine instead")
        if self.coverage_90 is not None:
            parts.append(f"{100 * self.coverage_90:.0f} % inside the 90 % intervals")
        if self.flying:
            parts.append(f"flies {self.flying}")
        if self.waits_for_approval:
            parts.append(f"survey {self.waits_for_approval[:8]} waits for approval")
        state = "; ".join(self.problems)
        head = f"{self.beamline or 'session'} ({self.host}:{self.pid})"
        return f"{head}: {'TROUBLE: ' + state if state else 'ok'}: {', '.join(parts)}"


def default_health_dir() -> Path:
    """Return the folder of the reports of all sessions of a user."""
    return Path(default_place()).parent / "sessions"


class ReportFile:
    """The file of one session's report.

    Parameters
    ----------
    folder
        Where the files of all sessions are; None: `default_health_dir`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder or default_health_dir())
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.json"
        self._path = self.folder / name

    def write(self, report: HealthReport) -> None:
        """Replace the file by a report; what goes wrong is only logged."""
        part = self._path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            part.write_text(report.model_dump_json())
            part.replace(self._path)
        except OSError as error:
            logger.debug("%s: %s", self._path, error)

    def remove(self) -> None:
        """Remove the file, as the session is over."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def reports(folder: str | Path | None = None) -> Iterator[HealthReport]:
    """Yield the reports of the sessions that run; those of dead ones of this host are removed.

    Parameters
    ----------
    folder
        As of `ReportFile`.
    """
    for path in sorted(Path(folder or default_health_dir()).glob("*.json")):
        try:
            with path.open("rb") as file:
                report = HealthReport.model_validate(json.loads(file.read(_MAX_BYTES)))
        except (OSError, ValueError, ValidationError) as error:
            logger.debug("%s: %s", path, error)
            continue
        if report.host == socket.gethostname() and not _runs(report.pid):
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        yield report


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
