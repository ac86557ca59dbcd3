"""Settings of the analysis, from keyword arguments, a TOML file or the environment."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xrf_sr_plans.errors import ConfigError

ENVIRONMENT_PREFIX = "XRF_SR_"


class AnalysisSettings(BaseModel):
    """How and where the analysis runs; what it does with a map travels in the map itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    """Name or file of the weights; None: those that ship for the factor asked for."""
    device: str | None = None
    """Torch device such as "cpu" or "cuda:0"; None: the best there is."""
    hang_timeout_s: float = Field(default=120.0, gt=0)
    """An analysis process that makes no progress for so long is killed and restarted."""
    max_restarts: int = Field(default=3, ge=0)
    """So often the process may die or hang on one run before that run is given up."""
    memory_limit_mb: float = Field(default=512.0, gt=0)
    """Memory for documents of runs whose result is not in yet."""
    nice: int = Field(default=10, ge=0, le=19)
    """Added to the niceness of the analysis process."""
    threads: int = Field(default=1, ge=1)
    """CPU threads for the network."""
    pair_dir: str | None = None
    """Folder of the pair store; None: pairs are not recorded."""
    result_dir: str | None = None
    """Folder for HDF5 files of results above 256 x 256 pixels; None: all in the documents."""
    ledger_dir: str | None = None
    """Folder where predictions and how they did against fine maps are remembered; None: only as
    long as the analysis runs."""
    log_file: str | None = None
    """Where the analysis process logs; None: nowhere."""

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> AnalysisSettings:
        """Read the table ``[analysis]`` of a TOML file; the environment and keywords override it.

        The environment variable of a field is its name in capitals after ``XRF_SR_``, such as
        ``XRF_SR_DEVICE``.

        Raises
        ------
        ConfigError
            A file that can't be read, an unknown field, or a value outside what is allowed.
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
