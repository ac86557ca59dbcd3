"""Live, from files, from Tiled and from databroker: the same results, whatever the shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.run_corpus import SHAPES, fly_corpus
from support.stored_runs import databroker_or_skip
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.schema import kind_of_run
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
QUICK = ReplayOptions(pictures=False, maps=False)


@dataclass(frozen=True)
class Corpus:
    folder: Path
    catalog: Path
    broker: Any
    live: dict[str, str]
    """Digest of each live result run by its uid."""
    flown: dict[str, list[str]]


def digests(folder: Path) -> dict[str, str]:
    """The digest of each result run in a folder, previews left out."""
    found = {}
    for path in folder.glob("*.jsonl"):
        docs = list(read_jsonl(path))
        if kind_of_run(docs[0][1]) != "preview":
            found[docs[0][1]["uid"]] = digest(docs)
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pytest.importorskip("tiled.server.app")
    from xrf_sr_plans.store.run_store import RunStore

    folder = tmp_path_factory.mktemp("corpus")
    broker = databroker_or_skip().temp()
    store = RunStore(str(folder / "catalog"))
    flown = fly_corpus(
        [JsonlWriter(folder / "runs"), store, broker.v1.insert], [JsonlWriter(folder / "live")]
    )
    assert store.close(600)
    return Corpus(folder / "runs", folder / "catalog", broker.v2, digests(folder / "live"), flown)


def test_there_are_at_least_twelve_shapes_with_results(corpus: Corpus) -> None:
    assert len(SHAPES) >= 14
    assert len(corpus.live) >= 14
    assert all(corpus.flown.values())


@pytest.mark.parametrize("store", ["files", "tiled", "databroker"])
def test_every_result_has_the_digest_that_it_had_live(
    corpus: Corpus, tmp_path: Path, store: str
) -> None:
    source = {"files": corpus.folder, "tiled": corpus.catalog, "databroker": corpus.broker}[store]
    report = replay_all([source], tmp_path, QUICK)
    assert not report.failures
    assert digests(tmp_path / "documents") == corpus.live
    # Of maps, what a plan was told is the same digest.
    told = {run.result_uid: run.digest for unit in report.reports for run in unit.runs}
    assert told == {uid: corpus.live[uid] for uid in told}
    assert sum(report.left_alone.values()) >= 3, "the pair, and maps that ask for nothing"


def test_runs_without_a_stop_document_give_the_same_from_every_store(
    corpus: Corpus, tmp_path: Path
) -> None:
    from xrf_sr_plans.store.documents import documents
    from xrf_sr_plans.store.embedded import embedded
    from xrf_sr_plans.store.tiled import reingest

    (uid,) = [
        uid
        for uid in corpus.flown["squares"]
        if kind_of_run(next(read_jsonl(corpus.folder / f"{uid}.jsonl"))[1]) == "map"
    ]
    docs = list(documents(corpus.folder / f"{uid}.jsonl"))[:-4]
    cut = JsonlWriter(tmp_path / "cut")
    for name, doc in docs:
        cut(name, doc)
    cut.close()
    from_file = replay_all([tmp_path / "cut"], options=QUICK).digests
    backup = JsonlWriter(tmp_path / "backup")
    for name, doc in docs:
        backup(name, doc)
    backup.close()
    with embedded(tmp_path / "catalog") as catalog:
        reingest(catalog.runs, tmp_path / "backup", unfinished=True)
        from_tiled = replay_all([catalog.runs], options=QUICK).digests
    assert list(from_file) == [uid]
    assert from_tiled == from_file
