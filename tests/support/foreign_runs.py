"""Runs as other beamlines write them, of one asymmetric pattern, with what a reader has to find.

The pattern has no symmetry and other steps and pixel numbers along x than along y, so that maps
which are mirrored, turned, shifted or scaled differ from it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from event_model import compose_run

from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import ElementalMaps

Document = tuple[str, dict[str, Any]]

ELEMENTS = ("Ca", "Fe", "Zn")
BINS = {"Ca": 12, "Fe": 30, "Zn": 51}
N_BINS = 96
SHARES = np.array([0.5, 0.25, 0.125, 0.125])
"""What each of four detector elements counts of all photons; exact in floats."""
ROI_CHANNELS = {element: f"fluor[{place}:{place + 1}]" for element, place in BINS.items()}


@dataclass(frozen=True)
class Field:
    """Where the pixels of the pattern are, in um, and what they count."""

    nx: int = 11
    ny: int = 7
    x_um: float = 520.0
    y_um: float = -36.0
    dx_um: float = 1.5
    dy_um: float = 4.0

    @property
    def x(self) -> np.ndarray:
        return self.x_um + self.dx_um * np.arange(self.nx)

    @property
    def y(self) -> np.ndarray:
        return self.y_um + self.dy_um * np.arange(self.ny)

    @property
    def counts(self) -> np.ndarray:
        """Counts [element, y, x], every pixel of an element another one."""
        number = np.arange(self.ny)[:, None] * self.nx + np.arange(self.nx)
        hook = np.zeros((self.ny, self.nx))
        hook[1 : self.ny - 1, 2] = 1
        hook[1:2, 2 : self.nx - 2] = 1
        hook[3:4, 2:5] = 1
        return np.stack([number + 8.0, 400 * hook + 2 * number + 16, 1000 - 4.0 * number])


FIELD = Field()


def assembled(documents: Iterable[Document]) -> ElementalMaps:
    """Return the map of row documents, each checked against its schema."""
    from event_model import DocumentNames, schema_validators

    builder: MapBuilder | None = None
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
        if name == "start":
            builder = MapBuilder(doc)
        elif builder is not None and name in ("descriptor", "event"):
            getattr(builder, name)(doc)
    assert builder is not None
    assert builder.problems == []
    return builder.maps()


def assert_is(
    maps: ElementalMaps,
    field: Field = FIELD,
    missing: Collection[tuple[int, slice]] = (),
    elements: Sequence[str] = ELEMENTS,
) -> None:
    """Fail where a map isn't the field's, with holes where (row, columns) are missing."""
    expected = field.counts
    for row, columns in missing:
        expected[:, row, columns] = np.nan
    assert maps.elements == list(elements)
    np.testing.assert_allclose(maps.grid.fast.centers_um, field.x, atol=0.01 * field.dx_um)
    np.testing.assert_allclose(maps.grid.slow.centers_um, field.y, atol=0.01 * field.dy_um)
    order = [ELEMENTS.index(element) for element in elements]
    np.testing.assert_allclose(maps.counts.values, expected[order], rtol=1e-6)
    assert maps.attrs["complete"] == (not missing)


@dataclass
class Writer:
    """Composes the documents of one run."""

    metadata: dict[str, Any]
    documents: list[Document] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = compose_run(metadata=self.metadata)
        self.documents.append(("start", self.run.start_doc))

    def stream(self, name: str, data_keys: Mapping[str, Any]) -> Any:
        """Describe a stream, and return what composes its events."""
        described = self.run.compose_descriptor(name=name, data_keys=dict(data_keys))
        self.documents.append(("descriptor", described.descriptor_doc))
        return described

    def refer(self, spec: str, path: Path, columns: Iterable[str | None]) -> dict[str | None, str]:
        """Add a resource with a datum for each column, and return the ids of the datums."""
        resource = self.run.compose_resource(
            spec=spec, root="/", resource_path=str(path).lstrip("/"), resource_kwargs={}
        )
        self.documents.append(("resource", resource.resource_doc))
        ids = {}
        for column in columns:
            kwargs = {} if column is None else {"column": column}
            datum = resource.compose_datum(datum_kwargs=kwargs)
            self.documents.append(("datum", datum))
            ids[column] = datum["datum_id"]
        return ids

    def event(self, described: Any, data: dict[str, Any], number: int, time: float) -> None:
        """Add an event; what is text in it is not filled."""
        filled = {key: False for key, value in data.items() if isinstance(value, str)}
        event = described.compose_event(
            data=data, timestamps=dict.fromkeys(data, time), filled=filled, seq_num=number,
            time=time, validate=False,
        )  # fmt: skip
        self.documents.append(("event", event))

    def stop(self) -> list[Document]:
        """Add the stop document, and return all."""
        self.documents.append(("stop", self.run.compose_stop()))
        return self.documents


def spectra(counts: np.ndarray, detectors: int = 4) -> np.ndarray:
    """Return spectra [frame, detector element, bin] of counts [element, frame]."""
    out = np.zeros((counts.shape[1], detectors, N_BINS), dtype="f4")
    shares = SHARES[:detectors] / SHARES[:detectors].sum()
    for element, of in zip(ELEMENTS, counts, strict=True):
        out[:, :, BINS[element]] = of[:, None] * shares
    return out


def external(*shape: int) -> dict[str, Any]:
    """Return what a descriptor says of an array that isn't in the documents."""
    return {"source": "s", "dtype": "array", "shape": list(shape), "external": "FILESTORE:"}


