"""What each stock environment is asked for: a survey with rescans, and its replay.

The drivers beside this file are run by `scripts/check_neighbours.sh`, each in an environment of
its own. They type in what the how-to pages say.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from support.docs_pages import DOCS, blocks
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.store.documents import documents

SURVEY: dict[str, Any] = {
    "x_center_um": 10,
    "y_center_um": 0,
    "width_um": 60,
    "height_um": 24,
    "step_um": 2,
    "dwell_ms": 10,
    "find": "K",
    "max_regions": 2,
    "budget_s": 600,
}
"""A survey of the simulated sample that finds regions and flies them again."""


def typed(page: str, driver: str) -> list[str]:
    """Return the Python blocks of a how-to page that a driver is to run."""
    found = blocks(DOCS / "how-to" / f"{page}.md")
    return [one.code for one in found if one.mark == "flown by" and Path(one.what).name == driver]


@contextlib.contextmanager
def nothing_goes_wrong() -> Iterator[None]:
    """Fail where anything logs an error meanwhile."""

    class Errors(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    errors: list[str] = []
    handler = Errors(logging.ERROR)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    # Loggers that don't propagate, such as bluesky's, need the handler themselves.
    loggers = [logging.getLogger(name) for name in ("", "bluesky", "ophyd", "databroker")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert not errors, "\n".join(errors)


class Runs:
    """The runs of a RunEngine, in the order of their documents."""

    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.stops: dict[str, dict[str, Any]] = {}
        self.streams: dict[str, set[str]] = {}
        self.rows: dict[str, int] = {}
        self._descriptors: dict[str, str] = {}

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        if name == "start":
            still_open = [one["uid"] for one in self.starts if one["uid"] not in self.stops]
            assert not still_open, f"run {doc['uid']} was opened within {still_open}"
            self.starts.append(doc)
        elif name == "stop":
            self.stops[doc["run_start"]] = doc
        elif name == "descriptor":
            self.streams.setdefault(doc["run_start"], set()).add(doc["name"])
            self._descriptors[doc["uid"]] = doc["run_start"]

    def of_purpose(self, purpose: str) -> list[dict[str, Any]]:
        """Return the start documents of the maps that were flown for a purpose."""
        return [one for one in self.starts if one.get("xrf_sr", {}).get("purpose") == purpose]


def check_survey(runs: Runs) -> tuple[str, list[str]]:
    """Check the runs of one survey with rescans; return the uids of its coarse and fine maps."""
    (coarse,) = runs.of_purpose("coarse")
    fine = runs.of_purpose("fine")
    assert 1 <= len(fine) <= SURVEY["max_regions"], f"{len(fine)} fine maps"
    assert {one["xrf_sr"]["parent_uid"] for one in fine} == {coarse["uid"]}
    assert len(runs.starts) > 1 + len(fine), "no record of what was decided"
    ended = {one["uid"]: runs.stops[one["uid"]]["exit_status"] for one in runs.starts}
    assert set(ended.values()) == {"success"}, ended
    return coarse["uid"], [one["uid"] for one in fine]


def fly_and_replay(
    run_engine: Any,
    session: Any,
    stored: Callable[[str], Any],
    fly: Callable[[], object] | None = None,
) -> Runs:
    """Fly a survey with rescans, and replay it from the environment's own store.

    Parameters
    ----------
    run_engine
        The environment's RunEngine.
    session
        What `start_session` returned.
    stored
        Returns the stored run of a uid.
    fly
        Flies the survey; by default as it is typed at the prompt.
    """
    runs = Runs()
    token = run_engine.subscribe(runs)
    with nothing_goes_wrong():
        if fly is None:
            run_engine(session.plans["coarse_survey_with_sr"](**SURVEY))
        else:
            fly()
        assert session.link.flush(60)
    run_engine.unsubscribe(token)
    coarse, fine = check_survey(runs)
    live = session.link.request(coarse).result(60)
    assert live.status == "done", live
    again = replay(stored(coarse))
    assert again.digest == live.digest, "the replay differs from the live analysis"
    for uid in fine:
        names = [name for name, _ in documents(stored(uid))]
        assert names[0] == "start"
        assert names[-1] == "stop"
    sys.stdout.write(
        f"survey: 1 coarse and {len(fine)} fine maps in {len(runs.starts)} runs; "
        f"replayed with the digest of the live analysis, {live.digest[:12]}\n"
    )
    return runs
