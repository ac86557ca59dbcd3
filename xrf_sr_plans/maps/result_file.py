"""`filled`: documents of a result run with the maps that lie in an HDF5 file beside them.

With the setting `result_dir` large maps go to ``<result run uid>.h5``, and documents refer to that
file. Only such a file is read here, of one run, whose shape the documents state.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np

from xrf_sr_plans.errors import AssemblyError, FileFormatError, in_words
from xrf_sr_plans.maps.files.roots import configured_roots, inside_roots
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.schema import Document


def filled(documents: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Document]:
    """Return documents with the maps that their events refer to, if they refer to any.

    Parameters
    ----------
    documents
        The documents of one result run or composite run, in order, each with its name.

    Raises
    ------
    AssemblyError
        The file is not that of the run, lies outside of the folders in which files may be read, is
        damaged, or holds maps of another size.
    """
    listed = [(name, dict(doc)) for name, doc in documents]
    resources = [doc for name, doc in listed if name == "stream_resource"]
    if not resources:
        return listed
    start = next((doc for name, doc in listed if name == "start"), {})
    uid = str(start.get("uid", ""))
    path = _path(uid, resources)
    shape = ScanGrid.from_dict(start["grid"]).shape
    keys = [str(doc["data_key"]) for doc in resources]
    maps = _read(path, keys, (len(start["elements"]), *shape))
    referring = {
        doc["uid"] for name, doc in listed if name == "descriptor" and keys[0] in doc["data_keys"]
    }
    made: list[Document] = []
    for name, doc in listed:
        if name in ("stream_resource", "stream_datum"):
            continue
        if name == "event" and doc["descriptor"] in referring:
            planes = {key: maps[key][int(doc["seq_num"]) - 1] for key in keys}
            doc = {**doc, "data": {**doc["data"], **planes}}
        made.append((name, doc))
    return made


def _path(uid: str, resources: Iterable[Mapping[str, Any]]) -> Path:
    """Return the file that all resources name, which has to be the run's own."""
    named = {str(doc["uri"]) for doc in resources}
    if len(named) > 1:
        raise AssemblyError(f"result run {uid}: its maps lie in {len(named)} files; one is read")
    parts = urlparse(named.pop())
    path = Path(unquote(parts.path))
    if parts.scheme != "file" or path.name != f"{uid}.h5":
        raise AssemblyError(f"result run {uid}: its maps lie in {path}; {uid}.h5 is read")
    if configured_roots():
        try:
            inside_roots(path, f"result run {uid}")
        except FileFormatError as error:
            raise AssemblyError(str(error)) from error
    return path


def _read(path: Path, keys: Iterable[str], shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return the data sets (element, y, x) of a file by their keys."""
    import h5py

    maps = {}
    try:
        with h5py.File(path, "r") as file:
            for key in keys:
                if not isinstance(file.get(key, getlink=True), h5py.HardLink):
                    raise AssemblyError(f"{path}: {key} is a link to elsewhere")
                stored = file[key]
                plain = isinstance(stored, h5py.Dataset)
                if not plain or stored.external or stored.is_virtual or stored.shape != shape:
                    found = f"an array {stored.shape}" if plain else "a group"
                    raise AssemblyError(f"{path}: {key} is {found}; a plain one {shape} is needed")
                maps[key] = stored[()]
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise AssemblyError(f"{path}: {in_words(error)}") from error
    return maps