def srx_run(
    folder: Path,
    *,
    of: Field = FIELD,
    snake: bool = True,
    reverse: bool = False,
    y_is_fast: bool = False,
    lost: Collection[int] = (),
    short: Mapping[int, int] | None = None,
    unit: str = "um",
    spec: str = "XSP3_FLY",
) -> list[Document]:
    """Return a fly scan of SRX as stored: a file a row for encoders, scalers and spectra each.

    A row that was lost leaves no gap in ``seq_num``, as the RunEngine numbers events.
    """
    scale = {"um": 1.0, "mm": 1e-3}[unit]
    counts = of.counts.transpose(0, 2, 1) if y_is_fast else of.counts
    fast, slow = (of.y, of.x) if y_is_fast else (of.x, of.y)
    names = ("nano_stage_sy", "nano_stage_sx") if y_is_fast else ("nano_stage_sx", "nano_stage_sy")
    ends = (fast[-1], fast[0]) if reverse else (fast[0], fast[-1])
    inputs = [*ends, len(fast), slow[0], slow[-1], len(slow)]
    lengths = [value * scale if at % 3 != 2 else value for at, value in enumerate(inputs)]
    scan = {
        "type": "XRF_FLY", "scan_input": [*map(float, lengths), 0.05], "dwell": 0.05,
        "fast_axis": {"motor_name": names[0], "units": unit},
        "slow_axis": {"motor_name": names[1], "units": unit},
        "snake": int(snake), "shape": [len(fast), len(slow)],
    }  # fmt: skip
    writer = Writer({"plan_name": "nano_scan_and_fly", "scan": scan})
    columns = ("enc1", "enc2", "enc3")
    keys: dict[str, Any] = {key: external(len(fast)) for key in (*columns, "i0")}
    described = writer.stream("stream0", {**keys, "fluor": external(len(fast), 4, N_BINS)})
    number = 0
    for row, at in enumerate(slow):
        if row in lost:
            continue
        number += 1
        order = np.arange(len(fast))
        if reverse != (snake and row % 2 == 1):
            order = order[::-1]
        order = order[: (short or {}).get(row, len(fast))]
        along, across = fast[order] * scale, np.full(order.size, at * scale)
        x, y = (across, along) if y_is_fast else (along, across)
        encoders, scalers, detector = (folder / f"{kind}{row}.h5" for kind in ("enc", "sis", "xs"))
        write(encoders, {"enc1": x, "enc2": y, "enc3": np.zeros(order.size)})
        write(scalers, {"i0": np.full(order.size, 1e5)})
        write(detector, {"entry/instrument/detector/data": spectra(counts[:, row, order])})
        data: dict[str, Any] = {
            **writer.refer("ZEBRA_HDF51", encoders, columns),
            **writer.refer("SIS_HDF51", scalers, ["i0"]),
            "fluor": writer.refer(spec, detector, [None])[None],
        }
        writer.event(described, data, number, 10.0 + row)
    return writer.stop()


