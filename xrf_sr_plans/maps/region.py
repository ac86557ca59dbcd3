"""`Region` and `Rescan`: where to look again, why, and what it costs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import ScanGrid


@dataclass(frozen=True)
class Region:
    """A rectangle of the stage worth a fine rescan; edges in um.

    `stage` is the whole stage state (other axes' positions) that the rectangle belongs to;
    `score` ranks regions of one survey, higher first; `reason` says in words why.
    """

    x_low_um: float
    x_high_um: float
    y_low_um: float
    y_high_um: float
    elements: tuple[str, ...]
    score: float
    reason: str
    source_uid: str
    predicted_sigma: float = float("nan")
    trusted_fraction: float = float("nan")
    model_sha256: str = ""
    fallback: str = ""
    stage: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.x_low_um < self.x_high_um and self.y_low_um < self.y_high_um):
            raise GridError(
                f"region x {self.x_low_um}..{self.x_high_um}, y {self.y_low_um}..{self.y_high_um}"
                " um: low must be below high and neither may be NaN"
            )

    @property
    def width_um(self) -> float:
        """Size along the fast axis."""
        return self.x_high_um - self.x_low_um

    @property
    def height_um(self) -> float:
        """Size along the slow axis."""
        return self.y_high_um - self.y_low_um

    @property
    def x_center_um(self) -> float:
        """Centre along the fast axis."""
        return (self.x_low_um + self.x_high_um) / 2

    @property
    def y_center_um(self) -> float:
        """Centre along the slow axis."""
        return (self.y_low_um + self.y_high_um) / 2

    @property
    def key(self) -> str:
        """Content key: the same source, rectangle (to a nanometre) and model give the same key."""
        edges = (self.x_low_um, self.x_high_um, self.y_low_um, self.y_high_um)
        content = [self.source_uid, [round(edge, 3) for edge in edges], self.model_sha256]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; the inverse of `from_dict`.

        What is unknown (NaN) is left out, because strict JSON can't hold it.
        """
        plain = {**asdict(self), "elements": list(self.elements), "stage": dict(self.stage)}
        return {
            name: value
            for name, value in plain.items()
            if not (isinstance(value, float) and math.isnan(value))
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Region:
        """Inverse of `to_dict`; unknown keys are refused.

        Raises
        ------
        GridError
            A field that is missing or unknown.
        """
        known = {one.name: one for one in fields(cls)}
        needed = [
            one for one, kind in known.items() if kind.default is MISSING is kind.default_factory
        ]
        missing = [one for one in needed if one not in plain]
        unknown = [str(one) for one in plain if one not in known]
        if missing or unknown:
            raise GridError(
                "not a Region: "
                + "; ".join(
                    [f"{one!r} is missing" for one in missing]
                    + [f"{one!r} is unknown (there are {', '.join(known)})" for one in unknown]
                )
            )
        try:
            return cls(**{**plain, "elements": tuple(plain["elements"])})
        except TypeError as error:
            raise GridError(f"not a Region: {error}") from error


@dataclass(frozen=True)
class Rescan:
    """A region with the fine grid that covers it and what flying it costs.

    `dose` is in units of incoming photons per um^2 where the flux is known, else in seconds of
    beam per um^2.
    """

    region: Region
    grid: ScanGrid
    dwell_ms: float
    time_s: float
    dose: float
