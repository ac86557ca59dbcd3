"""Surveys in files, from which they are watched and reported."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bluesky import RunEngine

from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.review.feed import FeedReader, SurveyFeed, first_start, survey_of
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.review.record import SurveyRecord, read_survey
from xrf_sr_plans.review.report import write_report
from xrf_sr_plans.schema import Documents, kind_of_run
from xrf_sr_plans.session import start_session

SURVEY = {
    "width_um": 24,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 10,
    "y_center_um": 0,
    "find": "K",
    "max_regions": 2,
    "tile_um": 12,
    "analysis_timeout_s": 600,
}


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Documents, Path]:
    """Return the documents of a survey of two tiles, and the folder that it was written to."""
    folder = tmp_path_factory.mktemp("surveys")
    documents: Documents = []

    def keep(name: str, doc: dict) -> None:
        documents.append((name, doc))

    keep.wants_preview = True  # type: ignore[attr-defined]
    feed, run_engine = SurveyFeed(folder), RunEngine({})
    run_engine.subscribe(keep)
    run_engine.subscribe(feed)
    settings = AnalysisSettings()
    with start_session(
        run_engine,
        make_beamline(),
        settings=settings,
        in_process=True,
        result_sinks=[keep, feed],
    ) as session:
        plan = session.plans["coarse_survey_with_sr"]
        run_engine(plan(**SURVEY, preview_every_rows=4), sample="<b>leaf</b>")
        assert session.link.flush(60)
    assert feed.close()
    (home,) = folder.iterdir()
    return documents, home


def same_maps(one: SurveyRecord, other: SurveyRecord) -> None:
    assert list(one.coarse) == list(other.coarse)
    assert one.regions == other.regions
    assert one.forecast == other.forecast
    for uid, maps in one.coarse.items():
        np.testing.assert_array_equal(maps.counts.values, other.coarse[uid].counts.values)
    for name in ("enhanced", "fine", "composites"):
        assert set(getattr(one, name)) == set(getattr(other, name))
    for uid, maps in one.enhanced.items():
        theirs = other.enhanced[uid]
        np.testing.assert_allclose(maps.estimate.values, theirs.estimate.values, rtol=1e-6)
        np.testing.assert_array_equal(maps.trusted.values, theirs.trusted.values)


def test_what_is_read_from_the_files_is_the_survey(flown):
    documents, home = flown
    survey = GrowingSurvey()
    assert survey.take(FeedReader(home).new_documents())
    # A later preview takes the place of an earlier one, and the results are not of documents.
    same_maps(survey.record, read_survey(documents))
    start = first_start(home)
    assert start is not None
    assert survey_of(start) == home.name
    assert survey.progress().rows == survey.progress().of_rows > 0
    assert survey.progress().over


def test_a_survey_is_followed_however_its_documents_are_cut(flown):
    documents, home = flown
    file = next(home.glob("documents-*.frames"))
    whole = file.read_bytes()
    target = home.parent / "cut" / "documents-1-1.frames"
    target.parent.mkdir()
    survey, reader = GrowingSurvey(), FeedReader(target.parent)
    rows = []
    for size in np.linspace(0, len(whole), 23).astype(int):
        target.write_bytes(whole[:size])
        survey.take(reader.new_documents())
        rows.append(survey.progress().rows)
        _ = survey.record
    assert rows == sorted(rows)
    same_maps(survey.record, read_survey(documents))
    assert not survey.take(reader.new_documents())


def test_a_session_that_starts_anew_goes_on_with_the_survey(flown, tmp_path: Path):
    documents, _ = flown
    # The rescans are flown by another session, which sees no other document of the survey.
    late = {doc["uid"] for name, doc in documents if name == "start" and purpose(doc) == "fine"}
    first, second = SurveyFeed(tmp_path), None
    descriptors: dict[str, str] = {}
    parts: dict[bool, Documents] = {True: [], False: []}
    for name, doc in documents:
        run = doc["uid"] if name == "start" else doc.get("run_start")
        if name == "descriptor":
            descriptors[doc["uid"]] = doc["run_start"]
        parts[(run or descriptors.get(doc.get("descriptor", ""), "")) in late].append((name, doc))
    for name, doc in parts[False]:
        first(name, doc)
    assert first.close()
    time.sleep(0.01)
    second = SurveyFeed(tmp_path)
    for name, doc in parts[True]:
        second(name, doc)
    assert second.close()
    (home,) = tmp_path.iterdir()
    assert len(list(home.glob("documents-*.frames"))) == 2
    survey = GrowingSurvey()
    survey.take(FeedReader(home).new_documents())
    assert set(survey.record.fine) == late
    assert [row["disposition"] for row in survey.record.regions].count("rescanned") == len(late)


def purpose(start: dict) -> str:
    return str((start.get("xrf_sr") or {}).get("purpose"))


def test_the_files_of_the_oldest_surveys_make_room_and_their_reports_stay(flown, tmp_path: Path):
    documents, _ = flown
    for name in ("old", "older"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "documents-1-1.frames").write_bytes(bytes(1000))
    (tmp_path / "old" / "report.html").write_text("kept")
    feed = SurveyFeed(tmp_path, most_bytes=10)
    for name, doc in documents:
        feed(name, doc)
    assert feed.close()
    kept = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*"))
    assert "old/report.html" in kept
    assert not (tmp_path / "older").exists()
    assert sum(name.endswith(".frames") for name in kept) >= 1


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.images = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.images += tag == "img"
        self.found += [value or "" for name, value in attrs if name in ("src", "href")]
        self.found += [tag for tag in [tag] if tag in ("script", "link", "iframe")]


def test_the_report_has_everything_and_needs_nothing(flown, tmp_path: Path):
    documents, _ = flown
    survey = GrowingSurvey()
    survey.take(documents)
    text = write_report(survey, tmp_path / "new" / "report.html").read_text()
    links = _Links()
    links.feed(text)
    assert links.images == len(next(iter(survey.record.coarse.values())).elements)
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    # Metadata of users are text and never markup.
    assert "&lt;b&gt;leaf&lt;/b&gt;" in text
    assert "<b>leaf" not in text
    for uid in [*survey.record.coarse, *survey.record.fine]:
        assert uid in text
    assert "RE(coarse_survey_with_sr(" in text
    assert re.search(r"% inside the 90 % interval, [+-]\d", text)
    assert "samx (µm)" in text


def test_the_report_of_a_survey_that_ended_early_says_so(flown, tmp_path: Path):
    documents, _ = flown
    kinds = {doc["uid"]: kind_of_run(doc) for name, doc in documents if name == "start"}
    first = next(uid for uid, kind in kinds.items() if kind == "map")
    some: Documents = []
    rows = 0
    descriptors = {doc["uid"]: doc["run_start"] for name, doc in documents if name == "descriptor"}
    for name, doc in documents:
        run = doc.get("run_start") or descriptors.get(doc.get("descriptor", ""), doc["uid"])
        rows += name in ("event", "event_page")
        if run == first and rows < 4:
            some.append((name, doc))
    survey = GrowingSurvey()
    survey.take(some)
    text = write_report(survey, tmp_path / "report.html").read_text()
    assert re.search(r"Only \d of \d+ rows were measured", text)
    assert "No region was proposed" in text
    assert "nothing is known of it" in text


def test_only_what_belongs_to_surveys_is_written(tmp_path: Path):
    feed = SurveyFeed(tmp_path)
    feed("start", {"uid": "a", "time": 0.0})
    feed("start", {"uid": "b", "time": 0.0, "xrf_sr": {"purpose": "map", "grid": {}}})
    feed("stop", {"run_start": "a", "uid": "c", "time": 1.0, "exit_status": "abort"})
    assert feed.close()
    assert list(tmp_path.iterdir()) == []


def test_the_end_of_a_survey_is_told_once_its_files_are_complete(flown, tmp_path: Path):
    documents, _ = flown
    told: list[int] = []

    def ended(home: Path) -> None:
        survey = GrowingSurvey()
        survey.take(FeedReader(home).new_documents())
        told.append(len(survey.record.regions))

    feed = SurveyFeed(tmp_path, ended=ended)
    for name, doc in documents:
        feed(name, doc)
    assert feed.close()
    assert told
    assert told[-1] == len(read_survey(documents).regions) > 0
