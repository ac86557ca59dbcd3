"""Runs and maps as bytes, on their way to the process that reads what runs refer to, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap, FlownRow
from xrf_sr_plans.maps.adapters.assets import Assets
from xrf_sr_plans.maps.adapters.options import RunOptions
from xrf_sr_plans.maps.adapters.runs import ForeignRun, Stream
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.schema import AnalysisRequest

_ARRAY = "__array__"


def packed(value: Any) -> bytes:
    """Return a value made of documents' types as bytes; what is of another type becomes text.

    Raises
    ------
    AssemblyError
        A number is too large for 64 bits, or lists are nested too deeply.
    """
    try:
        return msgpack.packb(value, default=_plain, unicode_errors="surrogatepass")
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise AssemblyError(f"can't be handed to the process that reads files: {error}") from error


def unpacked(content: bytes | bytearray) -> Any:
    """Return the value that `packed` was given; tuples have become lists."""
    return msgpack.unpackb(
        content, object_hook=_array, strict_map_key=False, unicode_errors="surrogatepass"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {_ARRAY: [value.dtype.str, list(value.shape), np.ascontiguousarray(value).tobytes()]}
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, set | frozenset) else repr(value)


def _array(value: dict[Any, Any]) -> Any:
    if set(value) != {_ARRAY}:
        return value
    kind, shape, content = value[_ARRAY]
    # A copy, as arrays of documents can be written to.
    return np.frombuffer(content, dtype=kind).reshape(shape).copy()


def run_as_fields(run: ForeignRun) -> dict[str, Any]:
    """Return a run as what `packed` takes."""
    streams = {name: vars(stream) | {"arrays": {}} for name, stream in run.streams.items()}
    return vars(run) | {"streams": streams}


def run_of_fields(fields: Mapping[str, Any]) -> ForeignRun:
    """Return the run that `run_as_fields` was given."""
    streams = {name: Stream(**stream) for name, stream in fields["streams"].items()}
    assets = [(name, doc) for name, doc in fields["assets"]]
    return ForeignRun(**{**fields, "streams": streams, "assets": assets})


def options_as_fields(options: RunOptions) -> dict[str, Any]:
    """Return options, without handlers and what is read here, as what `packed` takes."""
    roots = options.assets.roots
    return {name: value for name, value in vars(options).items() if name != "assets"} | {
        "analysis": None if options.analysis is None else options.analysis.model_dump(mode="json"),
        "root_map": dict(options.assets.root_map),
        "roots": None if roots is None else [str(root) for root in roots],
    }


def options_of_fields(fields: Mapping[str, Any], assets: Assets) -> RunOptions:
    """Return the options that `options_as_fields` was given, with other assets."""
    known = {name: fields[name] for name in fields if name not in ("root_map", "roots")}
    analysis, energy = known["analysis"], known["energy_kev"]
    known["analysis"] = None if analysis is None else AnalysisRequest(**analysis)
    known["energy_kev"] = None if energy is None else (float(energy[0]), float(energy[1]))
    return RunOptions(**known, assets=assets)


def map_as_fields(found: AdaptedMap) -> dict[str, Any]:
    """Return a map, without the start document of its run, as what `packed` takes."""
    return {name: value for name, value in vars(found).items() if name != "start"} | {
        "grid": found.grid.to_dict(),
        "analysis": found.analysis.model_dump(mode="json"),
        "rows": [[index, vars(row)] for index, row in found.rows.items()],
    }


def map_of_fields(fields: Mapping[str, Any], start: Mapping[str, Any]) -> AdaptedMap:
    """Return the map that `map_as_fields` was given, of the run with that start document."""
    return AdaptedMap(
        **{
            **fields,
            "start": start,
            "grid": ScanGrid.from_dict(fields["grid"]),
            "analysis": AnalysisRequest(**fields["analysis"]),
            "rows": {int(index): FlownRow(**row) for index, row in fields["rows"]},
        }
    )
