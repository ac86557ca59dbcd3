"""`WatchedSurveys`: what the page tells of the surveys in a folder, kept up to date in a thread."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Proposal
from xrf_sr_plans.approval.states import RegionState, Wait
from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.page.rasters import color_bar, label_size_um, raster
from xrf_sr_plans.review.annotations import length_in_words, number_places, scale_bar_um
from xrf_sr_plans.review.feed import FeedReader, first_start
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.review.report import view_of
from xrf_sr_plans.review.view import Layer, SurveyView
from xrf_sr_plans.store.ledger import file_name

logger = logging.getLogger(__name__)

MOST_OPEN = 3
"""Number of surveys that are held in memory, the latest looked at."""
_POLL_S = 0.3
_FIRST_LOOK_S = 0.15
"""How long a request waits for a survey that nobody has looked at, before it says "reading"."""
"""How often the surveys that somebody looks at are read on."""
_MOST_IMAGES = 200
_DONE = ("rescanned", "queued")


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is known of one survey at a time."""

    version: int
    view: SurveyView | None
    """None: there is no map yet."""
    layers: Mapping[str, tuple[int, Layer]]
    """Layers by name, each with the version of the survey in which it changed last."""
    facts: Mapping[str, Any]
    """What doesn't depend on the element or on decisions, as JSON types."""
    documented: tuple[Mapping[str, Any], ...]
    """The regions as the documents tell of them."""


