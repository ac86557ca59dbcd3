"""`Region` and `Rescan` say where to look again, why, and what it costs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from numbers import Real
from typing import Any

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.grid import ScanGrid


@dataclass(frozen=True)
class Region:
    """A rectangle of the stage that is worth a fine rescan.

    Parameters
    ----------
    x_low_um
        Lower edge along the fast axis.
    x_high_um
        Upper edge along the fast axis.
    y_low_um
        Lower edge along the slow axis.
    y_high_um
        Upper edge along the slow axis.
    elements
        Names of the elements for which the region was chosen.
    score
        Worth of a rescan. Of the regions of one survey, the one with the highest is flown first.
    reason
        In words, why the region was chosen.
    source_uid
        Uid of the run of the map in which it was found.
    predicted_sigma
        Mean standard deviation of the estimate in the pixels that satisfy the query, in photons
        per coarse pixel; NaN: unknown.
    trusted_fraction
        Share of those pixels in which the estimate is trusted; NaN: unknown.
    model_sha256
        Digest of the model's weights; "" where no model was used.
    fallback
        Why no model was used; "" where one was.
    stage
        Positions of the other axes, by name, that the rectangle belongs to.
    approval
        Who approved it, from where, when (seconds since 1970) and why, by the keys ``who``,
        ``via``, ``when`` and ``why``; where a person changed the rectangle, also ``replaces``, the
        key that it had before. Empty where nobody was asked.

    Raises
    ------
    GridError
        A lower edge is not below the upper one, an edge is not a finite number, or another value
        is not of its type.
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
    approval: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edges = (self.x_low_um, self.x_high_um, self.y_low_um, self.y_high_um)
        sound = all(isinstance(edge, Real) and math.isfinite(edge) for edge in edges)
        if not (sound and self.x_low_um < self.x_high_um and self.y_low_um < self.y_high_um):
            raise GridError(
                f"region x {self.x_low_um}..{self.x_high_um}, y {self.y_low_um}..{self.y_high_um}"
                " um: low must be below high and all four finite numbers"
            )
        for name in ("score", "predicted_sigma", "trusted_fraction"):
            if not isinstance(getattr(self, name), Real):
                value = getattr(self, name)
                raise GridError(f"region: {name} is {value!r:.80}; it must be a number")
        for name in ("reason", "source_uid", "model_sha256", "fallback"):
            if not isinstance(getattr(self, name), str):
                raise GridError(f"region: {name} is {getattr(self, name)!r:.80}; it must be text")
        if not all(isinstance(element, str) for element in self.elements):
            text = f"region: elements is {self.elements!r:.80}; it must be a list of names"
            raise GridError(text)
        if not _is_stage(self.stage):
            text = f"region: stage is {self.stage!r:.80}; it must be positions by name of the axis"
            raise GridError(text)
        if not isinstance(self.approval, Mapping):
            raise GridError(f"region: approval is {self.approval!r:.80}; it must be a mapping")

    @property
    def width_um(self) -> float:
        """Size along the fast axis, in um."""
        return self.x_high_um - self.x_low_um

    @property
    def height_um(self) -> float:
        """Size along the slow axis, in um."""
        return self.y_high_um - self.y_low_um

    @property
    def x_center_um(self) -> float:
        """Center along the fast axis, in um."""
        return (self.x_low_um + self.x_high_um) / 2

    @property
    def y_center_um(self) -> float:
        """Center along the slow axis, in um."""
        return (self.y_low_um + self.y_high_um) / 2

    @cached_property
    def key(self) -> str:
        """Key made of the content.

        Regions with the same source, rectangle (to a nanometer) and model have the same key.
        """
        edges = (self.x_low_um, self.x_high_um, self.y_low_um, self.y_high_um)
        content = [self.source_uid, [round(edge, 3) for edge in edges], self.model_sha256]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON types; the inverse of `from_dict`.

        What is unknown (NaN) is left out, because strict JSON can't hold it, and so is the approval
        of a region that nobody was asked about.
        """
        plain = {**asdict(self), "elements": list(self.elements), "stage": dict(self.stage)}
        if not self.approval:
            del plain["approval"]
        return {
            name: value
            for name, value in plain.items()
            if not (isinstance(value, float) and math.isnan(value))
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Region:
        """Return the region that `to_dict` made these values of.

        Raises
        ------
        GridError
            A field is missing, unknown or of the wrong type.
        """
        known = {attribute.name: attribute for attribute in fields(cls)}
        needed = [
            name
            for name, attribute in known.items()
            if attribute.default is MISSING is attribute.default_factory
        ]
        missing = [name for name in needed if name not in values]
        unknown = [str(name) for name in values if name not in known]
        if missing or unknown:
            raise GridError(
                "not a Region: "
                + "; ".join(
                    [f"{name!r} is missing" for name in missing]
                    + [f"{name!r} is unknown (there are {', '.join(known)})" for name in unknown]
                )
            )
        if isinstance(values["elements"], str):
            raise GridError(f"not a Region: elements is {values['elements']!r:.80}, not a list")
        try:
            return cls(**{**values, "elements": tuple(values["elements"])})
        except TypeError as error:
            raise GridError(f"not a Region: {error}") from error


def _is_stage(stage: Any) -> bool:
    return isinstance(stage, Mapping) and all(
        isinstance(name, str) and isinstance(position, Real) for name, position in stage.items()
    )


@dataclass(frozen=True)
class Rescan:
    """A region with the fine grid that covers it and what flying it costs.

    Parameters
    ----------
    region
        The region.
    grid
        The fine grid, which covers the region.
    dwell_ms
        Time at each pixel.
    time_s
        Time that flying the grid is expected to take.
    dose
        Incoming photons per um^2 where the flux is known, else seconds of beam per um^2.
    """

    region: Region
    grid: ScanGrid
    dwell_ms: float
    time_s: float
    dose: float
