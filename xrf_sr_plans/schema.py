"""The vocabulary of documents: names of plans, streams and keys, and the `xrf_sr` metadata.

Whatever writes or reads a document takes its names from here, so that live runs, replayed runs
and result runs can't drift apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from xrf_sr_plans.measurement import Factor, Sampling

Document = tuple[str, dict[str, Any]]
"""Name of a document, such as "start" or "event", and the document itself."""
Documents = list[Document]
"""Documents in the order in which they are emitted."""
DocumentSink = Callable[[str, dict[str, Any]], None]
"""Takes one document after the other, as ``sink(name, doc)``."""

SCHEMA_VERSION = 1

PLAN_MAP = "xrf_fly_map"
PLAN_PROPOSALS = "xrf_survey_proposals"
"""The run that records the analyses and the proposed regions, before any region is flown."""
PLAN_OUTCOMES = "xrf_survey_outcomes"
"""The run that records what became of each region, after the last fine map."""
PLAN_APPROVALS = "xrf_survey_approvals"
"""A run that records what people decided about regions: who, when and why."""
PLAN_RESULT = "xrf_super_resolution"
PLAN_CHOICE = "xrf_survey_choice"
"""The run that records which regions were chosen on all tiles of a survey as one map."""
PLAN_VERIFICATION = "xrf_verification"
PLAN_COMPOSITE = "xrf_composite"
"""The run that holds one map of a survey: measured where it was rescanned, else estimated."""
PLAN_COLLECTION = "xrf_pair_collection"
"""A run that records what became of each area of a collection of pairs."""
PLAN_OF_KIND = {
    "map": PLAN_MAP,
    "proposals": PLAN_PROPOSALS,
    "approvals": PLAN_APPROVALS,
    "outcomes": PLAN_OUTCOMES,
    "result": PLAN_RESULT,
    "preview": PLAN_RESULT,
    "choice": PLAN_CHOICE,
    "verification": PLAN_VERIFICATION,
    "composite": PLAN_COMPOSITE,
    "collection": PLAN_COLLECTION,
}
"""The `plan_name` that runs have of each kind (`kind_of_run`), unless users name them."""

STREAM_ROWS = "primary"
STREAM_LOST_ROWS = "lost_rows"
STREAM_SCAN_FILE = "scan_file"
"""The file that the rows of a map were read from, where somebody else's plan has flown it."""
STREAM_ENHANCED = "enhanced"
STREAM_PREVIEW = "preview"
STREAM_REGIONS = "regions"
STREAM_ANALYSIS = "analysis"
STREAM_VERIFICATION = "verification"
STREAM_COMPOSITE = "composite"

MISSING_DOCUMENTS = "missing_documents"
"""Key of a stop document under which the intake of a bus says what did not come of the run."""

Purpose = Literal["coarse", "fine", "pair_coarse", "pair_fine", "map"]
"""What a map is for: a survey, a rescan, either half of a pair, or just a map."""
PixelChoice = Literal["rows", "squares"]
"""How a map of coarse rows is read out: in pixels `factor` times shorter than the rows are apart,
or in square ones."""
PairOrder = Literal["bracketed", "coarse first"]
"""In which order the maps of a pair are flown: coarse, fine, and coarse again, or coarse and fine.
"""
RescanMode = Literal["inline", "ask", "queue", "propose"]
"""What is done with the chosen regions: fly them at once, fly those that somebody approves, queue
them, or only name them."""
Undecided = Literal["propose", "approve", "deny"]
"""What becomes of regions that nobody has decided on in time: they stay proposed and can be
approved later, are flown, or are not flown."""
Disposition = Literal["proposed", "approved", "denied", "rescanned", "queued", "refused", "failed"]
"""What became of a region, or what a person has decided about it."""
RunKind = Literal[
    "map",
    "proposals",
    "approvals",
    "outcomes",
    "result",
    "preview",
    "choice",
    "verification",
    "composite",
    "collection",
    "",
]
"""What a run is; "" for the runs of other people."""

