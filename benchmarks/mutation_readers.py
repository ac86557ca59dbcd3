"""All that reads documents, fed with mutated ones, for `mutations.py`."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mutating import Item, Rng, mutated_stream, pick
from mutation_streams import NO_NETWORK, VALUES, Documents, KnownRun, Stream, values_of

from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.one_event_at_a_time import OneEventAtATime, ScanRows
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.callbacks.service.frames import unpack_frame
from xrf_sr_plans.callbacks.service.messages import TO_WORKER, RunDocument
from xrf_sr_plans.callbacks.tap import Tap
from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.maps.adapters import adapt_grid_scan, adapt_row_events
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.maps.run_index import RunIndex, wants_analysis
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.review.record import read_survey
from xrf_sr_plans.store.jsonl import JsonlWriter

SILENT = "no outcome is told"
WITH_NETWORK_EVERY = 50
"""One stream in so many is analysed with the network, the others bicubically."""


def undamaged_rows(run_uid: str, known: KnownRun, items: list[Item]) -> list[int]:
    """Return the rows of a run whose own documents are in a mutated stream as they were.

    A row that a damaged copy of its event comes with is none: nobody can tell the two apart.
    """
    places: dict[int, list[int]] = {}
    damaged = {item.source for item in items if item.origin < 0}
    first_stop = len(items)
    for place, item in enumerate(items):
        if item.origin >= 0:
            places.setdefault(item.origin, []).append(place)
        elif isinstance(item.doc, dict) and item.name in ("start", "descriptor"):
            # Another document of the same name.
            uids = (item.doc.get("uid"), item.doc.get("run_start"))
            if any(_same(uid, run_uid) for uid in uids):
                return []
        stops = item.name == "stop" and isinstance(item.doc, dict)
        if stops and _same(item.doc.get("run_start"), run_uid):
            first_stop = min(first_stop, place)
    if len(places.get(known.start, ())) != 1:
        return []
    if any(len(places.get(place, ())) != 1 for place in known.descriptors):
        return []
    ready = max(places[known.start][0], *(places[place][0] for place in known.descriptors))
    if places[known.start][0] > min(places[place][0] for place in known.descriptors):
        return []
    return [
        row
        for row, origins in known.events.items()
        if all(
            places.get(origin)
            and origin not in damaged
            and all(ready < place < first_stop for place in places[origin])
            for origin in origins
        )
    ]


def _same(value: Any, text: str) -> bool:
    return isinstance(value, str) and value == text


compared: Counter[str] = Counter()
"""How many undamaged rows were compared, by who assembled them."""


def compare(who: str, run_uid: str, known: KnownRun, items: list[Item], maps: Any) -> list[str]:
    """Return which undamaged rows of a map differ from what they were."""
    found = values_of(maps)
    wrong = []
    for row in undamaged_rows(run_uid, known, items):
        compared[who] += 1
        for name in VALUES:
            before, after = known.values[name][..., row, :], found[name][..., row, :]
            if before.shape != after.shape or not np.array_equal(before, after, equal_nan=True):
                wrong.append(f"{who}: row {row} of run {run_uid[:8]}: {name} differs")
                break
    return wrong


class Consumers:
    """All that reads documents; each method returns which undamaged rows became wrong."""

    def __init__(self, stream: Stream, items: list[Item], number: int) -> None:
        self._stream = stream
        self._items = items
        self._pairs = [(item.name, item.doc) for item in items]
        self._network = number % WITH_NETWORK_EVERY == 0

    def live(self) -> dict[str, Callable[[], list[str]]]:
        """Return what takes live documents, and must not raise at all."""
        return {
            "AnalysisChain": self.chain,
            "Tap": self.tap,
            "LatestSurvey": self.latest_survey,
            "OneEventAtATime": self.one_event,
        }

    def stored(self) -> dict[str, Callable[[], list[str]]]:
        """Return what reads stored documents, and may raise errors of ours."""
        return {
            "MapBuilder": self.builder,
            "replay": self.replay,
            "JsonlWriter": self.jsonl,
            "read_survey": self.survey,
            "LatestSurvey as text": self.latest_survey_text,
            "enhanced_from_documents": self.enhanced,
            "adapters": self.adapters,
        }

    def chain(self) -> list[str]:
        """Feed the analysis with the documents of all runs."""
        wrong: list[str] = []
        out: Documents = []
        told: set[str] = set()
        chain = AnalysisChain(
            None if self._network else NO_NETWORK,
            lambda name, doc: out.append((name, doc)),
            lambda summary: told.add(summary.source_uid),
            preview=lambda docs: None,
        )

        def check(analysed: Any) -> None:
            known = self._stream.maps.get(analysed.source_uid)
            if known is not None and analysed.maps is not None:
                wrong.extend(
                    compare("chain", analysed.source_uid, known, self._items, analysed.maps)
                )

        chain.consumers.append(check)
        index, over = RunIndex(wants_analysis), set()
        for name, doc in self._pairs:
            chain(name, doc)
            run = index.run_of(name, doc)
            if name == "stop" and run is not None:
                over.add(run)
        return wrong + [f"{SILENT} of run {run[:8]!r}" for run in over - told]

    def tap(self) -> list[str]:
        """Send the documents through the tap and the frames of the analysis process."""
        got: list[Any] = []

        class Link:
            def submit(self, run: str, name: str, doc: Any) -> None:
                frame = TO_WORKER.encode(RunDocument(len(got), run, name, doc))
                got.append(TO_WORKER.decode(unpack_frame(frame)))

        tap = Tap(Link())
        for name, doc in self._pairs:
            tap(name, doc)
        chain = AnalysisChain(NO_NETWORK)
        for message in got:
            chain.take(message.run, message.name, message.doc)
        return []

    def latest_survey(self) -> list[str]:
        """Feed what keeps the latest survey."""
        survey = LatestSurvey()
        for name, doc in self._pairs:
            survey(name, doc)
        return []

    def one_event(self) -> list[str]:
        """Feed what takes event pages apart for others."""
        for kind in (OneEventAtATime, ScanRows):
            callback = kind(lambda name, doc: None)
            for name, doc in self._pairs:
                callback(name, doc)
        return []

    def latest_survey_text(self) -> list[str]:
        """Show the latest survey at the prompt."""
        survey = LatestSurvey()
        for name, doc in self._pairs:
            survey(name, doc)
        str(survey)
        return []

    def builder(self) -> list[str]:
        """Assemble each map run by itself."""
        wrong: list[str] = []
        index, builders, over = RunIndex(), {}, set()
        for name, doc in self._pairs:
            # Whoever uses a builder knows the run of a document.
            try:
                uid = index.run_of(name, doc)
            except (KeyError, TypeError, AttributeError):
                continue
            if uid is None or uid in over:
                continue
            if name == "start":
                with contextlib.suppress(XrfSrError):
                    builders[uid] = MapBuilder(doc)
            elif uid in builders and name in ("descriptor", "event", "event_page"):
                with contextlib.suppress(XrfSrError):
                    getattr(builders[uid], name)(doc)
            elif name == "stop":
                over.add(uid)
        for uid, builder in builders.items():
            maps = builder.maps()
            known = self._stream.maps.get(uid)
            if known is not None:
                wrong += compare("builder", uid, known, self._items, maps)
        return wrong

    def replay(self) -> list[str]:
        """Replay the stream as it is."""
        replay(self._pairs, settings=NO_NETWORK, sinks=[lambda name, doc: None])
        return []

    def jsonl(self) -> list[str]:
        """Write the stream to files, document by document, and replay each."""
        with tempfile.TemporaryDirectory() as folder:
            writer = JsonlWriter(folder)
            raised: BaseException | None = None
            for name, doc in self._pairs:
                try:
                    writer(name, doc)
                except (XrfSrError, OSError):
                    continue
                except Exception as error:  # noqa: BLE001 - after the files are closed
                    raised = error
            writer.close()
            if raised is not None:
                raise raised
            for path in sorted(Path(folder).glob("*.jsonl"))[:1]:
                replay(path, settings=NO_NETWORK)
        return []

    def survey(self) -> list[str]:
        """Read a survey back."""
        record = read_survey(self._pairs)
        record.agreements()
        return []

    def enhanced(self) -> list[str]:
        """Read an enhanced map back."""
        enhanced_from_documents(self._pairs)
        return []

    def adapters(self) -> list[str]:
        """Adapt the scans of others, and assemble what comes of it."""
        adapters = {
            "grid scan": lambda: adapt_grid_scan(
                self._pairs, {"Fe": "iron"}, dwell_ms=10, um_per_unit=1.0
            ),
            "rows of another beamline": lambda: adapt_row_events(self._pairs, {"Fe": "iron"}),
        }
        for name in adapters if self._stream.name not in adapters else (self._stream.name,):
            with contextlib.suppress(XrfSrError):
                replay(list(adapters[name]()), settings=NO_NETWORK)
        return []


def mutate(rng: Rng, corpus: list[Stream]) -> tuple[Stream, list[Item]]:
    """Return a stream, and the same stream mutated."""
    stream = pick(rng, corpus)
    return stream, mutated_stream(rng, stream.documents)


def problems(stream: Stream, items: list[Item], number: int) -> Iterator[tuple[str, Any]]:
    """Yield what goes wrong with a mutated stream: who, and an exception or words."""
    consumers = Consumers(stream, items, number)
    for live, group in ((True, consumers.live()), (False, consumers.stored())):
        for who, feed in group.items():
            try:
                for words in feed():
                    yield who, words
            except XrfSrError as error:
                if live:
                    yield who, error
            except Exception as error:  # noqa: BLE001 - what this benchmark looks for
                yield who, error
