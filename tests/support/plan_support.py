"""What the tests of plans share: a small beamline, an analysis that is a lookup, interruptions."""

from __future__ import annotations

import inspect
import os
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Any

import event_model
import numpy as np
from bluesky import RunEngine
from bluesky.utils import Msg, RunEngineInterrupted

from xrf_sr_plans.approval.desk import ApprovalDesk
from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.approval.records import Proposal, ProposedRegion, SurveyTile
from xrf_sr_plans.devices.analysis import AnalysisDevice
from xrf_sr_plans.devices.protocols import AnalysisSummary, RowTimeModel
from xrf_sr_plans.devices.sim import SimBeamline, make_beamline
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.request import CollectRequest
from xrf_sr_plans.plans.survey import coarse_survey_with_sr

_AREA = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10}
_ENDS = {"x_start_um": 0, "x_stop_um": 3, "x_num": 4, "y_start_um": 0, "y_stop_um": 1}
_FINE = {"fine_step_um": 0.5, "dwell_ms": 10}
_BOX = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 2}
GOOD_CALLS: dict[str, dict[str, Any]] = {
    "coarse_survey_with_sr": _AREA,
    "xrf_map": _AREA,
    "xrf_map_start_stop": {**_ENDS, "y_num": 2, "dwell_ms": 10},
    "rescan_regions": {"regions": [_BOX], **_FINE},
    "acquire_pair": {"width_um": 4, "height_um": 2, **_FINE},
    "collect_pairs": {"regions": [_BOX], **_FINE},
    "survey_and_collect_pairs": {
        "width_um": 8,
        "height_um": 4,
        "pair_um": 2,
        "number": 2,
        **_FINE,
        "x_center_um": 0,
        "y_center_um": 0,
    },
    "resume_collection": {},
    "rescan_approved": {},
}
"""Arguments with which each of the users' plans is flown on `small_beamline`, by plan name."""

PAIR_DEFAULTS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in inspect.signature(inspect.unwrap(collect_pairs)).parameters.items()
    if parameter.default is not inspect.Parameter.empty
}
"""What `collect_pairs` is asked where nothing is said."""

QUICK = RowTimeModel(overhead_s=0.2, patience=1.0, grace_s=0.3)