RESERVED_KEYS = frozenset(
    {
        # What the RunEngine itself writes, and the arguments of its message "open_run".
        *("uid", "time", "command", "obj", "run"),
        # What says how the map was measured, to our readers, bluesky's callbacks or PyXRF.
        *("xrf_sr", "plan_args", "motors", "detectors", "shape", "num_points", "extents"),
        *("snaking", "hints", "scan", "pair_uid", "survey_uid"),
        "collection_uid",
        # What only a result run has.
        "original_run_uid",
    }
)
"""Keys of a start document that a user's metadata can't have."""


def kind_of_run(start: Mapping[str, Any]) -> RunKind:
    """Return what a run is, whatever its `plan_name`, which users may replace by their own.

    Parameters
    ----------
    start
        The start document of any run.
    """
    metadata = start.get("xrf_sr")
    if isinstance(metadata, Mapping):
        purpose = metadata.get("purpose")
        if purpose in ("proposals", "approvals", "outcomes", "collection"):
            return purpose
        return "map" if purpose in get_args(Purpose) and "grid" in metadata else ""
    # No user's metadata reach the runs that the analysis makes.
    if "original_run_uid" not in start:
        return ""
    plan_name = start.get("plan_name")
    for kind in ("choice", "verification", "composite"):
        if plan_name == PLAN_OF_KIND[kind]:
            return kind
    if plan_name != PLAN_RESULT:
        return ""
    return "preview" if start.get("purpose") == "preview" else "result"


def row_keys(detector: str) -> dict[str, str]:
    """Return the keys of a row's event by role.

    Arrays are in order of *acquisition*, so a reversed row runs from high to low positions. Frames
    that were not taken are NaN at the end. The roles are

    - ``counts``: detected photons, (element, frame);
    - ``i0``: readings of the beam monitor, (frame,);
    - ``live_time``: live times in seconds, (frame,);
    - ``fast_um`` and ``slow_um``: encoder positions in um, (frame,);
    - ``row``: index of the row along the slow axis;
    - ``attempt``: 0, 1 and so on, where the last attempt at a row counts;
    - ``direction``: +1, or -1 for a reversed row;
    - ``n_frames``: number of frames that were taken.

    Parameters
    ----------
    detector
        Name of the detector, which each key begins with.
    """
    roles = ("counts", "i0", "live_time", "fast_um", "slow_um")
    ledger = ("row", "attempt", "direction", "n_frames")
    return {role: f"{detector}_{role}" for role in (*roles, *ledger)}


def elements_key(detector: str) -> str:
    """Return the configuration key under which the descriptor lists the element names."""
    return f"{detector}_elements"


class RescanModel(BaseModel):
    """What the rescans of a survey cost, and what they may cost together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step_um: float = Field(gt=0, allow_inf_nan=False)
    """Step of the rescans along both axes, in um."""
    dwell_ms: float = Field(gt=0, allow_inf_nan=False)
    """Time at each pixel in ms, with what the row time model adds to it."""
    row_overhead_s: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Seconds that a row takes besides its pixels."""
    region_overhead_s: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    """Seconds for the way to a region, and for starting there."""
    budget_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Beam time for all rescans of this map in s; None means no limit."""
    reach_um: tuple[float, float] | None = None
    """Largest width and height of a region in um; None means the whole map."""
    stage: dict[str, float] = Field(default_factory=dict)
    """Positions of the other axes in the survey, by name; they go into every region."""


Worth = Literal["targets", "signal", "uncertainty", "novelty"]
"""What a rescan can be worth: distinct targets, their signal, uncertainty, unusual composition."""


AreaChoice = Literal["least sure", "least represented"]
"""Where pairs are acquired: where a rescan takes most uncertainty away, or where the sample is
least like what the pair store has."""


class PairAreas(BaseModel):
    """Areas that a survey chooses for pairs, in the place of regions for rescans."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size_um: float = Field(gt=0, allow_inf_nan=False)
    """Side of each square area in um, rounded to whole coarse pixels."""
    number: int = Field(ge=1, le=1000)
    """How many areas are chosen at most."""
    by: AreaChoice = "least represented"


