"""`over_all`: what each method gained over many maps, from their tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich import box
from rich.table import Table


@dataclass(frozen=True)
class OverAll:
    """One method over all maps on which it ran. Each map counts once, by its mean."""

    method: str
    maps: int
    """Number of maps whose gain is known."""
    gain_db: float
    """Mean of the maps' mean gains; NaN where no map has one."""
    least_db: float
    """The mean gain on the map where it is the lowest."""
    least_of: str
    """The name of that map."""
    best_on: int
    """Number of maps on which no other method gains more."""
    coverage_90: float | None
    """Mean share of true pixels in the 90 % interval; None where it gives none."""


def over_all(tables: Sequence[Mapping[str, Any]]) -> list[OverAll]:
    """Return each method over many maps, in the order of the first table that has it.

    Parameters
    ----------
    tables
        Tables as `table.to_dict` returns them.
    """
    gains: dict[str, list[tuple[float, str]]] = {}
    covered: dict[str, list[float]] = {}
    best: dict[str, int] = {}
    for table in tables:
        found: dict[str, float] = {}
        for summary in table["summaries"]:
            method, gain = summary["method"], summary["gain_db"]
            known = gains.setdefault(method, [])
            if gain is not None:
                known.append((gain, str(table["path"])))
                found[method] = gain
            if (share := summary["mean"]["coverage_90"]) is not None:
                covered.setdefault(method, []).append(share)
        for method, gain in found.items():
            best[method] = best.get(method, 0) + (gain == max(found.values()))
    return [_of(method, known, best, covered) for method, known in gains.items()]


def _of(
    method: str,
    known: list[tuple[float, str]],
    best: Mapping[str, int],
    covered: Mapping[str, list[float]],
) -> OverAll:
    least_db, least_of = min(known, default=(float("nan"), ""))
    shares = covered.get(method)
    return OverAll(
        method=method,
        maps=len(known),
        gain_db=float(np.mean([gain for gain, _ in known])) if known else float("nan"),
        least_db=least_db,
        least_of=least_of,
        best_on=best.get(method, 0),
        coverage_90=float(np.mean(shares)) if shares else None,
    )


def render_over_all(rows: Sequence[OverAll]) -> Table:
    """Return what is printed of them, the best method in bold."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("over all maps", no_wrap=True)
    for name in ("maps", "gain dB", "least", "best on", "cover 90"):
        shown.add_column(name, justify="right")
    shown.add_column("least on", overflow="fold")
    top = max((row.gain_db for row in rows if row.maps), default=float("nan"))
    for row in rows:
        gain, least = (
            f"{value:+.2f}" if row.maps else "-" for value in (row.gain_db, row.least_db)
        )
        share = "-" if row.coverage_90 is None else f"{row.coverage_90:.3f}"
        style = "bold" if row.gain_db == top else None
        numbers = (str(row.maps), gain, least, str(row.best_on), share)
        shown.add_row(row.method, *numbers, row.least_of, style=style)
    return shown
