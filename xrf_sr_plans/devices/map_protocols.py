"""`HasMapPlan`: what plans use of a flyer that measures maps as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, runtime_checkable

from bluesky.utils import MsgGenerator

from xrf_sr_plans.devices.protocols import RowRequest


class WholeMapRequest(TypedDict):
    """One attempt at a whole map, as the flyer of whole maps is told in `prepare`; plain JSON."""

    map_key: str
    """Differs from map to map, so that the flyer can count the attempts at one map."""
    rows: list[RowRequest]
    """The rows in the order of their index, each where it is to be."""
    grid: dict[str, Any]
    """The pixels as positions of the axes (`ScanGrid.to_dict`)."""
    dwell_ms: float
    """Time at each pixel, in ms."""
    timeout_s: float
    """How long the map may take before it is given up, in s."""


@runtime_checkable
class HasMapPlan(Protocol):
    """A flyer that measures a map as a whole, by a plan that isn't ours.

    `prepare` takes a `WholeMapRequest`. After `map_plan` comes `complete`, which waits for what the
    scan has left behind, and then `collect`, which yields one event for each row that is there.
    """

    patience_s: float
    """Longest time in seconds that `prepare` and `complete` take."""
    squares_only: bool
    """Whether its pixels have to be as long as its rows are apart."""

    def map_plan(self, request: WholeMapRequest) -> MsgGenerator[None]:
        """Measure the map, between prepare and complete.

        It raises a `FlightError` where the map was interrupted: it has to be measured anew.
        """
        ...

    def missing_rows(self) -> Mapping[int, str]:
        """Return why a row can't be collected, by its index, once `complete` is done."""
        ...

    def provenance(self) -> Mapping[str, str]:
        """Return where the rows come from, once `complete` is done: path, reader and notes."""
        ...