class AnalysisRequest(BaseModel):
    """What the analysis is asked to do with one map.

    The request is in the start document of the map's run, so that a replay of the stored run does
    the same as the live analysis did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enhance: bool = True
    """Whether to enhance the map; fine maps and pairs are only assembled."""
    factor: Factor = 2
    """How many times finer the enhanced grid is, along each axis."""
    find: str | None = None
    """Element query of the region picker, such as "Fe and not Zn"; None stands for any element."""
    pad_um: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Margin in um that is added on every side of a region."""
    min_size_um: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Shortest side of a region in um, to which smaller ones are grown."""
    max_regions: int = Field(default=200, ge=1, le=1000)
    """Largest number of regions that are proposed for one map; the best ones are kept. A note says
    how many were left out."""
    worth: dict[Worth, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        default_factory=lambda: {"targets": 0.6, "signal": 0.4}, min_length=1
    )
    """What makes a rescan worth its time: weights of the expected number of distinct targets
    (``targets``), of how much they stand out (``signal``, by which the most prominent ones are not
    left out for being large), of the uncertainty that goes (``uncertainty``) and of how unlike the
    rest of the map they are (``novelty``)."""
    rescans: RescanModel | None = None
    """What rescans cost; None: as many pixels as the map is enhanced to, with the map's dwell."""
    preview_every_rows: int = Field(default=0, ge=0)
    """Number of rows after which the unfinished map is enhanced each time; 0 means never."""
    pair_areas: PairAreas | None = None
    """Areas for pairs that are chosen in the place of regions; None: regions are chosen."""

    @model_serializer(mode="wrap")
    def _as_before(self, serialized: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out areas for pairs where there are none: other surveys' results stay the same."""
        plain = serialized(self)
        if plain.get("pair_areas") is None:
            plain.pop("pair_areas", None)
        return plain


class TileIndex(BaseModel):
    """Which tile of a survey a run is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(ge=0)
    """Number of the tile, counted from 0."""
    of: int = Field(ge=1)
    """How many tiles the survey has."""
    earlier: list[str] = Field(default_factory=list)
    """On the last tile, the uids of the runs of those before it, in the order of flight."""


class MapMetadata(BaseModel):
    """The metadata `xrf_sr` in the start document of a map run (schema 1)."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    purpose: Purpose = "map"
    survey_uid: str | None = None
    """Uid of the survey, which its tiles, decisions and rescans share."""
    parent_uid: str | None = None
    """Uid of the run of the map whose analysis led to this one."""
    region: dict[str, Any] | None = None
    """The `Region` that a fine rescan covers, as a dict."""
    tile: TileIndex | None = None
    grid: dict[str, Any]
    """The `ScanGrid` in coordinates of the sample, as a dict."""
    placement: dict[str, Any] | None = None
    """The `StagePlacement` of the axes that fly the map, as a dict; with None, the encoders read
    coordinates of the sample."""
    stage: dict[str, float] = Field(default_factory=dict)
    """Positions by name of the axes that don't fly the map: those of the two stages that don't, in
    um, and of the others in their own units."""
    elements: list[str]
    step_um: float
    """Distance between two rows in um, which is also the length of a step along them."""
    fast_pixels: Factor = 1
    """Pixels per step along the fast axis: more than 1 where rows are read out finely."""
    probe_fwhm_um: float | None = None
    """Full width at half maximum of the probe; None where it is not known."""
    dwell_ms: float
    """Time per *pixel* in ms, which is `fast_pixels` times less than the time per step."""
    readout_ms: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Part of that time in ms in which the detector is read out and counts nothing."""
    sampling: Sampling = "fly"
    beamline: str = "unknown"
    analysis: AnalysisRequest | None = None
    """What to do with the map; with None, the analysis ignores the run."""
    user_input: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the plan as they were given."""
    derived_input: dict[str, Any] = Field(default_factory=dict)
    """What the plan worked out from them."""
    notes: list[str] = Field(default_factory=list)
    """What is odd about a run of another program, as its reader found."""

    @property
    def counting_ms(self) -> float:
        """Time in ms in which each pixel counted."""
        return self.dwell_ms - self.readout_ms

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as JSON types, under the keys that documents use."""
        return self.model_dump(mode="json", by_alias=True)