def write(path: Path, columns: Mapping[str, Any]) -> None:
    """Write an HDF5 file with a data set for each column."""
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[name] = values


def tes_run(of: Field = FIELD, lost: Collection[int] = ()) -> list[Document]:
    """Return a fly scan of TES: lengths in mm, spectra of two detector elements in the events."""
    dx, dy = of.dx_um / 1e3, of.dy_um / 1e3
    x, y = of.x / 1e3, of.y / 1e3
    writer = Writer(
        {
            "plan_name": "xy_fly",
            "user_input": {"dwell_time": 0.1, "xstart": float(x[0] - dx / 2),
                           "xstop": float(x[-1] + dx / 2), "xstep_size": dx,
                           "ystart": float(y[0]), "ystop": float(y[-1] + dy), "ystep_size": dy},
            "derived_input": {"actual_xstep_size": dx, "actual_ystep_size": dy, "xpixels": of.nx,
                              "ypixels": of.ny, "fly_velocity": dx / 0.1},
            "scan": {"snake": False, "shape": [of.nx, of.ny]},
        }
    )  # fmt: skip
    number = {"source": "s", "dtype": "number", "shape": [], "units": "mm"}
    row_of = {"source": "s", "dtype": "array", "shape": [of.nx]}
    ends = writer.stream("row_ends", {"xy_stage_x": number, "xy_stage_y": number})
    keys = dict.fromkeys(("x_centers", "y_centers", "I0"), row_of)
    primary = writer.stream("primary", {**keys, "fluor": {**row_of, "shape": [of.nx, 2, N_BINS]}})
    flown = [row for row in range(of.ny) if row not in lost]
    for seq_num, row in enumerate(flown, start=1):
        data = {"xy_stage_x": float(x[0] - dx / 2), "xy_stage_y": float(y[row])}
        writer.event(ends, data, 2 * seq_num - 1, 10.0 + row)
        writer.event(ends, data, 2 * seq_num, 10.5 + row)
        data = {"x_centers": x.tolist(), "y_centers": [float(y[row])] * of.nx,
                "I0": [1e5] * of.nx, "fluor": spectra(of.counts[:, row], 2).tolist()}  # fmt: skip
        writer.event(primary, data, seq_num, 10.6 + row)
    return writer.stop()


