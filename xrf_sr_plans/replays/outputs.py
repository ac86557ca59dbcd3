"""The files that are written of a replayed run: its documents, its enhanced map, a picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.callbacks.replay import Analyses
from xrf_sr_plans.callbacks.result_run import AnalysedMap
from xrf_sr_plans.errors import FileBusyError
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.units import Unit
from xrf_sr_plans.review.picture import draw_survey
from xrf_sr_plans.review.view import SurveyView
from xrf_sr_plans.schema import Documents, kind_of_run
from xrf_sr_plans.store.exports import FORMATS, export_map
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.ledger import file_name

DOCUMENTS = "documents"
"""Folder, in the output folder, of the documents of result runs."""
_BUSY_S = 60.0
"""Longest wait for somebody else who writes the same file."""


def written(made: Analyses, out: Path, options: ReplayOptions, unit: Unit) -> dict[str, list[str]]:
    """Write what the analysis made of a unit.

    Parameters
    ----------
    made
        What the analysis made.
    out
        The folder; ``documents/<result uid>.jsonl`` is inside.
    options
        Whether maps and pictures are written.
    unit
        The runs that were analyzed.

    Returns
    -------
    dict of str to list of str
        Names of files, relative to `out`, by the uid of the run that they were made of.

    Raises
    ------
    OSError
        A file can't be written.
    """
    files: dict[str, list[str]] = {}
    writer = JsonlWriter(out / DOCUMENTS)
    try:
        for run in _runs(made.documents):
            start = run[0][1]
            _begin(writer, as_lists(start))
            for name, doc in run[1:]:
                writer(name, as_lists(doc))
            path = writer.path(start["uid"])
            files.setdefault(str(start["original_run_uid"]), []).append(str(path.relative_to(out)))
            if options.maps and kind_of_run(start) == "composite":
                _write_composite(run, out, files, options.format)
    finally:
        writer.close()
    for analysed in made.maps:
        if analysed.enhanced is not None:
            files.setdefault(analysed.source_uid, []).extend(
                _write_map(analysed, out / _name(analysed, unit), options)
            )
    return files


def _begin(writer: JsonlWriter, start: dict[str, Any]) -> None:
    """Begin the file of a run, once whoever writes the same run has finished it.

    Somebody does where two places hold the same map, and where a cluster does a unit once more
    while a worker that it has lost is still at it.
    """
    deadline = time.monotonic() + _BUSY_S
    while True:
        try:
            writer("start", start)
        except FileBusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _runs(documents: Documents) -> list[Documents]:
    """Return the documents run by run."""
    index, runs = RunIndex(), {}
    for name, doc in documents:
        if uid := index.run_of(name, doc):
            runs.setdefault(uid, []).append((name, doc))
    return list(runs.values())


def _name(analysed: AnalysedMap, unit: Unit) -> str:
    """Return the name of a map's files without their endings."""
    uid = file_name(analysed.source_uid)
    place = unit.runs[0].place
    if place.kind != "maps":
        return uid
    # People look for the names that they gave; files of one name may come from several folders.
    return f"{file_name(Path(place.where).stem)}-{uid[:8]}"


def _write_map(analysed: AnalysedMap, stem: Path, options: ReplayOptions) -> list[str]:
    assert analysed.enhanced is not None
    names = []
    if options.maps:
        path = stem.with_name(stem.name + FORMATS[options.format].suffixes[0])
        export_map(analysed.enhanced, path, options.format)
        names.append(path.name)
    if options.pictures and analysed.maps is not None:
        view = SurveyView(
            coarse=[analysed.maps],
            enhanced=[analysed.enhanced],
            regions=analysed.regions,
            title=f"{stem.name}, enhanced by {analysed.model.get('name') or 'bicubic'}",
        )
        path = stem.with_name(f"{stem.name}.png")
        draw_survey(view, path)
        names.append(path.name)
    return names


def _write_composite(run: Documents, out: Path, files: dict[str, list[str]], format: str) -> None:
    from xrf_sr_plans.composite.from_documents import composite_from_documents

    start = run[0][1]
    name = f"survey-{file_name(str(start['survey_uid']))}-{start['uid'][:8]}"
    path = out / (name + FORMATS[format].suffixes[0])
    export_map(composite_from_documents(run), path, format)
    files[str(start["original_run_uid"])].append(path.name)