class Lookup:
    """A results source that knows the answer: `answers` by number of the question."""

    def __init__(self, answers: list[list[tuple[float, float, float, float]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def request(self, source_uid: str) -> Future[AnalysisSummary]:
        if source_uid not in self.asked:
            self.asked.append(source_uid)
        # All tiles as one map are asked for last, and answered like the first tile.
        number = self.asked.index(source_uid) % len(self.answers)
        boxes = self.answers[number]
        regions = tuple(region(*box, source_uid=self.asked[number]) for box in boxes)
        future: Future[AnalysisSummary] = Future()
        future.set_result(
            AnalysisSummary(source_uid, f"result-of-{source_uid}", "done", "", regions)
        )
        return future

    def fall_back(self, source_uid: str, reason: str) -> Future[AnalysisSummary]:
        future: Future[AnalysisSummary] = Future()
        future.set_result(AnalysisSummary(source_uid, "", "fallback", reason, ()))
        return future


def region(x_low: float, x_high: float, y_low: float, y_high: float, **changes: Any) -> Region:
    facts = {"elements": ("Fe",), "score": 1.0, "reason": "Fe stands out", "source_uid": "u"}
    return Region(x_low, x_high, y_low, y_high, **{**facts, **changes})


def small_beamline(
    boxes: list[list[tuple[float, float, float, float]]] | None = None, **changes: Any
) -> SimBeamline:
    """Return a simulated beamline that knows the answers, and where one region is approved."""
    source = Lookup([[(-4.0, -2.0, -1.5, 0.5)], []] if boxes is None else boxes)
    facts = {"approvals": approved_desk(), **changes}
    return make_beamline(analysis=AnalysisDevice(source=source), time_model=QUICK, **facts)


def approved_desk() -> ApprovalDesk:
    """Return a desk with a survey of before, of which one region is approved."""
    folder = ApprovalFolder(tempfile.mkdtemp(prefix="approvals-", dir=os.environ["XDG_DATA_HOME"]))
    proposed = ProposedRegion(region=region(0.0, 4.0, 0.0, 2.0))
    tile = SurveyTile(uid="u", x_low_um=-9, x_high_um=9, y_low_um=-9, y_high_um=9)
    folder.propose(
        Proposal(
            survey_uid="before",
            regions=(proposed,),
            tiles=(tile,),
            fine_step_um=0.5,
            fine_dwell_ms=10.0,
        )
    )
    folder.approve("before", 1)
    desk = ApprovalDesk(folder)
    desk.collections.folder.propose(unfinished_collection())
    return desk


def unfinished_collection() -> Proposal:
    """Return a collection of one pair that was never begun."""
    area = region(0.0, 4.0, 0.0, 2.0)
    asked = {
        **CollectRequest.from_arguments(
            {
                **PAIR_DEFAULTS,
                **GOOD_CALLS["collect_pairs"],
            }
        ).user_input(),
        "regions": [area.to_dict()],
    }
    return Proposal(
        survey_uid="collection-before",
        regions=(ProposedRegion(region=area, disposition="approved"),),
        fine_step_um=0.5,
        fine_dwell_ms=10.0,
        user_input=asked,
    )


def small_survey(beamline: SimBeamline, **changes: Any) -> Iterator[Msg]:
    """Two tiles of 3 rows of 4 pixels, and the rescans."""
    wishes = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10, "tile_um": 4}
    center = {"x_center_um": 0.0, "y_center_um": 0.0}
    return coarse_survey_with_sr(beamline, **{**wishes, **center, **changes})


class Interrupting:
    """Passes a plan's messages on and does something before message `at`; counts them.

    There may be several such messages, and `at` may also say for itself, once, when it is time.
    """

    def __init__(
        self,
        plan: Any,
        at: int | Collection[int] | Callable[[], object] | None,
        act: Callable[[], Msg | None],
    ) -> None:
        self.count = 0
        self._plan = iter(plan)
        self._at = at if callable(at) else {at} if isinstance(at, int) else set(at or ())
        self._act = act

    def _is_time(self) -> bool:
        if not (self._at() if callable(self._at) else self.count in self._at):
            return False
        self._at = set() if callable(self._at) else self._at - {self.count}
        return True

    def __iter__(self) -> Iterator[Msg]:
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                msg = self._plan.throw(error) if error else self._plan.send(answer)
            except StopIteration as done:
                return done.value
            error = None
            try:
                if self._is_time():
                    extra = self._act()
                    if extra is not None:
                        yield extra
                self.count += 1
                answer = yield msg
            except GeneratorExit:
                self._plan.close()
                raise
            except Exception as raised:  # noqa: BLE001 - whatever it is goes on to the plan
                error = raised


def pause() -> Msg:
    return Msg("pause", None, defer=False)


class Recorder:
    """A RunEngine's documents, by run."""

    def __init__(self, run_engine: RunEngine) -> None:
        self.docs: list[tuple[str, dict]] = []
        self.token = run_engine.subscribe(lambda name, doc: self.docs.append((name, doc)))

    def of(self, name: str) -> list[dict]:
        return [doc for kind, doc in self.docs if kind == name]

    @property
    def starts(self) -> list[dict]:
        return self.of("start")

    def stop_of(self, uid: str) -> dict | None:
        return next((doc for doc in self.of("stop") if doc["run_start"] == uid), None)

    def builder(self, start: dict) -> MapBuilder:
        """Assemble one map run."""
        builder = MapBuilder(start)
        descriptors = {
            doc["uid"]: doc for doc in self.of("descriptor") if doc["run_start"] == start["uid"]
        }
        for doc in descriptors.values():
            if doc["name"] == "primary":
                builder.descriptor(doc)
        for event in self.events():
            descriptor = descriptors.get(event["descriptor"])
            if descriptor is not None and descriptor["name"] == "primary":
                builder.event(event)
        return builder

    def events(self, stream: str | None = None) -> list[dict]:
        names = {doc["uid"]: doc["name"] for doc in self.of("descriptor")}
        found = []
        for kind, doc in self.docs:
            if kind == "event":
                found.append(doc)
            elif kind == "event_page":
                found += list(event_model.unpack_event_page(doc))
        return [doc for doc in found if stream in (None, names[doc["descriptor"]])]

    def run_of(self, event: dict) -> str:
        """Return the uid of the run of an event."""
        runs = {doc["uid"]: doc["run_start"] for doc in self.of("descriptor")}
        return runs[event["descriptor"]]

    def purpose_of(self, event: dict) -> str:
        """Return what the run of an event is for."""
        starts = {doc["uid"]: doc for doc in self.starts}
        return starts[self.run_of(event)]["xrf_sr"]["purpose"]

    def map_starts(self) -> list[dict]:
        return [doc for doc in self.starts if doc["plan_name"] == "xrf_fly_map"]


def fly_through(run_engine: RunEngine, plan: Any) -> Any:
    """Run a plan; resume as often as it is interrupted."""
    try:
        result = run_engine(plan)
    except RunEngineInterrupted:
        result = None
        while run_engine.state == "paused":
            try:
                result = run_engine.resume()
            except RunEngineInterrupted:
                continue
    return result


def same_map(one: MapBuilder, other: MapBuilder) -> None:
    """Fail unless two maps are equal to the bit."""
    assert one.complete == other.complete
    first, second = one.maps(), other.maps()
    np.testing.assert_array_equal(first.counts.values, second.counts.values)
    np.testing.assert_array_equal(first.coverage.values, second.coverage.values)


def is_safe(beamline: SimBeamline) -> None:
    """Fail unless nothing moves, nothing flies and the shutter is closed."""
    assert beamline.microscope.shutter_open is False
    assert not beamline.fast.moving
    assert not beamline.slow.moving
    assert beamline.flyer._flying is False
    assert beamline.fast.velocity.get() == 500.0


def later(seconds: float, act: Callable[[], Any]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer
