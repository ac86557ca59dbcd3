"""`AnalysisSettings`: how the analysis runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from xrf_sr_plans.config.places import Place, folder_flaw
from xrf_sr_plans.config.section import Section
from xrf_sr_plans.ranges import check

Level = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
"""From which level on messages are logged."""
LogFormat = Literal["text", "json"]
"""How a message is written: as a line to read, or as a line of JSON."""


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
    """Log file of the analysis process; without it, it writes no log."""
    log_level: Level | None = None
    """From which level on the analysis process logs; without it, that of the table `log`."""
    log_format: LogFormat | None = None
    """How it logs; without it, as the table `log` says."""

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
        """Refuse folders that can't be written to, before a result is lost for want of a place.

        Raises
        ------
        ConfigError
            `pair_dir`, `result_dir`, `ledger_dir` or the folder of `log_file` can't be written to.
        """
        folders = {name: getattr(self, name) for name in ("pair_dir", "result_dir", "ledger_dir")}
        if self.log_file is not None:
            folders["the folder of log_file"] = str(Path(self.log_file).absolute().parent)
        check(
            "analysis settings",
            *(folder_flaw(name, folder) for name, folder in folders.items() if folder),
        )
