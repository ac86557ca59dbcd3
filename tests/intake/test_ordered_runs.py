"""What a bus does to documents: twice, late, in another order, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.row_documents import as_page, map_run, row_event, small_grid, truth
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.devices.protocols import AnalysisSummary
from xrf_sr_plans.intake.ordered_runs import OrderedRuns
from xrf_sr_plans.intake.tally import Tally, gaps_in
from xrf_sr_plans.schema import MISSING_DOCUMENTS, Documents

pytestmark = pytest.mark.usefixtures("bicubic_model")
GRID = small_grid(4, 5)
COUNTS = truth(GRID)
RUNS = ("a", "b", "c")


class Intake:
    """`OrderedRuns` before a chain, with a clock that is set by hand."""

    def __init__(self, **options: Any) -> None:
        self.summaries: dict[str, AnalysisSummary] = {}
        self.told: list[str] = []
        self.submitted: list[tuple[str, str, Any]] = []
        self.now_s = 0.0
        self._chain = AnalysisChain(
            emit=lambda name, doc: None,
            finished=lambda one: self.summaries.update({one.source_uid: one}),
        )
        self.runs = OrderedRuns(self._submit, self.told.append, **options)

    def _submit(self, run: str, name: str, doc: Any) -> None:
        self.submitted.append((run, name, doc))
        self._chain.take(run, name, doc)

    def take(self, documents: Sequence[tuple[str, Any]]) -> Intake:
        for name, doc in documents:
            self.runs.take(name, doc, self.now_s)
        return self

    def later(self, seconds: float) -> Intake:
        self.now_s += seconds
        self.runs.tick(self.now_s)
        return self

    def names(self, run: str) -> list[str]:
        return [name for uid, name, _ in self.submitted if uid == run]


def documents_of(run: str) -> Documents:
    return list(map_run(GRID, COUNTS, run))


@pytest.fixture(scope="module")
def digests(bicubic_model) -> dict[str, str]:
    """Digests of the runs as they are."""
    return {run: replay(documents_of(run)).digest for run in RUNS}


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[tuple[str, Any]], dict[str, set[int]]]:
    """Documents of several runs as a bus delivers them, and the positions that it lost of each."""
    whole = {run: documents_of(run) for run in RUNS}
    lost = {
        run: draw(st.sets(st.integers(0, len(documents) - 1), max_size=3) | st.just(set()))
        for run, documents in whole.items()
    }
    left = {
        run: [one for at, one in enumerate(documents) if at not in lost[run]]
        for run, documents in whole.items()
    }
    came: list[tuple[str, Any]] = []
    delivered: list[tuple[str, Any]] = []
    while any(left.values()):
        run = draw(st.sampled_from([run for run, documents in left.items() if documents]))
        delivered.append(left[run].pop(0))
        came.append(delivered[-1])
        if draw(st.booleans()):
            came.append(draw(st.sampled_from(delivered)))
    if draw(st.booleans()):
        came = draw(st.permutations(came))
    return came, lost


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(deliveries())
def test_whatever_a_bus_does_is_told_and_harms_no_other_run(digests, delivery) -> None:
    came, lost = delivery
    intake = Intake(patience_s=5.0, silent_s=100.0).take(came).later(6).later(101)
    start, descriptor, *rows, stop = range(len(documents_of("a")))
    for run in RUNS:
        about = " ".join(words for words in intake.told if f"run {run}:" in words)
        if not lost[run]:
            assert intake.summaries[run].digest == digests[run]
            assert not about
        elif start in lost[run]:
            assert run not in intake.summaries
            if {descriptor, stop} <= lost[run]:
                # Nothing that came names the run.
                assert f"without the descriptor {run}-rows" in " ".join(intake.told)
            else:
                assert "came without its start document" in about
        else:
            summary = intake.summaries[run]
            gone = [at - 1 for at in rows if at in lost[run] or descriptor in lost[run]]
            if stop in lost[run]:
                assert "no stop document" in about
                assert "no stop document" in summary.reason
                # Without a number of events, rows that were to come at the end can't be told.
                came_last = max([0, *(at - 1 for at in rows if at not in lost[run])])
                gone = [row for row in gone if row < came_last and descriptor not in lost[run]]
            words = f"lacks {len(gone)} of "
            assert (words in about) == (words in summary.reason) == bool(gone)
            if gone:
                shown = about.split("events: ")[1].split(",  and")[0]
                assert rows_in(shown) == gone


def rows_in(words: str) -> list[int]:
    rows: list[int] = []
    for part in words.split(", and")[0].split(", "):
        first, _, last = part.split()[0].partition("-")
        rows += range(int(first), int(last or first) + 1)
    return rows


def test_documents_are_handed_on_at_once_and_a_stop_waits_for_what_it_announces(digests) -> None:
    *first, row, stop = documents_of("a")
    intake = Intake(patience_s=5.0).take(first)
    assert len(intake.names("a")) == len(first)
    intake.take([stop]).later(4)
    assert "stop" not in intake.names("a")
    intake.take([row])
    assert intake.names("a")[-1] == "stop"
    assert intake.summaries["a"].digest == digests["a"]
    assert not intake.told


def test_a_row_that_did_not_come_is_not_measured_and_the_result_says_so() -> None:
    documents = documents_of("a")
    del documents[3]
    intake = Intake(patience_s=5.0).take(documents).later(6)
    assert intake.told == [
        "run a: documents are missing: stream 'primary' lacks 1 of 4 events: 2",
    ]
    assert intake.summaries["a"].status == "done"
    assert "lacks 1 of 4 events: 2" in intake.summaries["a"].reason
    assert intake.submitted[-1][2][MISSING_DOCUMENTS] == [
        "stream 'primary' lacks 1 of 4 events: 2",
    ]


def test_a_number_that_is_used_again_after_a_pause_is_no_duplicate(digests) -> None:
    documents = documents_of("a")
    again = row_event(GRID, COUNTS, 1, attempt=1, run="a")
    documents.insert(4, ("event_page", as_page([again])))
    intake = Intake().take(documents)
    assert intake.names("a").count("event_page") == 5
    assert not intake.told


def test_documents_that_come_when_a_run_is_over_are_told_once_unless_they_are_the_same() -> None:
    documents = documents_of("a")
    row = documents.pop(3)
    intake = Intake(patience_s=1.0).take(documents).later(2)
    intake.take([documents[2], documents[-1]])
    assert len(intake.told) == 1
    intake.take([row, row])
    assert intake.told[1:] == ["run a: a document came after its analysis had begun"]
    assert len(intake.names("a")) == len(documents)


def test_runs_that_ask_for_nothing_are_let_pass_without_a_word() -> None:
    documents = documents_of("a")
    documents[0] = ("start", {**documents[0][1], "xrf_sr": {}})
    intake = Intake().take(documents).take(documents).later(1e4)
    assert not intake.submitted
    assert not intake.told


def test_a_run_that_began_before_is_told_once_and_analysed_if_its_start_comes_after_all() -> None:
    documents = documents_of("a")
    intake = Intake(patience_s=1.0, silent_s=100.0).take(documents[1:3]).later(2)
    intake.take(documents[3:4]).later(2)
    assert len(intake.told) == 1
    intake.take(documents)
    assert intake.summaries["a"].digest == replay(documents).digest


def test_what_waits_is_known_by_the_number_of_its_first_message() -> None:
    intake = Intake(patience_s=1.0)
    (_, start), (_, descriptor), (_, row), *_, (_, stop) = documents_of("a")
    intake.runs.take("event_page", row, 0.0, number=7)
    intake.runs.take("descriptor", descriptor, 0.0, number=8)
    assert intake.runs.oldest_open == 7
    intake.runs.take("start", start, 0.0, number=9)
    assert intake.runs.oldest_open == 7
    intake.runs.take("stop", stop, 0.0, number=10)
    intake.later(2)
    assert intake.runs.oldest_open is None


_ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=5), one, max_size=3),
    max_leaves=8,
)
_KEYS = st.sampled_from(
    ["uid", "run_start", "descriptor", "seq_num", "data", "time", "num_events", "xrf_sr", "name"]
)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "descriptor", "event", "event_page", "stop", "stream_datum"]),
            st.integers(0, 6),
            st.dictionaries(_KEYS, _ODD, max_size=4),
        ),
        max_size=12,
    )
)
def test_no_document_whatever_it_holds_raises_anything(damaged) -> None:
    documents = documents_of("a")
    intake = Intake(patience_s=1.0, silent_s=10.0)
    for name, at, changes in damaged:
        intake.take([(name, {**documents[at][1], **changes})])
    intake.later(2).later(20)


def test_gaps_are_told_without_counting_up_to_what_a_document_says() -> None:
    assert gaps_in({1, 2, 5}, 10**15) == [(3, 4), (6, 10**15)]
    assert gaps_in(set(), 0) == []
    tally = Tally()
    tally.add("descriptor", {"uid": "d", "name": "primary"})
    tally.add("event", {"uid": "e", "descriptor": "d", "seq_num": 10**12})
    (words,) = tally.missing({"num_events": {"primary": 10**15}})
    assert f"of {10**15} events: 1-{10**12 - 1}, " in words


def test_files_that_stand_for_events_are_counted_and_a_gap_in_one_is_told() -> None:
    tally = Tally()
    tally.add("descriptor", {"uid": "d", "name": "spectra"})
    stop = {"num_events": {"spectra": 6}}
    for file, ranges in (("one", [(1, 4), (4, 7)]), ("two", [(1, 3), (5, 7)])):
        for first, after in ranges:
            doc = {"uid": f"{file}/{first}", "descriptor": "d", "stream_resource": file}
            tally.add("stream_datum", {**doc, "seq_nums": {"start": first, "stop": after}})
    assert tally.missing(stop) == ["stream 'spectra' lacks 2 of 6 events: 3-4"]
