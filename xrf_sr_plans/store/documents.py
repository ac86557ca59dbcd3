"""`documents`: the documents of a stored run, be it in a file, in Tiled or in databroker."""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, cast

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.computed_here import computed_here
from xrf_sr_plans.maps.readers.json_lines import read_jsonl
from xrf_sr_plans.maps.well_formed import flaw
from xrf_sr_plans.schema import Document

logger = logging.getLogger(__name__)

_NAMESPACE = uuid.UUID("5b0a4a3e-54a1-5d3c-9a0e-5d1f6f1b7f0a")
"""Namespace of the uids of events read from Tiled, which doesn't keep the original ones."""
LOCKED_TIMEOUT_S = 60.0
"""Longest wait for tables to which another process writes, as a catalog in a folder has them."""
_NUMERIC = ("array", "number", "integer")
_NOT_IN_A_DESCRIPTOR = ("_config_updates", "stream_name")
"""Keys of a stream's metadata in Tiled that the descriptor it was made from didn't have."""


def documents(run: Any) -> Iterator[Document]:
    """Yield the documents of a run from start to stop, with one ``event`` per row and no pages.

    Parameters
    ----------
    run
        The path of a JSON-lines file, a run from Tiled, a run from databroker 2 (``.v1`` or
        ``.v2``) or databroker 1 (header or ``BlueskyRun``), or an iterable of (name, document)
        pairs.

    Yields
    ------
    tuple of str and dict
        The name of a document and the document.

    Raises
    ------
    FileFormatError
        `run` is none of these, or one of its documents lacks a key without which it belongs
        nowhere. The message names the document.

    Notes
    -----
    The rows of a run in Tiled are rebuilt from the stored columns. ``run.documents()`` is not
    used, because it needs an exporter that most servers don't have. After a rewind, when two rows
    have the same ``seq_num``, it also joins array columns with the rows of other events. Here
    both of the repeated events are yielded, as they were live. External arrays such as spectra
    are not loaded, but their keys stay in the descriptor; `arrays_of` finds them.
    """
    numeric: dict[str, set[str]] = {}
    label = str(run) if isinstance(run, str | PathLike) else f"this {type(run).__name__}"
    for position, document in enumerate(_raw(run), start=1):
        if problem := flaw(document):
            raise FileFormatError(f"document {position} of {label}: {problem}")
        name, doc = document
        if name == "descriptor":
            numeric[doc["uid"]] = {
                key for key, facts in doc["data_keys"].items() if facts["dtype"] in _NUMERIC
            }
        if name not in ("event", "event_page"):
            yield name, dict(doc)
            continue
        for event in _events(doc) if name == "event_page" else (doc,):
            try:
                event = _with_nan(event, numeric.get(event["descriptor"], set()))
            except RecursionError as error:
                raise FileFormatError(
                    f"document {position} of {label}: its lists are nested too deeply"
                ) from error
            yield "event", event


def arrays_of(run: Any) -> Callable[[str, str], Any] | None:
    """Return what finds the arrays that a catalog holds beside the events of a run.

    Parameters
    ----------
    run
        As for `documents`.

    Returns
    -------
    callable or None
        Called with the names of a stream and of a data key it returns what has a ``shape`` and
        takes slices, or None where there is no such array. It is None itself where the run is from
        no catalog that has such arrays.
    """
    if not _is_tiled_v3(run):
        return None

    def array(stream: str, key: str) -> Any:
        base = _streams(run)
        if stream not in base:
            return None
        parts = getattr(base[stream], "base", base[stream])
        return parts.get(key)

    return array


def _with_nan(event: Mapping[str, Any], numeric: set[str]) -> dict[str, Any]:
    """Put NaN where the JSON of a databroker 2 server had to write null."""
    data = {
        key: _null_to_nan(value) if key in numeric else value
        for key, value in event["data"].items()
    }
    return {**event, "data": data}


def _null_to_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_null_to_nan(item) for item in value]
    return math.nan if value is None else value


def _raw(run: Any) -> Iterable[Document]:
    if isinstance(run, str | PathLike):
        return read_jsonl(cast(str, run))
    if _is_tiled_v3(run):
        return _from_tiled(run)
    if callable(getattr(run, "documents", None)):
        # Databroker 1 takes a word for `fill`, later versions a bool. Only runs of version 1 have
        # the attribute `canonical`.
        return run.documents(fill="no" if hasattr(run, "canonical") else False)
    if isinstance(run, Iterable) and not isinstance(run, Mapping):
        return cast(Iterable[Document], run)
    raise FileFormatError(
        f"{type(run).__name__} is no run: give a .jsonl path, a run from Tiled or databroker, "
        "or (name, document) pairs"
    )


