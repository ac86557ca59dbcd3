"""`AnalysisSettings`: how the analysis runs, from keywords, the environment or a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.ranges import check

ENVIRONMENT_PREFIX = "XRF_SR_"
"""What the name of an environment variable begins with, before the name of the setting."""


def folder_flaw(what: str, folder: str | Path) -> str:
    """Return the sentence that refuses a folder that can't be made or written to, or "".

    Nothing is made or written.

    Parameters
    ----------
    what
        What names the folder, for the message.
    folder
        The folder, which need not exist.
    """
    path = Path(folder).absolute()
    try:
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            return f"{what} is {str(folder)!r}; {there} is a file, where a folder is needed"
        if not os.access(there, os.W_OK | os.X_OK):
            return f"{what} is {str(folder)!r}; {there} can't be written to"
    except (OSError, ValueError) as error:
        return f"{what} is {str(folder)!r:.80}; {error}"
    return ""


class AnalysisSettings(BaseModel):
    """How and where the analysis runs.

    What it does with a map is not set here. It is in the start document of the map's run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    """Name of a model or a weights file; with None, the model that ships with the package."""
    device: str | None = None
    """Torch device such as "cpu" or "cuda:0"; with None, a GPU if there is one, else the CPU."""
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
    pair_dir: str | None = None
    """Folder of the pair store; with None, pairs are not recorded."""
    result_dir: str | None = None
    """Folder for HDF5 files of results with more than 256 x 256 pixels; with None, results of any
    size stay in their documents."""
    ledger_dir: str | None = None
    """Folder in which predictions, and how they compared with fine maps, are remembered; with None,
    they are forgotten when the analysis ends."""
    log_file: str | None = None
    """Log file of the analysis process; with None, it writes no log."""

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> AnalysisSettings:
        """Collect settings from a TOML file, the environment and keywords.

        The environment overrides the file, and keywords override both.

        Parameters
        ----------
        path
            TOML file with the settings in its table ``[analysis]``; with None, no file is read.
        environment
            Environment variables; with None, those of this process. The variable of a setting is
            its name in capitals after ``XRF_SR_``, such as ``XRF_SR_DEVICE``.
        overrides
            Settings by name.

        Raises
        ------
        ConfigError
            The file can't be read, a setting is unknown, or a value is not allowed.
        """
        values: dict[str, Any] = {}
        if path is not None:
            try:
                values.update(tomllib.loads(Path(path).read_text()).get("analysis", {}))
            except (OSError, tomllib.TOMLDecodeError) as error:
                raise ConfigError(f"settings file {path}: {error}") from error
        source = os.environ if environment is None else environment
        for name in cls.model_fields:
            # A variable that is set to nothing is not set, as in a shell script.
            if text := source.get(ENVIRONMENT_PREFIX + name.upper()):
                values[name] = text
        try:
            return cls(**{**values, **overrides})
        except ValidationError as error:
            raise ConfigError(f"analysis settings: {error}") from error

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