def hxn_run(
    kind: str = "2D_FLY_PANDA",
    *,
    of: Field = FIELD,
    encoders: bool = True,
    y_is_fast: bool = False,
    down: bool = False,
    frames: int | None = None,
) -> list[Document]:
    """Return a fly scan of HXN: one event with a column of all pixels a detector element.

    Parameters
    ----------
    down
        Whether lines run from high to low.
    frames
        Number of frames that were taken, where the scan was cut off.
    """
    counts = of.counts.transpose(0, 2, 1) if y_is_fast else of.counts
    fast, slow = (of.y, of.x) if y_is_fast else (of.x, of.y)
    if down:
        fast, counts = fast[::-1], counts[:, :, ::-1]
    steps = [of.dy_um, of.dx_um] if y_is_fast else [of.dx_um, of.dy_um]
    steps[0] *= -1 if down else 1
    names = ("zpssy", "zpssx") if y_is_fast else ("zpssx", "zpssy")
    if kind == "FIP_2D_FLY":
        inputs = [fast.mean(), fast[-1] - fast[0], len(fast), slow[0], slow[-1], len(slow), 0.05]
    else:
        inputs = [fast[0] - steps[0] / 2, fast[-1] + steps[0] / 2, len(fast),
                  slow[0], slow[-1] + steps[1], len(slow)]  # fmt: skip
    scan = {
        "type": kind, "scan_input": [float(value) for value in inputs], "dwell": 0.05,
        "detectors": ["xspress3", "panda1", "sclr1"],
        "fast_axis": {"motor_name": names[0], "units": "um"},
        "slow_axis": {"motor_name": names[1], "units": "um"},
        "shape": [len(fast), len(slow)],
    }  # fmt: skip
    writer = Writer({"plan_name": "fly2dcontpd", "motors": list(names), "scan": scan,
                     "shape": [len(fast), len(slow)]})  # fmt: skip
    along, across = (grid.ravel() for grid in np.meshgrid(fast, slow))
    x, y = (across, along) if y_is_fast else (along, across)
    columns = {
        f"Det{number + 1}_{element}": (of_element * SHARES[number]).ravel()
        for element, of_element in zip(ELEMENTS, counts, strict=True)
        for number in range(4)
    } | {"sclr1_ch4": np.full(x.size, 1e5)}
    if encoders:
        columns |= {"inenc2_val": x, "inenc3_val": y}
    array = {"source": "s", "dtype": "array", "shape": [x.size]}
    described = writer.stream("primary", dict.fromkeys(columns, array))
    data = {key: values[:frames].tolist() for key, values in columns.items()}
    writer.event(described, data, 1, 11.0)
    return writer.stop()


def grid_run(
    *,
    of: Field = FIELD,
    relative: bool = False,
    from_lists: bool = False,
    lost: Collection[int] = (),
    snake: bool = True,
) -> list[Document]:
    """Return bluesky's `grid_scan`, an event a pixel, as its plan writes it.

    Parameters
    ----------
    relative
        Whether it is a `rel_grid_scan`.
    from_lists
        Whether it is a `list_grid_scan`, which lists the positions and leaves other facts out.
    lost
        Frames whose events are missing, by their number from 0.
    """
    start = _grid_start(of, relative, snake)
    if from_lists:
        args = ["samy", of.y.tolist(), "samx", of.x.tolist()]
        for said in ("snaking", "num_points"):
            del start[said]
        start |= {
            "plan_name": "list_grid_scan",
            "plan_pattern": "outer_list_product",
            "snake_axes": repr(snake),
            "plan_args": {"args": args, "per_step": "None"},
        }
        del start["hints"]["gridding"]
    writer = Writer(start)
    number = {"source": "s", "dtype": "number", "shape": []}
    motors = {key: {**number, "units": "um"} for key in ("samy", "samx")}
    counters = dict.fromkeys((*(f"xs_{element}" for element in ELEMENTS), "i0"), number)
    described = writer.stream("primary", {**motors, **counters})
    for frame, (row, column) in enumerate(visited(of, snake)):
        if frame in lost:
            continue
        data: dict[str, Any] = {"samy": float(of.y[row]), "samx": float(of.x[column]), "i0": 1e5}
        for element, counts in zip(ELEMENTS, of.counts, strict=True):
            data[f"xs_{element}"] = float(counts[row, column])
        writer.event(described, data, frame + 1, 10.0 + frame)
    return writer.stop()


def _grid_start(of: Field, relative: bool, snake: bool) -> dict[str, Any]:
    x_um, y_um = (of.x.mean(), of.y.mean()) if relative else (0.0, 0.0)
    extents = [[float(axis[0] - at), float(axis[-1] - at)]
               for axis, at in ((of.y, y_um), (of.x, x_um))]  # fmt: skip
    return {
        "plan_name": "rel_grid_scan" if relative else "grid_scan",
        "plan_pattern": "outer_product", "shape": [of.ny, of.nx], "extents": extents,
        "motors": ["samy", "samx"], "snaking": [False, snake], "num_points": of.nx * of.ny,
        "hints": {"gridding": "rectilinear",
                  "dimensions": [[["samy"], "primary"], [["samx"], "primary"]]},
    }  # fmt: skip