class WatchedSurvey:
    """One survey: its maps from its documents, its regions from what was decided.

    Parameters
    ----------
    home
        Folder of the survey.
    approvals
        Where decisions are.
    """

    def __init__(self, home: Path, approvals: ApprovalFolder) -> None:
        self.home = home
        self._approvals = approvals
        self._reader = FeedReader(home)
        self._survey = GrowingSurvey()
        self._snapshot = Snapshot(0, None, {}, _facts(first_start(home), home), ())
        self._refreshing = threading.Lock()
        self.was_read = threading.Event()
        self._images: OrderedDict[tuple[str, str, int], bytes] = OrderedDict()
        self._states: tuple[int, tuple[RegionState, ...] | None] = (-1, None)
        # What takes more than a moment to work out: by layer, its version and the element; and
        # the places of numbers, by extent and edges.
        self._told: OrderedDict[tuple[str, int, int], dict[str, Any]] = OrderedDict()
        self._places: tuple[Any, list[dict[str, Any]]] = (None, [])

    @property
    def uid(self) -> str:
        """Uid of the survey."""
        return str(self._snapshot.facts.get("uid") or self.home.name)

    def refresh(self) -> None:
        """Read what has come since the last time."""
        with self._refreshing:
            if self._survey.take(self._reader.new_documents()) or not self._snapshot.version:
                self._snapshot = self._look()
        self.was_read.set()

    def state(self, element: str | None) -> dict[str, Any]:
        """Return everything that the page shows of the survey, as JSON types.

        Parameters
        ----------
        element
            The element whose maps are shown; None: the first one that was looked for.
        """
        # First of all, so that nothing that comes meanwhile counts as told.
        version, reading = self.version, not self.was_read.is_set()
        now = self._snapshot
        view = now.view
        proposal, states, wait = self._decisions()
        elements = view.elements if view else []
        shown = element if element in elements else _first_element(now.facts, elements)
        return {
            **now.facts,
            "version": version,
            "reading": reading,
            "element": shown,
            "elements": elements,
            "layers": [
                self._layer(view, layer, changed, elements.index(shown))
                for changed, layer in now.layers.values()
            ]
            if view and shown
            else [],
            # Nobody decides on regions of maps that aren't there to be seen yet.
            "regions": [] if view is None else self._regions(view, states, now.documented),
            "open": view is not None and proposal is not None,
            "waiting": None if wait is None else asdict(wait),
            "cost": _cost(proposal, states or ()),
        }

    @property
    def version(self) -> str:
        """Changes whenever there is something new to show."""
        uid = str(self._snapshot.facts.get("uid") or "")
        waits = bool(uid) and self._decisions()[2] is not None
        decided = self._approvals.version(uid) if uid else 0
        return f"{self._snapshot.version}-{decided}-{int(waits)}-{int(self.was_read.is_set())}"

    def image(self, layer_name: str, element: str) -> bytes:
        """Return a map as PNG.

        Raises
        ------
        RefusedError
            There is no such layer or element.
        """
        now = self._snapshot
        found = now.layers.get(layer_name)
        if now.view is None or found is None or element not in now.view.elements:
            raise RefusedError(f"survey {self.uid[:8]} has no map {layer_name!r} of {element!r}")
        changed, layer = found
        key = (layer_name, element, changed)
        image = self._images.get(key)
        if image is None:
            image = raster(now.view, layer, now.view.elements.index(element))
            self._images[key] = image
            while len(self._images) > _MOST_IMAGES:
                self._images.popitem(last=False)
        return image

    def _look(self) -> Snapshot:
        record, start = self._survey.record, self._survey.start
        version = self._survey.version
        if start is None or not record.coarse:
            return Snapshot(version, None, {}, _facts(start, self.home), ())
        view = view_of(record)
        layers = {}
        for layer in view.layers():
            before = self._snapshot.layers.get(layer.name)
            same = before is not None and _same(before[1], layer)
            layers[layer.name] = (before[0] if same and before else version, layer)
        extent, progress = view.extent, self._survey.progress("coarse")
        fine = self._survey.progress("fine")
        bar = scale_bar_um(extent.width_um)
        facts = {
            **_facts(start, self.home),
            "axes": list(view.axis_names),
            "extent": list(asdict(extent).values()),
            "scale_bar": {"um": bar, "words": length_in_words(bar)},
            "coarse": asdict(progress),
            "fine": asdict(fine),
            "verdicts": [str(verdict) for verdict in record.verdicts],
            "notes": sorted({one.fallback for one in record.enhanced.values() if one.fallback}),
        }
        return Snapshot(version, view, layers, facts, record.regions)

    def _layer(self, view: SurveyView, layer: Layer, changed: int, index: int) -> dict[str, Any]:
        key = (layer.name, changed, index)
        if key not in self._told:
            self._told[key] = self._layer_facts(view, layer, changed, index)
            while len(self._told) > _MOST_IMAGES:
                self._told.popitem(last=False)
        return self._told[key]

    @staticmethod
    def _layer_facts(view: SurveyView, layer: Layer, changed: int, index: int) -> dict[str, Any]:
        low, high = view.color_range(layer, index)
        note = ""
        if layer.name == "sigma":
            share = 1 - float(np.mean([one.trusted.values[index].mean() for one in view.enhanced]))
            note = f"{100 * share:.0f} % not trusted (hatched)" if share else "all of it trusted"
        return {
            "name": layer.name,
            "title": layer.title,
            "version": changed,
            "range": [float(f"{low:.3g}"), float(f"{high:.3g}")],
            "colors": color_bar(layer.scale),
            "unit": "σ, photons" if layer.scale == "sigma" else "photons",
            "note": note,
        }

    def _decisions(
        self,
    ) -> tuple[Proposal | None, tuple[RegionState, ...] | None, Wait | None]:
        uid = str(self._snapshot.facts.get("uid") or "")
        try:
            proposal = self._approvals.proposal(uid) if uid else None
        except RefusedError:
            proposal = None
        if proposal is None:
            return None, None, None
        version = self._approvals.version(uid)
        if self._states[0] != version:
            self._states = version, self._approvals.regions(uid)
        return proposal, self._states[1], self._approvals.waiting(uid)

    def _regions(
        self,
        view: SurveyView,
        states: tuple[RegionState, ...] | None,
        documented: tuple[Mapping[str, Any], ...],
    ) -> list[dict[str, Any]]:
        rows = (
            [_documented(number, row) for number, row in enumerate(documented, start=1)]
            if states is None
            else [_decided(state) for state in states]
        )
        extent = view.extent
        regions = [row.pop("region") for row in rows]
        key = (extent, [row["edges"] for row in rows])
        if self._places[0] != key:
            places = number_places(regions, extent, *label_size_um(extent))
            self._places = key, [asdict(place) for place in places]
        for row, place in zip(rows, self._places[1], strict=True):
            row["place"] = place
        return rows


