"""Arrays in files behind a Tiled server are read through it, and placed right or refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from support.foreign_runs import (
    ELEMENTS,
    FIELD,
    N_BINS,
    ROI_CHANNELS,
    Writer,
    assembled,
    assert_is,
    grid_run,
    haven_run,
    spectra,
    write,
)
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters import adapted, catalog_arrays
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.source_flags import known
from xrf_sr_plans.store.documents import arrays_of, documents

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
Document = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, str]]:
    """A real Tiled server that may read a folder; the folder, a client and its address."""
    pytest.importorskip("tiled.server.app")
    pytest.importorskip("bluesky_tiled_plugins")
    from tiled.client import from_uri

    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "tiled", "serve", "catalog", "--temp", "--api-key", "secret",
         "--host", "127.0.0.1", "--port", str(port), "-r", str(folder)],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                client = from_uri(f"http://127.0.0.1:{port}", api_key="secret")
                break
            except Exception:  # noqa: BLE001 - whatever it says while it starts up
                assert process.poll() is None, "the server didn't start"
                assert time.monotonic() < deadline, "the server isn't up after 120 s"
                time.sleep(0.3)
        yield folder, client, f"http://127.0.0.1:{port}?api_key=secret"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


@pytest.fixture
def folder(server: tuple[Path, Any, str], tmp_path: Path) -> Path:
    """A folder of this test that the server may read."""
    made = server[0] / tmp_path.name
    made.mkdir()
    return made


def stored(server: tuple[Path, Any, str], written: list[Document]) -> Any:
    """Return a run as Tiled has it."""
    from bluesky_tiled_plugins import TiledWriter

    writer = TiledWriter(server[1], max_array_size=0)
    for name, doc in written:
        writer(name, dict(doc))
    return server[1][written[0][1]["uid"]]


def read(run: Any, **more: Any) -> Any:
    return assembled(adapted(documents(run), channels=ROI_CHANNELS, arrays=arrays_of(run), **more))


def row_run(folder: Path, *, lost: int | None = None) -> list[Document]:
    """Return a fly scan with an event a row, whose spectra are one array of a file."""
    inputs = [FIELD.x[0], FIELD.x[-1], FIELD.nx, FIELD.y[0], FIELD.y[-1], FIELD.ny, 0.05]
    axes = {f"{axis}_axis": {"motor_name": name, "units": "um"}
            for axis, name in (("fast", "stage_x"), ("slow", "stage_y"))}  # fmt: skip
    scan = {"type": "XRF_FLY", "scan_input": [float(value) for value in inputs], "dwell": 0.05,
            "snake": 0, "shape": [FIELD.nx, FIELD.ny], **axes}  # fmt: skip
    writer = Writer({"plan_name": "fly_rows", "scan": scan})
    path = folder / "rows.h5"
    write(
        path, {"entry/data": np.stack([spectra(FIELD.counts[:, row]) for row in range(FIELD.ny)])}
    )
    row = {"source": "s", "dtype": "array", "dtype_numpy": "<f8", "shape": [FIELD.nx]}
    described = writer.stream(
        "stream0",
        {**dict.fromkeys(("enc1", "enc2", "i0"), row),
         "fluor": {"source": "s", "dtype": "array", "shape": [FIELD.nx, 4, N_BINS],
                   "dtype_numpy": "<f4", "external": "STREAM:"}},
    )  # fmt: skip
    resource = writer.run.compose_stream_resource(
        mimetype="application/x-hdf5", uri=f"file://localhost{path}", data_key="fluor",
        parameters={"dataset": "/entry/data", "chunk_shape": (1, FIELD.nx, 4, N_BINS)},
    )  # fmt: skip
    writer.documents.append(("stream_resource", resource.stream_resource_doc))
    for number in range(FIELD.ny):
        data = {"enc1": FIELD.x.tolist(), "enc2": [float(FIELD.y[number])] * FIELD.nx,
                "i0": [1e5] * FIELD.nx}  # fmt: skip
        writer.event(described, data, number + 1, 10.0 + number)
        if number != lost:
            datum = resource.compose_stream_datum(
                indices={"start": number, "stop": number + 1}, descriptor=described.descriptor_doc
            )
            writer.documents.append(("stream_datum", datum))
    return writer.stop()


def pixel_run(folder: Path) -> list[Document]:
    """Return a grid scan of an ophyd-async detector: motors in events, counts in a file."""
    written = grid_run()
    key = "xs_Fe"
    values = [doc["data"].pop(key) for name, doc in written if name == "event"]
    descriptor = next(doc for name, doc in written if name == "descriptor")
    descriptor["data_keys"][key] = {
        "source": "s", "dtype": "number", "dtype_numpy": "<f8", "shape": [1], "external": "STREAM:"
    }  # fmt: skip
    for name, doc in written:
        if name == "event":
            doc["timestamps"].pop(key)
    write(folder / "sum.h5", {"entry/sum": np.array(values)})
    uid = written[0][1]["uid"]
    resource = {
        "uid": f"{uid}-sum", "run_start": uid, "data_key": key, "mimetype": "application/x-hdf5",
        "uri": f"file://localhost{folder / 'sum.h5'}",
        "parameters": {"dataset": "/entry/sum", "chunk_shape": [1]},
    }  # fmt: skip
    datum = {
        "uid": f"{uid}-sum/0", "stream_resource": f"{uid}-sum", "descriptor": descriptor["uid"],
        "indices": {"start": 0, "stop": len(values)},
        "seq_nums": {"start": 1, "stop": len(values) + 1},
    }  # fmt: skip
    return [*written[:-1], ("stream_resource", resource), ("stream_datum", datum), written[-1]]


def test_spectra_without_any_event_are_read_piece_by_piece(server, folder, monkeypatch) -> None:
    monkeypatch.setattr(catalog_arrays, "FRAMES_AT_ONCE", 10)
    run = stored(server, haven_run(folder))
    assert_is(read(run))
    # The server reads the file; nobody here knows where it is.
    assert not any(name.startswith("stream_") for name, _ in documents(run))


def test_counts_in_a_file_belong_to_the_events_of_their_stream(server, folder) -> None:
    run = stored(server, pixel_run(folder))
    assert_is(assembled(adapted(documents(run), arrays=arrays_of(run), dwell_ms=10)))


def test_the_rows_of_a_fly_scan_have_their_spectra_from_the_server(server, folder) -> None:
    assert_is(read(stored(server, row_run(folder))))


def test_a_run_that_was_cut_off_has_its_first_rows_and_a_note(server, folder) -> None:
    written = haven_run(folder, lost=range(5, FIELD.ny))
    with h5py.File(folder / "xspress3.h5", "a") as file:
        taken = file["entry/data/data"][: 5 * FIELD.nx]
        del file["entry/data/data"]
        file["entry/data/data"] = taken
    run = stored(server, [*written[:-1], ("stop", {**written[-1][1], "exit_status": "abort"})])
    maps = read(run)
    assert_is(maps, missing=[(5, slice(None)), (6, slice(None))])
    assert any(
        "55 of 77 announced frames: taken as the first" in note for note in maps.attrs["notes"]
    )


@pytest.mark.parametrize("make", ["haven", "rows"])
def test_frames_that_are_missing_somewhere_are_refused(server, folder, make: str) -> None:
    written = haven_run(folder, lost=range(3, 4)) if make == "haven" else row_run(folder, lost=3)
    run = stored(server, written)
    says = r"run .*, stream '.*', data key 'fluor': the catalog has \d+ frames for \d+"
    with pytest.raises(AssemblyError, match=says):
        read(run)


def test_replay_reads_them_too_by_the_address_of_the_server(server, folder, tmp_path) -> None:
    run = stored(server, haven_run(folder))
    uid = run.metadata["start"]["uid"]
    options = ReplayOptions(
        known=known(channel=[f"{element}={ROI_CHANNELS[element]}" for element in ELEMENTS]),
        pictures=False,
    )
    report = replay_all([server[2]], tmp_path / "out", options, where={"uid": uid})
    assert not report.failures
    digest = replay(run, channels=ROI_CHANNELS).digest
    assert list(report.digests.values()) == [digest]
    assert replay(haven_run(folder), channels=ROI_CHANNELS).summary.status == "done"
