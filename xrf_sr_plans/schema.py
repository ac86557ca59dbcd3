"""The documents' vocabulary: names of plans, streams and keys, and the `xrf_sr` metadata.

Whatever writes or reads a document takes its names from here, so that a live run, a replayed
one and a result run can't drift apart.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from xrf_sr_plans.measurement import Factor, Sampling

SCHEMA_VERSION = 1

PLAN_MAP = "xrf_fly_map"
PLAN_SURVEY = "xrf_survey"
PLAN_RESULT = "xrf_super_resolution"
PLAN_VERIFICATION = "xrf_verification"

STREAM_ROWS = "primary"
STREAM_LOST_ROWS = "lost_rows"
STREAM_ENHANCED = "enhanced"
STREAM_PREVIEW = "preview"
STREAM_REGIONS = "regions"
STREAM_ANALYSIS = "analysis"
STREAM_VERIFICATION = "verification"

Purpose = Literal["coarse", "fine", "pair_coarse", "pair_fine", "map"]
RescanMode = Literal["inline", "queue", "propose"]

Disposition = Literal["rescanned", "queued", "proposed", "refused", "failed"]


def row_keys(detector: str) -> dict[str, str]:
    """Return the event keys of one row, by role.

    Every array is in order of *acquisition* (a reversed row runs from high to low) and padded
    with NaN to nx. Roles: ``counts`` [element, nx] detected photons; ``i0`` [nx];
    ``live_time`` [nx] seconds; ``fast_um``, ``slow_um`` [nx] encoder positions; and the ledger:
    ``row`` (index in the slow axis), ``attempt`` (0, 1, ... the last one wins), ``direction``
    (+1 or -1) and ``n_frames`` (frames really taken).
    """
    roles = ("counts", "i0", "live_time", "fast_um", "slow_um")
    ledger = ("row", "attempt", "direction", "n_frames")
    return {role: f"{detector}_{role}" for role in (*roles, *ledger)}


def elements_key(detector: str) -> str:
    """Return the configuration key under which the descriptor lists the element names."""
    return f"{detector}_elements"


class AnalysisRequest(BaseModel):
    """What the analysis is asked to do with one map; it travels in the map's start document.

    So a replay of the stored run gives what the live run gave.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enhance: bool = True
    """False: only assemble the map (fine maps, pairs)."""
    factor: Factor = 2
    """How many times finer the enhanced grid is, along each axis."""
    find: str | None = None
    """Element query of the region picker, such as "Fe and not Zn"; None: any element."""
    pad_um: float = Field(default=0.0, ge=0)
    """Margin added on every side of a region."""
    min_size_um: float = Field(default=0.0, ge=0)
    """Smallest side of a region; smaller finds are grown to it."""
    max_regions: int = Field(default=20, ge=1, le=1000)
    """At most so many regions are proposed for one map, best first."""
    preview_every_rows: int = Field(default=0, ge=0)
    """Enhance the map so far every so many rows; 0: only at the end."""


class TileIndex(BaseModel):
    """Which tile of a survey a run is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(ge=0)
    of: int = Field(ge=1)


class MapMetadata(BaseModel):
    """The `xrf_sr` namespace of a map run's start document (schema 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    purpose: Purpose = "map"
    survey_uid: str | None = None
    """Shared by all runs of one survey: tiles, decisions, rescans."""
    parent_uid: str | None = None
    """Run uid of the map from whose analysis this one follows."""
    region: dict[str, Any] | None = None
    """The `Region` that a fine rescan covers."""
    tile: TileIndex | None = None
    grid: dict[str, Any]
    """`ScanGrid.to_dict()`."""
    elements: list[str]
    step_um: float
    probe_fwhm_um: float | None = None
    dwell_ms: float
    sampling: Sampling = "fly"
    beamline: str = "unknown"
    analysis: AnalysisRequest | None = None
    """None: the analysis leaves this run alone."""
    user_input: dict[str, Any] = Field(default_factory=dict)
    derived_input: dict[str, Any] = Field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, with the key ``schema`` as documents carry it."""
        return self.model_dump(mode="json", by_alias=True)