class WatchedSurveys:
    """All surveys of a folder.

    Parameters
    ----------
    folder
        The folder that `review.feed.SurveyFeed` writes to.
    approvals
        Where decisions are.
    """

    def __init__(self, folder: str | Path, approvals: ApprovalFolder) -> None:
        self.folder = Path(folder)
        self.approvals = approvals
        self._open: OrderedDict[str, tuple[float, WatchedSurvey]] = OrderedDict()
        self._lock = threading.Lock()
        self._facts: dict[str, dict[str, Any]] = {}
        self._wanted, self._is_closed = threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name="xrf-sr-watching", daemon=True)
        self._thread.start()

    def listed(self) -> list[dict[str, Any]]:
        """Return what is known of each survey, the latest first, as JSON types."""
        found = []
        homes = [home for home in self.folder.glob("*") if home.is_dir()]
        for home in homes:
            if home.name not in self._facts:
                facts = _facts(first_start(home), home)
                if not facts.get("time"):
                    continue
                self._facts[home.name] = facts
            report = (home / "report.html").exists()
            found.append({**self._facts[home.name], "report": report})
        return sorted(found, key=lambda facts: facts["time"], reverse=True)

    def survey(self, name: str) -> WatchedSurvey:
        """Return the survey with a uid; it is followed while somebody asks for it.

        Raises
        ------
        RefusedError
            There is no such survey.
        """
        name = file_name(name)
        with self._lock:
            known = self._open.pop(name, None)
            if known is None:
                home = self.folder / name
                if not home.is_dir():
                    raise RefusedError(f"there is no survey {name!r}")
                survey = WatchedSurvey(home, self.approvals)
            else:
                survey = known[1]
            self._open[name] = time.monotonic(), survey
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
        if known is None:
            # Large surveys take seconds to read, for which no request waits.
            self._wanted.set()
            survey.was_read.wait(_FIRST_LOOK_S)
        return survey

    def close(self) -> None:
        """Follow nothing any more."""
        self._is_closed = True
        self._wanted.set()
        self._thread.join(1.0)

    def _follow(self) -> None:
        while not self._is_closed:
            with self._lock:
                watched = [survey for _, survey in self._open.values()]
            # What nobody has read is what somebody has just asked for.
            for survey in sorted(watched, key=lambda one: one.was_read.is_set()):
                try:
                    survey.refresh()
                except Exception:  # whoever looks at it must still see what there was
                    logger.exception("survey %s", survey.home.name)
            self._wanted.wait(_POLL_S)
            self._wanted.clear()


def _same(one: Layer, other: Layer) -> bool:
    return len(one.tiles) == len(other.tiles) and all(
        mine[1] is theirs[1] for mine, theirs in zip(one.tiles, other.tiles, strict=True)
    )


def _facts(start: Mapping[str, Any] | None, home: Path) -> dict[str, Any]:
    start = start or {}
    metadata = start.get("xrf_sr") or {}
    user_input = metadata.get("user_input") or {}
    return {
        "uid": str(metadata.get("survey_uid") or ""),
        "name": home.name,
        "time": float(start.get("time") or 0.0),
        "sample": str(start.get("sample") or ""),
        "find": str(user_input.get("find") or ""),
        "beamline": str(metadata.get("beamline") or ""),
        "rescan": str(user_input.get("rescan") or "inline"),
    }


def _first_element(facts: Mapping[str, Any], elements: list[str]) -> str:
    """Return the first element that the query names, or else the first that was measured."""
    words = "".join(c if c.isalnum() or c == "_" else " " for c in str(facts.get("find", "")))
    named = [word for word in words.split() if word in elements]
    return (named or elements or [""])[0]


def _cost(proposal: Proposal | None, states: tuple[RegionState, ...]) -> dict[str, Any] | None:
    if proposal is None:
        return None
    approved = [one for one in states if one.disposition in ("approved", *_DONE)]
    undecided = [one for one in states if one.undecided]
    return {
        "approved_s": sum(one.time_s for one in approved),
        "undecided_s": sum(one.time_s for one in undecided),
        "budget_s": proposal.budget_left_s,
        "dose": proposal.dose if approved else 0.0,
        "max_dose": proposal.max_dose,
        "dose_unit": proposal.dose_unit,
        "step_um": proposal.fine_step_um,
        "ready": sum(one.ready for one in states),
        "undecided": len(undecided),
    }


def _decided(state: RegionState) -> dict[str, Any]:
    region = state.region
    return {
        "region": region,
        "number": state.number,
        "key": state.key,
        "elements": list(region.elements),
        "score": region.score,
        "edges": [region.x_low_um, region.x_high_um, region.y_low_um, region.y_high_um],
        "picked": region.reason,
        "expected": _expected(region.reason),
        "reason": state.reason,
        "disposition": state.disposition,
        "time_s": state.time_s,
        "who": state.who,
        "when": state.when,
        "why": state.why,
        "editable": not state.objection("edit"),
        "run_uid": state.run_uid,
        "drawn": state.drawn,
    }


def _expected(reason: str) -> str | None:
    """Return how many targets a region is expected to hold, as its reason begins by saying."""
    found = re.match(r"(\S+) (?:matches of|places that)\b", reason)
    return found[1] if found else None


def _documented(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    region = Region.from_dict(row["region"])
    state = RegionState(
        number, region.key, region, row["disposition"], str(row["reason"]), 0.0,
        run_uid=str(row.get("run_uid") or ""),
    )  # fmt: skip
    return {**_decided(state), "editable": False, "time_s": None}
