"""Large result maps in an HDF5 file, to which the result's documents refer.

The references are documents of the kinds ``stream_resource`` and ``stream_datum``.
"""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.schema import STREAM_COMPOSITE, STREAM_ENHANCED, Documents

_LEADING = "estimate", "value"
"""Keys of the first map in the events of result runs and of composite runs."""
MAX_IN_DOCUMENT = 256 * 256
"""Maps with more pixels than this go to a file, if there is a folder for it."""


def is_large(documents: Documents) -> bool:
    """Return whether a result run has maps of more than `MAX_IN_DOCUMENT` pixels."""
    return any(
        np.size(doc["data"].get(key, ())) > MAX_IN_DOCUMENT
        for name, doc in documents
        if name == "event"
        for key in _LEADING
    )


def with_maps_in_file(documents: Documents, folder: str | Path) -> Documents:
    """Write the maps of a result run to ``<folder>/<run uid>.h5``.

    The file has a data set (element, y, x) for each key of the events that holds a map. It appears
    as a whole or not at all.

    Parameters
    ----------
    documents
        The documents of one result run, with the maps in its events.
    folder
        Folder of the file, made if need be.

    Returns
    -------
    list of tuple
        The documents, with references to the file in place of the maps.

    Raises
    ------
    OSError
        The file can't be written, because the disk is full or it is not permitted.
    """
    run = documents[0][1]["uid"]
    path = Path(folder).absolute() / f"{run}.h5"
    rows = [doc["data"] for name, doc in documents if _is_map(name, doc)]
    keys = [key for key, value in rows[0].items() if np.ndim(value) == 2]
    _write(path, rows, keys)
    out: Documents = []
    for name, doc in documents:
        if name == "descriptor" and doc["name"] in (STREAM_ENHANCED, STREAM_COMPOSITE):
            out.append((name, _external_descriptor(doc, keys)))
            out += [("stream_resource", _resource(run, key, path)) for key in keys]
        elif _is_map(name, doc):
            number = doc["seq_num"]
            out.append((name, _without_maps(doc, keys)))
            out += [("stream_datum", _datum(run, doc, key, number)) for key in keys]
        else:
            out.append((name, doc))
    return out


def _is_map(name: str, doc: dict[str, Any]) -> bool:
    return name == "event" and any(key in doc["data"] for key in _LEADING)


def _write(path: Path, rows: list[dict[str, Any]], keys: list[str]) -> None:
    import h5py

    # HDF5 can crash the interpreter when the disk fills up while it writes. Here it writes to
    # memory, so that a full disk is an ordinary OSError.
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for key in keys:
            file.create_dataset(key, data=np.stack([row[key] for row in rows]))
        file["element"] = [row["element"] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the number of this process, which one on another host may have as well.
    part = path.with_suffix(f".{uuid.uuid4().hex[:12]}.part")
    try:
        part.write_bytes(memory.getbuffer())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _external_descriptor(doc: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    described = {
        key: {**facts, "external": "STREAM:"} if key in keys else facts
        for key, facts in doc["data_keys"].items()
    }
    return {**doc, "data_keys": described}


def _without_maps(doc: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    kept = {
        part: {key: value for key, value in doc[part].items() if key not in keys}
        for part in ("data", "timestamps")
    }
    return {**doc, **kept}


def _resource(run: str, key: str, path: Path) -> dict[str, Any]:
    return {
        "uid": f"{run}-{key}",
        "run_start": run,
        "data_key": key,
        "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{path.as_posix()}",
        "parameters": {"dataset": key, "chunk_shape": [1]},
    }


def _datum(run: str, event: dict[str, Any], key: str, number: int) -> dict[str, Any]:
    return {
        "uid": f"{run}-{key}/{number - 1}",
        "stream_resource": f"{run}-{key}",
        "descriptor": event["descriptor"],
        "indices": {"start": number - 1, "stop": number},
        "seq_nums": {"start": number, "stop": number + 1},
    }
