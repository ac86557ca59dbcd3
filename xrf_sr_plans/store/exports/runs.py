"""`export_runs`: stored runs as files for other programs, one file for each run that has a map."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.composite.from_documents import composite_from_documents
from xrf_sr_plans.errors import AssemblyError, in_our_words
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.schema import STREAM_VERIFICATION, Document, RunKind, kind_of_run
from xrf_sr_plans.store.exports.exported_map import AnyMap
from xrf_sr_plans.store.exports.formats import FORMATS, export_map, format_for
from xrf_sr_plans.store.exports.verification import write_verification

_NAMES: Mapping[RunKind, str] = {
    "map": "measured",
    "result": "enhanced",
    "preview": "preview",
    "composite": "composite",
    "verification": "verification",
}
"""What files are called of each kind of run that can be exported."""
_UID_CHARACTERS = 8


def export_runs(
    documents: Iterable[Document], folder: Path | str, format: str = "nexus"
) -> Iterator[Path]:
    """Save every map in the documents of some runs, and every verification.

    Files are called after the kind of map and the uid of its run, such as
    ``enhanced-1a2b3c4d.h5``, with all of the uid where another file has that name. Existing ones
    are replaced.

    Parameters
    ----------
    documents
        The documents of one run or more, of a survey for example. Those of different runs may be
        interleaved. Runs without a map are passed over.
    folder
        Folder of the files, which must exist.
    format
        A name of `FORMATS`. Verifications have no maps, so they are NeXus files in any case.

    Yields
    ------
    pathlib.Path
        Each file, when it is written.

    Raises
    ------
    ConfigError
        There is no such format.
    AssemblyError
        The documents of a run are damaged. The message names the run.
    OSError
        A file can't be written.
    """
    suffix = FORMATS[format_for("", format)].suffixes[0]
    runs: dict[str, list[Document]] = {}
    stems: set[str] = set()
    index = RunIndex()
    for name, doc in documents:
        uid = index.run_of(name, doc)
        if uid is not None:
            runs.setdefault(uid, []).append((name, doc))
    for uid, of_run in runs.items():
        kind = kind_of_run(of_run[0][1])
        if kind not in _NAMES:
            continue
        stem = f"{_NAMES[kind]}-{uid[:_UID_CHARACTERS]}"
        if stem in stems:
            stem = f"{_NAMES[kind]}-{uid}"
        stems.add(stem)
        if kind == "verification":
            rows = list(comparisons(of_run))
            if rows:
                yield write_verification(rows, Path(folder) / f"{stem}.h5", of_run[0][1])
            continue
        with in_our_words(f"run {uid}", AssemblyError):
            maps = _map_of(kind, of_run)
        yield export_map(maps, Path(folder) / f"{stem}{suffix}", format)


def _map_of(kind: RunKind, documents: list[Document]) -> AnyMap:
    if kind == "composite":
        return composite_from_documents(documents)
    if kind != "map":
        return enhanced_from_documents(documents)
    builder = MapBuilder(documents[0][1])
    for name, doc in documents:
        if name == "descriptor":
            builder.descriptor(doc)
        elif name == "event":
            builder.event(doc)
        elif name == "event_page":
            builder.event_page(doc)
    return builder.maps()


def comparisons(documents: Iterable[Document]) -> Iterator[dict[str, Any]]:
    """Yield what the verification runs among some documents say of each element.

    Parameters
    ----------
    documents
        The documents of any runs, which may be interleaved.

    Yields
    ------
    dict
        ``fine_uid``, the uid of the run of the fine map, and the data of the event.
    """
    # Uid of the fine map's run by that of the verification run, and of its stream.
    fine: dict[str, str] = {}
    for name, doc in documents:
        if name == "start" and kind_of_run(doc) == "verification":
            fine[doc["uid"]] = str(doc["original_run_uid"])
        elif name == "descriptor" and doc["name"] == STREAM_VERIFICATION:
            fine[doc["uid"]] = fine.get(doc["run_start"], "")
        elif name == "event" and doc["descriptor"] in fine:
            yield {"fine_uid": fine[doc["descriptor"]], **doc["data"]}
        elif name == "event_page" and doc["descriptor"] in fine:
            uid, columns = fine[doc["descriptor"]], doc["data"]
            for row in range(len(next(iter(columns.values()), ()))):
                yield {"fine_uid": uid, **{key: one[row] for key, one in columns.items()}}