def visited(of: Field, snake: bool) -> list[tuple[int, int]]:
    """Return row and column of each pixel in the order in which a scan comes there."""
    return [
        (row, column)
        for row in range(of.ny)
        for column in (range(of.nx)[::-1] if snake and row % 2 else range(of.nx))
    ]


def ophyd_async_run(
    folder: Path, *, of: Field = FIELD, lost: Collection[int] = (), snake: bool = True
) -> list[Document]:
    """Return a `grid_scan` with a detector of ophyd-async: an event and a frame in a file a pixel.

    Parameters
    ----------
    lost
        Frames that no ``stream_datum`` refers to, by their number from 0.
    """
    order = visited(of, snake)
    rows, columns = np.array(order).T
    path = folder / "fluor.h5"
    write(path, {"entry/data/data": spectra(of.counts[:, rows, columns])})
    writer = Writer(_grid_start(of, False, snake))
    motor = {"source": "soft://", "dtype": "number", "shape": [], "units": "um"}
    described = writer.stream("primary", {"samy": motor, "samx": motor, "fluor": _streamed()})
    resource = _stream_resource(writer, path)
    for frame, (row, column) in enumerate(order):
        if frame not in lost:
            datum = resource.compose_stream_datum(
                indices={"start": frame, "stop": frame + 1}, descriptor=described.descriptor_doc
            )
            writer.documents.append(("stream_datum", datum))
        data = {"samy": float(of.y[row]), "samx": float(of.x[column])}
        writer.event(described, data, frame + 1, 10.0 + frame)
    return writer.stop()


def _streamed() -> dict[str, Any]:
    return {"source": "ca://", "dtype": "array", "shape": [1, 4, N_BINS],
            "dtype_numpy": "<f4", "external": "STREAM:"}  # fmt: skip


def _stream_resource(writer: Writer, path: Path) -> Any:
    """Add a stream resource for the spectra in a file, and return what composes its datums."""
    resource = writer.run.compose_stream_resource(
        mimetype="application/x-hdf5", uri=f"file://localhost{path}", data_key="fluor",
        parameters={"dataset": "/entry/data/data", "chunk_shape": (1, 4, N_BINS)},
    )  # fmt: skip
    writer.documents.append(("stream_resource", resource.stream_resource_doc))
    return resource


def haven_run(
    folder: Path, *, of: Field = FIELD, lost: range = range(0), snake: bool = True
) -> list[Document]:
    """Return a fly scan of haven: a stream a detector, spectra in one file, no event at all.

    Parameters
    ----------
    lost
        Lines that no ``stream_datum`` refers to.
    """
    rows, columns = np.array(visited(of, snake)).T
    path = folder / "xspress3.h5"
    write(path, {"entry/data/data": spectra(of.counts[:, rows, columns])})
    writer = Writer(
        {
            "plan_name": "grid_fly_scan", "plan_pattern": "outer_product",
            "shape": [of.ny, of.nx], "num_points": of.nx * of.ny,
            "extents": [[float(of.y[0]), float(of.y[-1])], [float(of.x[0]), float(of.x[-1])]],
            "motors": ["sample_y", "sample_x"], "snaking": [False, snake], "dwell_time": 0.02,
            "hints": {"gridding": "rectilinear",
                      "dimensions": [[["sample_y"], "primary"], [["sample_x"], "primary"]]},
        }
    )  # fmt: skip
    detector = writer.stream("xspress3", {"fluor": _streamed()})
    motor = {"source": "ca://", "dtype": "number", "shape": [], "units": "um"}
    writer.stream("sample_y", {"sample_y": motor})
    writer.stream("sample_x", {"sample_x": motor})
    resource = _stream_resource(writer, path)
    for row in range(of.ny):
        if row not in lost:
            datum = resource.compose_stream_datum(
                indices={"start": row * of.nx, "stop": (row + 1) * of.nx},
                descriptor=detector.descriptor_doc,
            )
            writer.documents.append(("stream_datum", datum))
    return writer.stop()
