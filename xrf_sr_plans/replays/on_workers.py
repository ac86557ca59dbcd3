"""What units and options need so that workers of a cluster, in other folders, can use them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from xrf_sr_plans.bulk.fitness import files_flaw, sample_of
from xrf_sr_plans.errors import XrfSrError, in_words
from xrf_sr_plans.replays.options import ReplayOptions, model_checksum
from xrf_sr_plans.replays.units import Unit
from xrf_sr_plans.sr.model_versions import PREFIX
from xrf_sr_plans.store.sources import Place, opened

_FILES = ("lines", "maps")


def unit_there(unit: Unit) -> Unit:
    """Return a unit whose files and folders are named from the root; its key stays."""
    runs = tuple(replace(run, place=_place_there(run.place)) for run in unit.runs)
    return replace(unit, runs=runs)


def options_there(options: ReplayOptions) -> ReplayOptions:
    """Return options whose files and folders are named from the root."""
    settings = options.settings
    model, results = settings.model, settings.result_dir
    changed = {
        "model": None if model is None else model_there(model),
        "result_dir": None if results is None else os.path.abspath(results),
    }
    roots = tuple((root, os.path.abspath(folder)) for root, folder in options.known.root_map)
    return replace(
        options,
        settings=settings.model_copy(update=changed),
        known=replace(options.known, root_map=roots),
        pairs=None if options.pairs is None else os.path.abspath(options.pairs),
    )


def model_there(model: str) -> str:
    """Return a model whose file or folder is named from the root; names of models stay."""
    if model.startswith(PREFIX):
        return PREFIX + os.path.abspath(Path(model.removeprefix(PREFIX)).expanduser())
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def needs_of(units: Iterable[Unit], options: ReplayOptions) -> tuple[Callable[[], str], ...]:
    """Return what is looked for on a worker: some of the files, the catalogs, and the model.

    Parameters
    ----------
    units, options
        As `unit_there` and `options_there` return them.
    """
    places = dict.fromkeys(run.place for unit in units for run in unit.runs)
    files = [place.where for place in places if place.kind in _FILES]
    catalogs = [place for place in places if place.kind not in _FILES]
    model = options.settings.model
    return (
        partial(files_flaw, sample_of(files)),
        *(partial(_catalog_flaw, place) for place in catalogs),
        partial(model_flaw, model, model_checksum(model)),
    )


def model_flaw(model: str | None, checksum: str) -> str:
    """Return the sentence that tells that a model is not here or another one, or "".

    Parameters
    ----------
    model
        As the setting `model`.
    checksum
        What `model_checksum` returned elsewhere.
    """
    here = model_checksum(model)
    if here == checksum:
        return ""
    name = "its default model" if model is None else f"its model {model!r}"
    return f"{name} is another one" if here else f"{name} is not there or can't be read"


def _place_there(place: Place) -> Place:
    is_path = place.kind in (*_FILES, "folder")
    return replace(place, where=os.path.abspath(place.where)) if is_path else place


def _catalog_flaw(place: Place) -> str:
    try:
        opened(place)
    except XrfSrError as error:
        return f"it can't open the catalog {in_words(error)}"
    return ""
