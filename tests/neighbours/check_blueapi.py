"""Surveys as tasks of blueapi's worker, whose context makes the RunEngine itself."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from blueapi.config import ApplicationConfig
from blueapi.core import BlueskyContext
from blueapi.service.model import PlanModel
from blueapi.worker import Task, TaskWorker
from blueapi.worker.task import TaskParameterError

from neighbours.company import SURVEY, fly_and_replay, typed
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.jsonl import JsonlWriter


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    module, own_context = typed("blueapi", "check_blueapi.py")
    Path("xrf_beamline.py").write_text(module)
    source = {"kind": "planFunctions", "module": "xrf_beamline"}
    context = BlueskyContext(ApplicationConfig.model_validate({"env": {"sources": [source]}}))
    xrf_beamline = sys.modules["xrf_beamline"]
    check_tasks(context, xrf_beamline.xrf_session, "from-configuration")
    # Result runs went where the module sends them.
    assert list(Path("results").glob("*.jsonl"))
    xrf_beamline.xrf_session.close()
    names: dict[str, Any] = {}
    exec(compile(own_context, "docs/how-to/blueapi.md", "exec"), names)  # noqa: S102 - our page
    check_tasks(names["context"], names["xrf_session"], "own-context")
    names["xrf_session"].close()
    check_progress()


def check_tasks(context: BlueskyContext, session: Any, store: str) -> None:
    """Fly a survey as a task, and replay it."""
    assert set(session.plans) <= set(context.plans)
    for plan in context.plans.values():
        assert PlanModel.from_plan(plan).parameter_schema["properties"]
    context.run_engine.subscribe(JsonlWriter(store))
    worker = TaskWorker(context)
    worker.start()

    def fly() -> None:
        outcome = run_task(worker, Task(name="coarse_survey_with_sr", params=SURVEY))
        assert outcome.type == "SurveyOutcome"
        assert 1 <= len(outcome.result["regions"]) <= SURVEY["max_regions"]

    fly_and_replay(context.run_engine, session, lambda uid: f"{store}/{uid}.jsonl", fly)
    for wrong in ({"factor": 3}, {"width_um": "wide"}, {"no_such": 1}):
        try:
            worker.submit_task(Task(name="coarse_survey_with_sr", params={**SURVEY, **wrong}))
        except TaskParameterError:
            continue
        raise AssertionError(f"{wrong} was not refused")
    stop(worker)


def check_progress() -> None:
    """Fly a map in slow motion; its rows are in blueapi's progress events."""
    context = BlueskyContext()
    with start_session(context.run_engine, make_beamline(clock=4.0)) as session:
        context.register_plan(session.plans["xrf_map"])
        worker = TaskWorker(context)
        worker.start()
        shown: set[tuple[str, float | None]] = set()
        worker.progress_events.subscribe(
            lambda event, _: shown.update(
                (one.display_name, one.percentage) for one in event.statuses.values()
            )
        )
        area = {"x_center_um": 0, "y_center_um": 0, "width_um": 6, "height_um": 4}
        run_task(worker, Task(name="xrf_map", params={**area, "step_um": 1, "dwell_ms": 20}))
        stop(worker)
    assert {("xrf row 1", 0.0), ("xrf row 2", 0.25), ("xrf row 4", 0.75)} <= shown, shown


def run_task(worker: TaskWorker, task: Task) -> Any:
    """Run a task to its end and return its outcome."""
    task_id = worker.submit_task(task)
    worker.begin_task(task_id)
    deadline = time.monotonic() + 120
    while not worker.get_task_by_id(task_id).is_complete:
        assert time.monotonic() < deadline, "the task doesn't end"
        time.sleep(0.05)
    outcome = worker.get_task_by_id(task_id).outcome
    assert outcome.outcome == "success", outcome
    return outcome


def stop(worker: TaskWorker) -> None:
    # A worker that is stopped ends its last task a second time (blueapi 1.21) and logs a KeyError.
    logging.disable(logging.CRITICAL)
    worker.stop()
    logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
