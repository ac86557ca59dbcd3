"""`Settings`: all that a session is told, from one TOML file and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from xrf_sr_plans.config.analysis import AnalysisSettings, Level, LogFormat
from xrf_sr_plans.config.beamline import BeamlineSettings, Box, DeviceSettings, Pair, Sign
from xrf_sr_plans.config.places import Place, folder_flaw
from xrf_sr_plans.config.section import Section
from xrf_sr_plans.ranges import check


class StoreSettings(Section):
    """Where runs are kept."""

    where: str | None = None
    """"off", "default" (a folder below the home folder), a folder, "jsonl:FOLDER", the address of
    a Tiled server, "tiled:PROFILE" or "databroker:CATALOG"; without it, "default" in a session with
    a console, and "off" in others."""


class ApprovalSettings(Section):
    """Where regions wait for somebody to approve them."""

    folder: str | None = None
    """Folder that pages and other sessions of this computer share, or "off": nobody is asked;
    without it, a folder below the home folder."""


class PageSettings(Section):
    """What there is to watch surveys with: reports, a page in the browser, a window."""

    surveys: str | None = None
    """Folder in which surveys are kept for them, or "off"; without it, a folder below the home
    folder."""
    serve: bool = False
    """Whether to serve a page for browsers."""
    live: bool = False
    """Whether to open a window with the maps."""
    host: str = "127.0.0.1"
    """Address at which the page is served; others than this computer's need a token."""
    port: int | None = Field(default=None, ge=0, le=65_535)
    """Port of the page; 0: any that is free; without it, the usual one."""


class QueueSettings(Section):
    """The queue server that ``rescan="queue"`` hands rescans to."""

    control_address: str | None = None
    """Address for requests, such as "tcp://localhost:60615"; without it, what the manager's own
    client takes."""
    info_address: str | None = None
    """Address for console output, such as "tcp://localhost:60625"; without it, as above."""
    request_timeout_s: float = Field(default=5.0, gt=0, le=600, allow_inf_nan=False)
    """Longest wait for the answer to one request."""
    timeout_s: float = Field(default=60.0, gt=0, le=3600, allow_inf_nan=False)
    """Longest time for handing over all rescans of a survey."""
    attempts: int = Field(default=3, ge=1, le=1000)
    """How often an item is submitted at most."""
    position: Literal["front", "back"] = "front"
    """Whether rescans run before or after what other people have queued."""


class LogSettings(Section):
    """What is logged of a session, besides what its prompt shows."""

    level: Level = "INFO"
    """From which level on messages go to the log."""
    format: LogFormat = "text"
    """"text" for lines to read, "json" for a line of JSON per message."""
    file: Place | None = None
    """Log file of the session; without it, it writes no log. The analysis process has one of its
    own, `analysis.log_file`."""
    max_mb: float = Field(default=20.0, gt=0, le=100_000, allow_inf_nan=False)
    """A log file of this size is put aside and a new one begun."""
    keep: int = Field(default=5, ge=1, le=1000)
    """How many log files are kept aside."""


class SimulatedFineStage(Section):
    """A simulated fine stage on top of the simulated axes."""

    axis_names: tuple[str, str] = ("finex", "finey")
    """Names of its fast and slow axis."""
    limits_um: Box = ((-16.0, 16.0), (-16.0, 16.0))
    """Limits of its axes."""
    reach_um: Pair = (30.0, 30.0)
    """Largest [width, height] of one map."""
    center_um: Pair = (0.0, 0.0)
    """Where its axes are while the coarse stage flies."""
    sign: tuple[Sign, Sign] = (1, 1)
    """For each axis 1 or -1, as it runs with or against the coarse one."""
    max_velocity_um_s: float = 200.0
    """Highest velocity of its axes."""
    egu: str = "um"
    """Unit of its axes."""


class SimulatedSettings(Section):
    """Simulated devices in the place of real ones; see `devices.sim.make_beamline`."""

    sample: str = "zagami"
    """What lies on the stage: "zagami", "grains", "cells" or "edges"."""
    clock: float | str = "instant"
    """"instant", "real", or how many times as fast as real."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seed of all noise."""
    axis_names: tuple[str, str] = ("samx", "samy")
    """Names of the fast and the slow axis."""
    egu: str = "um"
    """Unit of the axes."""
    limits_um: Box | None = None
    """Limits of the axes; without it, the sample and 50 um around it."""
    probe_fwhm_um: float = Field(default=0.5, ge=0, le=1e4, allow_inf_nan=False)
    """Size of the simulated beam."""
    max_velocity_um_s: float = Field(default=2000.0, gt=0, allow_inf_nan=False)
    """Highest velocity of the axes."""
    acceleration_s: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    """Time to full speed."""
    fine_stage: SimulatedFineStage | None = None
    """A fine stage, which flies the rescans; without it, there is none."""


class Settings(Section):
    """All settings of a session.

    Constructing it reads neither files nor the environment; `load` does.
    """

    beamline: BeamlineSettings = BeamlineSettings()
    """The devices and facts that plans are bound to."""
    devices: dict[str, DeviceSettings] = Field(default_factory=dict)
    """Devices that are made here, by name; all others are looked up."""
    simulated: SimulatedSettings | None = None
    """Simulated devices; without it, there are none."""
    analysis: AnalysisSettings = AnalysisSettings()
    """How the analysis runs."""
    store: StoreSettings = StoreSettings()
    """Where runs are kept."""
    queue: QueueSettings | None = None
    """The queue server that rescans go to; without it, none is asked."""
    approvals: ApprovalSettings = ApprovalSettings()
    """Where regions wait for approval."""
    page: PageSettings = PageSettings()
    """What there is to watch surveys with."""
    log: LogSettings = LogSettings()
    """What is logged."""

    _origins: Mapping[str, str] = PrivateAttr(default_factory=dict)

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        environment: Mapping[str, str] | None = None,
        **overrides: Any,
    ) -> Settings:
        """Collect settings from a TOML file, the environment and keywords.

        The environment overrides the file, and keywords override both.

        Parameters
        ----------
        path
            The file; without it, the one that the variable ``XRF_SR_SETTINGS`` names, if any.
        environment
            Environment variables; without it, those of this process. The variable of a setting is
            ``XRF_SR_`` and its place in capitals, with two underscores for each dot:
            ``XRF_SR_BEAMLINE__PROBE_FWHM_UM``. Those of the analysis have short names too, such
            as ``XRF_SR_DEVICE``; so has ``XRF_SR_STORE``. A variable that is set to nothing is
            not set.
        overrides
            Settings by name, such as ``analysis={"device": "cpu"}``.

        Raises
        ------
        ConfigError
            The file can't be read, a key or a variable that begins with ``XRF_SR_`` is unknown,
            or a value is not allowed. The message lists all of it.
        """
        from xrf_sr_plans.config.sources import load

        return load(cls, path, environment, overrides)

    @property
    def of_analysis(self) -> AnalysisSettings:
        """The settings of the analysis process, which logs as the session does unless told."""
        given = self.analysis
        logs = {
            "log_level": given.log_level or self.log.level,
            "log_format": given.log_format or self.log.format,
        }
        return given.model_copy(update=logs)

    def origin(self, setting: str) -> str:
        """Return where a setting's value came from: "default", a file, or a variable.

        Parameters
        ----------
        setting
            Its place, such as "beamline.time_model.overhead_s".
        """
        return self._origins.get(setting, "default")

    def check_places(self) -> None:
        """Refuse folders and files that can't be written to.

        Raises
        ------
        ConfigError
            A folder of the analysis or of the log file can't be written to.
        """
        self.analysis.check_places()
        if self.log.file is not None:
            folder = str(Path(self.log.file).absolute().parent)
            check("log settings", folder_flaw("the folder of file", folder))