def _events(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from event_model import unpack_event_page

    yield from (dict(event) for event in unpack_event_page(cast(Any, page)))


def _is_tiled_v3(run: Any) -> bool:
    specs = getattr(run, "item", None)
    if not isinstance(specs, Mapping):
        return False
    return any(
        spec["name"] == "BlueskyRun" and str(spec.get("version") or "").startswith("3")
        for spec in specs["attributes"]["specs"]
    )


def _from_tiled(run: Any) -> Iterator[Document]:
    metadata = run.metadata
    start = _as_python(metadata["start"])
    yield "start", start
    base = _streams(run)
    stored = [document for name in base for document in _stream(base[name], name, start["uid"])]
    known = {doc["uid"]: doc["time"] for name, doc in stored if name == "descriptor"}
    # In order of time, as they were live. The sort is stable: at equal times a descriptor stays
    # before its events, as it does where another clock gave them an earlier time.
    yield from sorted(
        stored,
        key=lambda document: max(
            document[1]["time"], known.get(document[1].get("descriptor"), -math.inf)
        ),
    )
    if metadata.get("stop"):
        yield "stop", _as_python(metadata["stop"])


def _streams(run: Any) -> Any:
    """Return the container of a run's streams."""
    base = getattr(run, "base", run)
    # Older catalogs keep the streams in a container of that name. It must not be taken for a
    # stream that happens to be called "streams".
    if "streams" in base and not _has_spec(base["streams"], "BlueskyEventStream"):
        return base["streams"]
    return base


def _has_spec(node: Any, name: str) -> bool:
    return any(getattr(spec, "name", None) == name for spec in node.specs)


def _stream(stream: Any, name: str, run_start: str) -> Iterator[Document]:
    descriptors = _descriptors(_as_python(stream.metadata), name, run_start)
    for descriptor in descriptors:
        yield "descriptor", descriptor
    columns, rows = _columns(getattr(stream, "base", stream), descriptors[0]["data_keys"])
    keys = [key for key in descriptors[0]["data_keys"] if key in columns]
    for row in range(rows):
        time = columns["time"][row]
        # An event belongs to the latest descriptor that was there when it was taken.
        earlier = [descriptor for descriptor in descriptors if descriptor["time"] <= time]
        owner = (earlier or descriptors[:1])[-1]
        stamps = {key: columns[f"ts_{key}"][row] for key in keys if f"ts_{key}" in columns}
        yield (
            "event",
            {
                "uid": str(uuid.uuid5(_NAMESPACE, f"{owner['uid']}/{row}")),
                "descriptor": owner["uid"],
                "seq_num": columns["seq_num"][row],
                "time": time,
                "data": {key: columns[key][row] for key in keys},
                "timestamps": {key: stamps.get(key, time) for key in keys},
                "filled": {},
            },
        )


def _descriptors(metadata: dict[str, Any], name: str, run_start: str) -> list[dict[str, Any]]:
    """Return the stream's descriptor, and one more for each later change of configuration."""
    first = {key: value for key, value in metadata.items() if key not in _NOT_IN_A_DESCRIPTOR}
    objects: dict[str, list[str]] = {}
    for key, facts in first["data_keys"].items():
        if facts.get("object_name"):
            objects.setdefault(facts["object_name"], []).append(key)
    descriptors = [{**first, "name": name, "run_start": run_start, "object_keys": objects}]
    for update in metadata.get("_config_updates", []):
        configuration = {
            device: dict(facts) for device, facts in descriptors[-1]["configuration"].items()
        }
        for device, facts in update.get("configuration", {}).items():
            before = configuration.get(device, {})
            configuration[device] = {
                **before,
                **{part: {**before.get(part, {}), **facts.get(part, {})}
                   for part in ("data", "timestamps")},
            }  # fmt: skip
        known = {key: update[key] for key in ("uid", "time") if key in update}
        descriptors.append({**descriptors[-1], **known, "configuration": configuration})
    return descriptors


def _columns(stream: Any, data_keys: Mapping[str, Any]) -> tuple[dict[str, list[Any]], int]:
    """Return the columns of a stream by key, as lists in the order of writing, and their length."""
    columns: dict[str, list[Any]] = {}
    for part in stream:
        if part.startswith("internal"):
            table = _read(stream, part)
            columns.update({key: _as_list(table[key].to_numpy()) for key in table.columns})
        elif not data_keys.get(part, {}).get("external"):
            columns[part] = _as_list(_read(stream, part))
    if "seq_num" not in columns:
        return columns, 0
    lengths = {key: len(values) for key, values in columns.items()}
    rows = min(lengths.values())
    if rows < max(lengths.values()):
        # The writer was cut off between two columns. The rows that every column has are sound.
        logger.warning("%s: columns differ in length (%s); %d rows are read", stream, lengths, rows)
    return columns, rows


def _read(stream: Any, part: str) -> Any:
    """Return a part of a stream, waiting for whoever writes to the catalog's tables meanwhile."""
    deadline = time.monotonic() + LOCKED_TIMEOUT_S
    while True:
        try:
            with computed_here():
                return stream[part].read()
        except Exception as error:
            if not _says_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _says_locked(error: BaseException) -> bool:
    """Return whether a database is locked; what says so has a class of some driver's own."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(_says_locked, error.exceptions))
    return "database is locked" in str(error)


def _as_list(values: Any) -> list[Any]:
    return [_as_python(value) for value in np.asarray(values)]


def _as_python(value: Any) -> Any:
    """Return `value` made of Python's own types only, like a document that went through JSON."""
    if isinstance(value, Mapping):
        return {key: _as_python(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _as_python(value.tolist()) if value.dtype == object else value.tolist()
    if isinstance(value, list | tuple):
        return [_as_python(item) for item in value]
    return value
