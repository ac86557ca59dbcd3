"""`MapVerdict`: what a fine map says about the prediction that led to it, in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.schema import Document

_BELIEVE = "believe"
_UNJUDGED = "too few pixels to judge"


@dataclass(frozen=True)
class ElementVerdict:
    """How the prediction of one element did.

    Attributes
    ----------
    element
        Name of the element.
    coverage_90
        Share of the measured pixels inside the predicted 90 % interval.
    gain_db
        How much nearer than bicubic the prediction was, in dB (PSNR).
    advice
        "believe", what to do about the model, or that too little is known to judge.
    """

    element: str
    coverage_90: float
    gain_db: float
    advice: str

    def __str__(self) -> str:
        inside = f"{100 * self.coverage_90:.0f} % inside the 90 % interval"
        gain = f", {self.gain_db:+.1f} dB over bicubic" if math.isfinite(self.gain_db) else ""
        return f"{self.element}: {inside}{gain}: {self.advice}"

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ElementVerdict:
        """Return the verdict in the data of one event of a verification run."""
        advice = str(row.get("recommendation") or "fine")
        if advice == "fine":
            advice = _UNJUDGED if row.get("judgement", "unknown") == "unknown" else _BELIEVE
        gain = row.get("gain_db")
        return cls(
            str(row["element"]),
            float(row["coverage_90"]),
            math.nan if gain is None else float(gain),
            advice,
        )


@dataclass(frozen=True)
class MapVerdict:
    """How the prediction of one region did, by what was measured there.

    Attributes
    ----------
    fine_uid
        Uid of the fine map.
    elements
        The verdict on each element.
    warning
        What the model as a whole calls for, in words; empty where it calls for nothing.
    reason
        Why nothing could be compared; empty where it was.
    notes
        Where the map was flown, if that is not where it should have been.
    """

    fine_uid: str
    elements: tuple[ElementVerdict, ...]
    warning: str = ""
    reason: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        which = f"rescan {self.fine_uid[:8]}"
        if self.reason or not self.elements:
            return f"{which}: not compared: {self.reason or 'no element in common'}"
        words = "; ".join(str(element) for element in self.elements)
        return f"{which}: {words}"

    @classmethod
    def from_documents(cls, documents: Sequence[Document]) -> MapVerdict:
        """Return the verdict in the documents of a verification run."""
        start = next(doc for name, doc in documents if name == "start")
        stop = next((doc for name, doc in documents if name == "stop"), {})
        rows = [doc["data"] for name, doc in documents if name == "event"]
        return cls(
            str(start["original_run_uid"]),
            tuple(ElementVerdict.from_row(row) for row in rows),
            str((start.get("overall") or {}).get("warning") or ""),
            str(stop.get("reason") or ""),
            tuple(str(note) for note in start.get("notes") or ()),
        )


def verdicts(documents: Iterable[Document]) -> Iterator[MapVerdict]:
    """Yield the verdict of each verification run among documents, which may be interleaved."""
    index = RunIndex()
    runs: dict[str, list[Document]] = {}
    for name, doc in documents:
        uid = index.run_of(name, doc)
        if uid is None:
            continue
        if name == "start" and schema.kind_of_run(doc) == "verification":
            runs[uid] = []
        if uid in runs:
            runs[uid].append((name, doc))
            if name == "stop":
                yield MapVerdict.from_documents(runs.pop(uid))
