"""Any stored run, from anywhere, as the documents that it was made of."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any, cast

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.store.jsonl import read_jsonl

logger = logging.getLogger(__name__)

Document = tuple[str, dict[str, Any]]
_NAMESPACE = uuid.UUID("5b0a4a3e-54a1-5d3c-9a0e-5d1f6f1b7f0a")
_NUMERIC = ("array", "number", "integer")
_NOT_IN_A_DESCRIPTOR = ("_config_updates", "stream_name")


def documents(run: Any) -> Iterator[Document]:
    """Yield the documents of a run, start to stop, one ``event`` per row (never pages).

    Parameters
    ----------
    run
        The path of a JSON-lines file; a run from Tiled, from databroker 2 (``.v1``, ``.v2``) or
        databroker 1 (header or ``BlueskyRun``); or an iterable of (name, document) pairs.

    Notes
    -----
    From Tiled the rows are rebuilt from the stored columns, row by row, and not fetched with
    ``run.documents()``: that needs an exporter that most servers don't have, and after a rewind
    (two rows with one ``seq_num``) it joins array columns with the rows of other events. Both
    of the repeated events are yielded, as they were live. External arrays (spectra) are not
    loaded; their keys stay in the descriptor.

    Raises
    ------
    FileFormatError
        An object that is no run of any kind we know.
    """
    numeric: dict[str, set[str]] = {}
    for name, doc in _raw(run):
        if name == "descriptor":
            numeric[doc["uid"]] = {
                key for key, facts in doc["data_keys"].items() if facts["dtype"] in _NUMERIC
            }
        if name in ("event", "event_page"):
            for event in _events(doc) if name == "event_page" else (doc,):
                yield "event", _with_nan(event, numeric.get(event["descriptor"], set()))
        else:
            yield name, dict(doc)


def _with_nan(event: Mapping[str, Any], numeric: set[str]) -> dict[str, Any]:
    """Put NaN where a server's JSON (databroker 2) had to write null."""
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
        # A run of databroker 1 (the only one with `canonical`) wants a word.
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
    start = _plain(metadata["start"])
    yield "start", start
    base = getattr(run, "base", run)
    if "streams" in base and not _has_spec(base["streams"], "BlueskyEventStream"):
        base = base["streams"]
    found: list[tuple[float, int, str, dict[str, Any]]] = []
    for name in base:
        for kind, doc in _stream(base[name], name, start["uid"]):
            found.append((doc["time"], len(found), kind, doc))
    # In order of time, as they were live; a stream's descriptor comes before its events anyway.
    yield from ((kind, doc) for _, _, kind, doc in sorted(found, key=lambda one: one[:2]))
    if metadata.get("stop"):
        yield "stop", _plain(metadata["stop"])


def _has_spec(node: Any, name: str) -> bool:
    return any(getattr(spec, "name", None) == name for spec in node.specs)


def _stream(stream: Any, name: str, run_start: str) -> Iterator[Document]:
    descriptors = _descriptors(_plain(stream.metadata), name, run_start)
    for descriptor in descriptors:
        yield "descriptor", descriptor
    columns, rows = _columns(getattr(stream, "base", stream), descriptors[0]["data_keys"])
    keys = [key for key in descriptors[0]["data_keys"] if key in columns]
    for row in range(rows):
        time = columns["time"][row]
        owner = [one for one in descriptors if one["time"] <= time] or descriptors[:1]
        stamps = {key: columns[f"ts_{key}"][row] for key in keys if f"ts_{key}" in columns}
        yield (
            "event",
            {
                "uid": str(uuid.uuid5(_NAMESPACE, f"{owner[-1]['uid']}/{row}")),
                "descriptor": owner[-1]["uid"],
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
    found = [{**first, "name": name, "run_start": run_start, "object_keys": objects}]
    for update in metadata.get("_config_updates", []):
        configuration = {
            device: dict(facts) for device, facts in found[-1]["configuration"].items()
        }
        for device, facts in update.get("configuration", {}).items():
            before = configuration.get(device, {})
            configuration[device] = {
                **before,
                **{part: {**before.get(part, {}), **facts.get(part, {})}
                   for part in ("data", "timestamps")},
            }  # fmt: skip
        known = {key: update[key] for key in ("uid", "time") if key in update}
        found.append({**found[-1], **known, "configuration": configuration})
    return found


def _columns(stream: Any, data_keys: Mapping[str, Any]) -> tuple[dict[str, list[Any]], int]:
    """Return the stored columns as lists, in the order in which rows were written."""
    columns: dict[str, list[Any]] = {}
    for part in stream:
        if part.startswith("internal"):
            table = stream[part].read()
            columns.update({key: _listed(table[key].to_numpy()) for key in table.columns})
        elif not data_keys.get(part, {}).get("external"):
            columns[part] = _listed(stream[part].read())
    if "seq_num" not in columns:
        return columns, 0
    lengths = {key: len(values) for key, values in columns.items()}
    rows = min(lengths.values())
    if rows < max(lengths.values()):
        # The writer was cut off between two columns: what every column has is sound.
        logger.warning("%s: columns differ in length (%s); %d rows are read", stream, lengths, rows)
    return columns, rows


def _listed(values: Any) -> list[Any]:
    return [_plain(value) for value in np.asarray(values)]


def _plain(value: Any) -> Any:
    """Return Python types only, as documents have them that went through JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist()) if value.dtype == object else value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
