"""A map run as a RunEngine emits it, with the defects that stores have to carry."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import RunEngineInterrupted
from event_model import unpack_event_page

NX, ELEMENTS = 9, ["Fe", "Zn", "Ca"]
Document = tuple[str, dict[str, Any]]


class TinyFlyer:
    """Rows of known numbers; row 1 is short; every attempt counts up."""

    name, parent, hints = "xrf", None, {"fields": []}

    def __init__(self) -> None:
        self.row, self.attempts = 0, {}

    def prepare(self, row: int) -> Any:
        self.row = row
        self.attempts[row] = self.attempts.get(row, -1) + 1
        return _done()

    def kickoff(self) -> Any:
        return _done()

    complete = kickoff

    def describe_collect(self) -> dict[str, Any]:
        def number(dtype: str, *shape: int, **more: Any) -> dict[str, Any]:
            kind = "array" if shape else ("integer" if dtype == "<i8" else "number")
            return {"source": "sim", "dtype": kind, "dtype_numpy": dtype, "shape": list(shape),
                    **more}  # fmt: skip

        return {
            "primary": {
                "xrf_counts": number("<f8", len(ELEMENTS), NX, dims=["element", "x"]),
                "xrf_i0": number("<f8", NX),
                "xrf_fast_um": number("<f8", NX),
                **{f"xrf_{key}": number("<i8") for key in ("row", "attempt", "n_frames")},
            }
        }

    def describe_configuration(self) -> dict[str, Any]:
        shape = [len(ELEMENTS)]
        return {
            "xrf_elements": {
                "source": "sim",
                "dtype": "array",
                "dtype_numpy": "<U2",
                "shape": shape,
            }
        }

    def read_configuration(self) -> dict[str, Any]:
        return {"xrf_elements": {"value": ELEMENTS, "timestamp": time.time()}}

    def collect(self) -> Iterator[dict[str, Any]]:
        frames = NX - 3 if self.row == 1 else NX
        counts = np.random.default_rng(self.row).poisson(5, (len(ELEMENTS), NX)) / 3.0
        counts[:, frames:] = np.nan
        data = {
            "xrf_counts": counts.tolist(),
            "xrf_i0": np.where(np.arange(NX) < frames, 1.0 + self.row, np.nan).tolist(),
            "xrf_fast_um": (np.arange(NX) * 0.1).tolist(),
            "xrf_row": self.row,
            "xrf_attempt": self.attempts[self.row],
            "xrf_n_frames": frames,
        }
        now = time.time()
        yield {"data": data, "timestamps": dict.fromkeys(data, now), "time": now}


def _done() -> Any:
    from ophyd.status import Status

    status = Status(timeout=5)
    status.set_finished()
    return status


def tiny_map(flyer: TinyFlyer, rows: list[int], pause_after: int | None = None) -> Any:
    @bpp.run_decorator(md={"plan_name": "xrf_fly_map", "shape": [6, NX], "hints": {}})
    def inner() -> Any:
        paused = False
        for row in rows:
            yield from bps.checkpoint()
            yield from bps.prepare(flyer, row, wait=True)
            yield from bps.kickoff(flyer, wait=True)
            yield from bps.complete(flyer, wait=True)
            yield from bps.collect(flyer)
            if row == pause_after and not paused:
                paused = True
                yield from bps.pause()

    return (yield from inner())


def fly(sink: Callable[..., None] | None = None, **options: Any) -> list[Document]:
    """Fly rows 0..4 of 6 (one is missing) and return the documents, as events."""
    engine, seen = RunEngine({}), []
    engine.subscribe(lambda name, doc: seen.append((name, doc)))
    if sink is not None:
        engine.subscribe(sink)
    try:
        engine(tiny_map(TinyFlyer(), options.pop("rows", [0, 1, 2, 3, 4]), **options))
    except RunEngineInterrupted:
        engine.resume()
    return as_events(seen)


def as_events(docs: list[Document]) -> list[Document]:
    flat: list[Document] = []
    for name, doc in docs:
        pages = unpack_event_page(doc) if name == "event_page" else None
        flat += [(name, doc)] if pages is None else [("event", event) for event in pages]
    return flat


def assert_same_run(read: list[Document], live: list[Document]) -> None:
    """Equal documents but for event uids, which Tiled doesn't keep; NaN equals NaN."""
    assert [name for name, _ in read] == [name for name, _ in live]
    for (name, got), (_, want) in zip(read, live, strict=True):
        if name == "event":
            for key in ("descriptor", "seq_num", "time", "timestamps"):
                assert got[key] == want[key]
            assert got["data"].keys() == want["data"].keys()
            for key, value in want["data"].items():
                np.testing.assert_array_equal(np.asarray(got["data"][key]), np.asarray(value))
        elif name == "descriptor":
            for key in ("uid", "run_start", "name"):
                assert got[key] == want[key]
            # Tiled's writer adds a dtype_numpy where there is none.
            assert got["data_keys"].keys() == want["data_keys"].keys()
            for key, facts in want["data_keys"].items():
                assert {**got["data_keys"][key], **facts} == got["data_keys"][key]
            assert configured(got) == configured(want)
        else:
            assert {key: got[key] for key in want} == want


def databroker_or_skip() -> Any:
    try:
        version("databroker")
    except PackageNotFoundError:
        pytest.skip("databroker is not installed")
    return pytest.importorskip("databroker")


def configured(descriptor: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration values by device."""
    return {name: facts["data"] for name, facts in descriptor["configuration"].items()}
