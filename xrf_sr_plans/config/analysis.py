"""`AnalysisSettings`: how the analysis runs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from xrf_sr_plans.config.places import Place, folder_flaw
from xrf_sr_plans.config.section import Section
from xrf_sr_plans.ranges import check

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
"""From which level on messages are logged."""
LogFormat = Literal["text", "json"]
"""How a message is written: as a line to read, or as a line of JSON."""
_PLACES = ("pair_dir", "result_dir", "ledger_dir")


class AnalysisSettings(Section):
    """How and where the analysis runs.

    What it does with a map is not set here. It is in the start document of the map's run.
    """

    model: str | None = None
    """Name of a model, a weights file, or "registry:FOLDER" for the model that is in use there
    when a survey begins; without it, the model that ships with the package."""
    device: str | None = None
    """Torch device such as "cpu" or "cuda:0"; without it, a GPU if there is one, else the CPU."""
    hang_timeout_s: float = Field(default=120.0, gt=0, le=86_400, allow_inf_nan=False)
    """An analysis process that makes no progress for this many seconds is killed and restarted."""
    max_restarts: int = Field(default=3, ge=0, le=100)
    """How many times the process may die or hang on one run before the run is given up."""
    memory_limit_mb: float = Field(default=512.0, gt=0, le=1e6, allow_inf_nan=False)
    """Most memory, in MB, for documents of runs whose results have not come yet."""
    nice: int = Field(default=10, ge=0, le=19)
    """How much nicer (lower in priority) the analysis process is than the session."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Number of CPU threads for the network."""
    dask: str | None = None
    """Scheduler of a Dask cluster that enhances maps, "tls://host:8786"; without it, they are
    enhanced on this machine."""
    dask_keys: Place | None = None
    """Folder with ca.pem, cert.pem and key.pem for that cluster; without it, Dask's own
    configuration counts."""
    dask_plain: bool = False
    """Whether a cluster on another machine may be used without encryption."""
    dask_timeout_s: float = Field(default=30.0, gt=0, le=3600, allow_inf_nan=False)
    """Longest wait for the cluster, in seconds, before a map is enhanced on this machine."""
    pair_dir: Place | None = None
    """Folder of the pair store, which pairs enter and rescans with the part of the survey's map
    that they cover; without it, they don't."""
    result_dir: Place | None = None
    """Folder for HDF5 files of results with more than 256 x 256 pixels; without it, results of any
    size stay in their documents."""
    ledger_dir: Place | None = None
    """Folder in which predictions, and how they compared with fine maps, are remembered; without
    it, they are forgotten when the analysis ends."""
    log_file: Place | None = None
    """Log file of the analysis process; without it, it writes no log. It is on the host of the
    session, wherever the process runs."""
    log_level: Level | None = None
    """From which level on the analysis process logs; without it, that of the table `log`."""
    log_format: LogFormat | None = None
    """How it logs; without it, as the table `log` says."""
    worker_command: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        default=None, min_length=1
    )
    """Program and arguments that start the analysis process on another host, such as
    ["ssh", "-o", "BatchMode=yes", "gpu1", "/opt/xrf-sr/bin/xrf-sr-worker"]; model and folders are
    then those of that host. Without it, the process runs beside the session."""

    @model_validator(mode="before")
    @classmethod
    def _places_elsewhere_are_whole_paths(cls, given: Any) -> Any:
        """Refuse folders on another host that only this one could complete."""
        if isinstance(given, Mapping) and given.get("worker_command"):
            for name in (*_PLACES, "dask_keys"):
                place = given.get(name)
                if isinstance(place, str) and not place.startswith("/"):
                    raise ValueError(
                        f"{name} is {place!r:.80}; with a worker_command it must be a whole path "
                        "on the worker's host, such as /data/pairs"
                    )
        return given

    @property
    def of_worker(self) -> AnalysisSettings:
        """These settings as the process itself has them, on whichever host."""
        return self.model_copy(update={"worker_command": None, "log_file": None})

    @model_validator(mode="after")
    def _waits_less_than_it_may_hang(self) -> Self:
        """Leave time to enhance a map here before the process that waited is taken to hang."""
        if self.dask is not None and self.dask_timeout_s > self.hang_timeout_s / 2:
            raise ValueError(
                f"dask_timeout_s is {self.dask_timeout_s:g}; at most half of hang_timeout_s,"
                f" {self.hang_timeout_s / 2:g}, is allowed"
            )
        return self

    def check_places(self) -> None:
        """Refuse what isn't there, before a result is lost for want of it.

        Folders on another host are not looked at, as the process there does that.

        Raises
        ------
        ConfigError
            `pair_dir`, `result_dir`, `ledger_dir` or the folder of `log_file` can't be written to,
            or the program of `worker_command` is not found.
        """
        elsewhere = self.worker_command is not None
        folders = {} if elsewhere else {name: getattr(self, name) for name in _PLACES}
        if self.log_file is not None:
            folders["the folder of log_file"] = str(Path(self.log_file).absolute().parent)
        check(
            "analysis settings",
            *(folder_flaw(name, folder) for name, folder in folders.items() if folder),
            "" if self.worker_command is None else _program_flaw(self.worker_command[0]),
        )


def _program_flaw(program: str) -> str:
    if shutil.which(program) is not None:
        return ""
    return f"worker_command begins with {program!r:.80}; there is no such program on this host"
