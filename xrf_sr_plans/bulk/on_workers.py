"""What workers of a cluster, in other folders, need: full names, the same files, the same model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from xrf_sr_plans.bulk.fitness import files_flaw, sample_of
from xrf_sr_plans.errors import ConfigError, XrfSrError, in_words
from xrf_sr_plans.store.sources import Place, StoredRun

_FILES = ("lines", "maps")


def run_there(run: StoredRun) -> StoredRun:
    """Return a run whose file or folder is named from the root."""
    place = run.place
    if place.kind not in (*_FILES, "folder"):
        return run
    return replace(run, place=replace(place, where=os.path.abspath(place.where)))


def model_there(model: str | None) -> str | None:
    """Return a model whose file or folder is named from the root; names of models stay."""
    from xrf_sr_plans.sr.model_versions import PREFIX

    if model is None:
        return None
    if model.startswith(PREFIX):
        return PREFIX + os.path.abspath(Path(model.removeprefix(PREFIX)).expanduser())
    path = Path(model).expanduser()
    return str(path.absolute()) if path.is_file() else model


def needs_of(runs: Iterable[StoredRun], model: str | None) -> tuple[Callable[[], str], ...]:
    """Return what is looked for on a worker: some of the files, the catalogs, and the model.

    Parameters
    ----------
    runs
        As `run_there` returns them.
    model
        As `model_there` returns it.
    """
    places: dict[Place, str] = {}
    for run in runs:
        places.setdefault(run.place, run.key)
    files = [place.where for place in places if place.kind in _FILES]
    catalogs = {place: key for place, key in places.items() if place.kind not in _FILES}
    return (
        partial(files_flaw, sample_of(files)),
        *(partial(_catalog_flaw, place, key) for place, key in catalogs.items()),
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


def model_checksum(model: str | None) -> str:
    """Return a checksum of a model's files, or "" where the results will tell what is wrong.

    Parameters
    ----------
    model
        As the setting `model`.
    """
    from xrf_sr_plans.sr.registry import model_path

    hasher = hashlib.sha256()
    try:
        weights = model_path(model)
        for file in sorted(weights.parent.glob(f"{weights.stem}.*")):
            hasher.update(file.read_bytes())
    except (XrfSrError, OSError):
        return ""
    return hasher.hexdigest()


def refuse_clients(runs: Iterable[StoredRun]) -> None:
    """Refuse catalogs that are open in this process where others are to read them.

    Raises
    ------
    ConfigError
        There is one.
    """
    for run in runs:
        if run.place.kind == "object":
            raise ConfigError(
                f"{run.place.where}: other processes can't use this client; give the folder, the"
                " address or the name of the catalog"
            )


def _catalog_flaw(place: Place, key: str) -> str:
    """Return the sentence that tells that a catalog is not here or another one, or ""."""
    try:
        StoredRun(place, key).opened()
    except Exception as error:  # noqa: BLE001 - a server may answer anything
        return f"it can't open the catalog {in_words(error)}"
    return ""
