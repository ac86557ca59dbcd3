"""Whether rescans are worth it: what they are expected to find, and what they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Forecast:
    """What the rescans of a map are expected to find.

    Parameters
    ----------
    expected_targets
        Expected number of distinct targets in the map.
    share_found
        Expected share of them that lies completely in the regions.
    share_with_more_time
        The same with a tenth more time for rescans; without a limit it is `share_found`.
    rescans_s
        Seconds that the regions take.
    whole_s
        Seconds that a fine map of everything would take.
    """

    expected_targets: float
    share_found: float
    share_with_more_time: float
    rescans_s: float
    whole_s: float

    def to_dict(self) -> dict[str, float]:
        """Return the forecast for a document."""
        return asdict(self)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Forecast:
        """Read a forecast back from a document.

        Raises
        ------
        KeyError, TypeError, ValueError
            A number is missing, or is none.
        """
        return cls(**{field.name: float(facts[field.name]) for field in fields(cls)})

    def __str__(self) -> str:
        """Return the forecast in words."""
        more = ""
        if self.share_with_more_time > self.share_found:
            more = f" (with a tenth more time {self.share_with_more_time:.0%})"
        return (
            f"{self.share_found:.0%} of {self.expected_targets:.2g} expected targets lie in the"
            f" regions{more}, which take {self.rescans_s:.3g} s; a fine map of everything takes"
            f" {self.whole_s:.3g} s"
        )
