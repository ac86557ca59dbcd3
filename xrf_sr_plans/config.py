"""`AnalysisSettings`: how the analysis runs, from keywords, the environment or a TOML file."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import ConfigError

ENVIRONMENT_PREFIX = "XRF_SR_"
"""What the name of an environment variable begins with, before the name of the setting."""


class AnalysisSettings(BaseModel):
    """How and where the analysis runs.

    What it does with a map is not set here. It is in the start document of the map's run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    """Name of a model or a weights file; with None, the model that ships with the package."""
    device: str | None = None
    """Torch device such as "cpu" or "cuda:0"; with None, a GPU if there is one, else the CPU."""
    hang_timeout_s: float = Field(default=120.0, gt=0)
    """An analysis process that makes no progress for this many seconds is killed and restarted."""
    max_restarts: int = Field(default=3, ge=0)
    """How many times the process may die or hang on one run before the run is given up."""
    memory_limit_mb: float = Field(default=512.0, gt=0)
    """Most memory, in MB, for documents of runs whose results have not come yet."""
    nice: int = Field(default=10, ge=0, le=19)
    """How much nicer (lower in priority) the analysis process is than the session."""
    threads: int = Field(default=1, ge=1)
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
            if (text := source.get(ENVIRONMENT_PREFIX + name.upper())) is not None:
                values[name] = text
        try:
            return cls(**{**values, **overrides})
        except ValidationError as error:
            raise ConfigError(f"analysis settings: {error}") from error
