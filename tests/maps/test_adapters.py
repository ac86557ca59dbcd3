from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.plans import grid_scan
from event_model import DocumentNames, compose_run, schema_validators
from ophyd.sim import SynAxis, SynSignal

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters import adapt_grid_scan, adapt_row_events, adapted
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.maps.elemental import ElementalMaps

Document = tuple[str, dict[str, Any]]


def assembled(documents: Iterable[Document]) -> ElementalMaps:
    builder: MapBuilder | None = None
    for name, doc in documents:
        schema_validators[DocumentNames[name]].validate(doc)
        if name == "start":
            builder = MapBuilder(doc)
        elif builder is not None and name in ("descriptor", "event"):
            getattr(builder, name)(doc)
    assert builder is not None
    return builder.maps()


class Motor(SynAxis):
    """A simulated axis that says its units."""

    def describe(self) -> dict[str, Any]:
        described = copy.deepcopy(super().describe())
        for facts in described.values():
            facts["units"] = self.egu
        return described


def fly_grid_scan(
    ends: tuple[float, ...] = (0.0, 0.3, 0.0, 0.4), *, snake: bool = True, egu: str = "mm"
) -> list[Document]:
    """Scan 4 x 5 pixels; "iron" counts 100 * y + x in pixels, wherever that is."""
    slow, fast = Motor(name="samy"), Motor(name="samx")
    slow.egu = fast.egu = egu
    detector = SynSignal(
        name="iron",
        func=lambda: 100 * round(slow.readback.get() / 0.1) + round(fast.readback.get() / 0.1),
    )
    docs: list[Document] = []
    y_first, y_last, x_first, x_last = ends
    plan = grid_scan([detector], slow, y_first, y_last, 4, fast, x_first, x_last, 5, snake)
    RunEngine({})(plan, lambda name, doc: docs.append((name, doc)))
    return docs


EXPECTED = 100 * np.arange(4)[:, None] + np.arange(5)[None]


@pytest.mark.parametrize("snake", [True, False])
@pytest.mark.parametrize("ends", [(0.0, 0.3, 0.0, 0.4), (0.3, 0.0, 0.4, 0.0), (0.3, 0.0, 0.0, 0.4)])
def test_a_grid_scan_becomes_a_map_whichever_way_it_ran(
    ends: tuple[float, ...], snake: bool
) -> None:
    docs = fly_grid_scan(ends, snake=snake)
    maps = assembled(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100))
    np.testing.assert_array_equal(maps.counts.values[0], EXPECTED)
    np.testing.assert_allclose(maps.grid.fast.centers_um, [0, 100, 200, 300, 400])
    np.testing.assert_allclose(maps.grid.slow.edges_um, [-50, 50, 150, 250, 350])
    assert maps.attrs["source_uid"] == docs[0][1]["uid"]
    assert maps.attrs["complete"]


def test_a_grid_scan_that_was_aborted_and_one_that_was_rewound() -> None:
    docs = fly_grid_scan()
    events = [place for place, (name, _) in enumerate(docs) if name == "event"]
    cut = [one for place, one in enumerate(docs) if place not in events[12:]]
    maps = assembled(adapt_grid_scan(cut, {"Fe": "iron"}, dwell_ms=100))
    values = maps.counts.values[0]
    np.testing.assert_array_equal(values[:2], EXPECTED[:2])
    np.testing.assert_array_equal(np.isfinite(values[2]), [True, True, False, False, False])
    assert not np.isfinite(values[3]).any()

    again = copy.deepcopy(docs[events[3]])
    again[1]["data"]["iron"] = 7
    rewound = [*docs[: events[5]], again, *docs[events[5] :]]
    maps = assembled(adapt_grid_scan(rewound, {"Fe": "iron"}, dwell_ms=100))
    assert maps.counts.values[0, 0, 3] == 7


def test_what_is_missing_is_named() -> None:
    docs = fly_grid_scan(egu="turns")
    with pytest.raises(
        AssemblyError, match=r"samy': unit is 'turns'; one of .*mm.*; or give um_per_unit"
    ):
        list(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100))
    with pytest.raises(AssemblyError, match=r"samy': the unit is missing; .*; or give um_per_unit"):
        list(adapt_grid_scan(fly_grid_scan(egu=""), {"Fe": "iron"}, dwell_ms=100))
    given = adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100, um_per_unit=10.0)
    assert assembled(given).grid.fast.step_um == pytest.approx(1.0)
    with pytest.raises(AssemblyError, match="no data key 'zinc'"):
        list(adapt_grid_scan(fly_grid_scan(), {"Zn": "zinc"}, dwell_ms=100))
    with pytest.raises(AssemblyError, match="no two-dimensional grid scan"):
        list(adapt_grid_scan([("start", {"uid": "a", "time": 0})], {}, dwell_ms=100))


@pytest.mark.parametrize(
    ("egu", "step_um"), [("MM", 100), ("micrometre", 0.1), ("nanometer", 1e-4)]
)
def test_a_grid_scan_is_read_in_whatever_unit_its_motors_spell(egu: str, step_um: float) -> None:
    maps = assembled(adapt_grid_scan(fly_grid_scan(egu=egu), {"Fe": "iron"}, dwell_ms=100))
    assert maps.grid.fast.step_um == pytest.approx(step_um)
    np.testing.assert_array_equal(maps.counts.values[0], EXPECTED)


def row_run(
    rows: Iterable[tuple[int, list[float]]],
    *,
    snake: bool = True,
    stream: str = "stream0",
    axis: dict[str, Any] | None = None,
    units: str | None = None,
) -> Iterator[Document]:
    """Rows of a fly scan as SRX records them; positions from 10 to 14 um and 0 to 6 um."""
    keys = {
        key: {"source": "sim", "dtype": "array", "shape": [5]}
        for key in ("fe_counts", "i0", "enc1")
    }
    if units is not None:
        keys["fe_counts"]["units"] = units
    scan = {"type": "XRF_FLY", "scan_input": [10.0, 14.0, 5, 0.0, 6.0, 4, 0.05],
            "shape": [5, 4], "snake": int(snake),
            "fast_axis": {"motor_name": "nano_x", **({"units": "um"} if axis is None else axis)},
            "slow_axis": {"motor_name": "nano_y", "units": "um"}}  # fmt: skip
    run = compose_run(metadata={"scan": scan})
    yield "start", run.start_doc
    described = run.compose_descriptor(name=stream, data_keys=keys)
    yield "descriptor", described.descriptor_doc
    for seq_num, values in rows:
        line = seq_num - 1
        frame = np.arange(len(values))
        encoder = 14.0 - frame if snake and line % 2 else 10.0 + frame
        data = {"fe_counts": values, "i0": [1.0] * len(values), "enc1": encoder.tolist()}
        event = described.compose_event(
            data=data, timestamps=dict.fromkeys(data, 1.0), seq_num=seq_num, validate=False
        )
        yield "event", event
    yield "stop", run.compose_stop()


@pytest.mark.parametrize("fast_key", [None, "enc1"])
def test_row_events_become_a_map_with_short_missing_and_repeated_rows(
    fast_key: str | None,
) -> None:
    rows = [(1, [0.0, 1, 2, 3, 4]), (2, [14.0, 13, 12, 11, 10]), (4, [9.0, 9, 9, 9, 9]),
            (4, [34.0, 33, 32])]  # fmt: skip
    adapted = adapt_row_events(row_run(rows), {"Fe": "fe_counts"}, i0_key="i0", fast_key=fast_key)
    maps = assembled(adapted)
    values = maps.counts.values[0]
    np.testing.assert_array_equal(values[0], [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(values[1], [10, 11, 12, 13, 14])
    assert not np.isfinite(values[2]).any()
    np.testing.assert_array_equal(values[3], [np.nan, np.nan, 32, 33, 34])
    assert maps.attrs["dwell_ms"] == 50.0
    assert maps.attrs["sampling"] == "rows"
    assert not maps.attrs["complete"]
    np.testing.assert_allclose(maps.grid.slow.centers_um, [0, 2, 4, 6])


def test_row_events_that_are_not_there_or_not_filled_are_named() -> None:
    with pytest.raises(AssemblyError, match="no stream 'stream0' or 'primary'; there is 'other'"):
        list(adapt_row_events(row_run([], stream="other"), {"Fe": "fe_counts"}))
    with pytest.raises(AssemblyError, match="stream 'stream0': has no events"):
        list(adapt_row_events(row_run([]), {"Fe": "fe_counts"}))
    unfilled: Any = [(1, "b3f2a1-datum/0")]
    with pytest.raises(AssemblyError, match=r"is not filled; .* is no number"):
        list(adapt_row_events(row_run(unfilled), {"Fe": "fe_counts"}))
    with pytest.raises(AssemblyError, match="scan_input"):
        list(adapt_row_events([("start", {"uid": "a", "time": 0})], {"Fe": "x"}))


@pytest.mark.parametrize(
    ("axis", "step_um"),
    [({}, 1.0), ({"units": ""}, 1.0), ({"units": None}, 1.0), ({"units": "millimetre"}, 1e3)],
)
def test_axes_of_row_events_without_units_count_as_um(axis: dict[str, Any], step_um: float) -> None:
    adapted = adapt_row_events(row_run([(4, [1.0])], axis=axis), {"Fe": "fe_counts"})
    grid = assembled(adapted).grid
    assert (grid.fast.step_um, grid.slow.step_um) == (step_um, 2.0)


def test_axes_of_row_events_in_an_unknown_unit_are_refused() -> None:
    with pytest.raises(AssemblyError, match=r"scan.fast_axis: unit is 'px'; one of .* is needed"):
        list(adapt_row_events(row_run([], axis={"units": "px"}), {"Fe": "fe_counts"}))


def with_units(documents: list[Document], units: str) -> list[Document]:
    """The documents with another unit of what the detector counts."""
    changed = copy.deepcopy(documents)
    for name, doc in changed:
        if name == "descriptor":
            doc["data_keys"]["iron"]["units"] = units
    return changed


def test_rates_in_documents_become_photons_by_the_dwell_time() -> None:
    docs = with_units(fly_grid_scan(), "counts/s")
    maps = assembled(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100))
    np.testing.assert_allclose(maps.counts.values[0], EXPECTED / 10)
    rows = row_run([(3, [0.0, 20, 40, 60, 80]), (4, [0.0])], units="cps")
    maps = assembled(adapt_row_events(rows, {"Fe": "fe_counts"}))
    np.testing.assert_allclose(maps.counts.values[0, 2], [0, 1, 2, 3, 4])


def test_values_in_documents_that_are_no_photons_are_refused() -> None:
    docs = with_units(fly_grid_scan(), "ug/cm2")
    with pytest.raises(
        AssemblyError, match=r"data key 'iron': unit is 'ug/cm2'; counts are needed"
    ):
        list(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100))
    with pytest.raises(AssemblyError, match="unit is 'counts/s', which needs a dwell time"):
        list(adapt_grid_scan(with_units(docs, "counts/s"), {"Fe": "iron"}, dwell_ms=0))
    with pytest.raises(AssemblyError, match=r"data key 'fe_counts': unit is 'a\.u\.'"):
        list(adapt_row_events(row_run([], units="a.u."), {"Fe": "fe_counts"}))


def other_scan(name: str, *args: Any, at: tuple[float, float] = (0.0, 0.0)) -> list[Document]:
    """Scan with one of bluesky's other plans; iron counts 10 * y + x + 200, wherever that is."""
    from bluesky import plans

    slow, fast = SynAxis(name="samy"), SynAxis(name="samx")
    fast.set(at[0])
    slow.set(at[1])
    detector = SynSignal(
        name="iron", func=lambda: 10 * slow.readback.get() + fast.readback.get() + 200
    )
    axes = {"y": slow, "x": fast}
    docs: list[Document] = []
    plan = getattr(plans, name)([detector], *(axes.get(str(one), one) for one in args))
    RunEngine({})(plan, lambda name, doc: docs.append((name, doc)))
    return docs


UP, DOWN = list(range(-3, 4)), list(range(3, -4, -1))


@pytest.mark.parametrize(
    ("name", "args", "at"),
    [
        ("grid_scan", ("y", -3, 3, 7, "x", -3, 3, 7), (0, 0)),
        ("rel_grid_scan", ("y", -3, 3, 7, "x", -3, 3, 7), (100, 50)),
        ("rel_grid_scan", ("y", -3, 3, 7, "x", -3, 3, 7), (2, -1)),
        ("rel_grid_scan", ("y", 3, -3, 7, "x", 3, -3, 7, True), (2, 7)),
        ("list_grid_scan", ("y", UP, "x", UP), (0, 0)),
        ("list_grid_scan", ("y", DOWN, "x", DOWN), (0, 0)),
        ("list_grid_scan", ("y", DOWN, "x", UP, True), (0, 0)),
        ("grid_scan", ("y", -2, -9, 1, "x", -3, 3, 7), (0, 0)),
    ],
)
def test_every_scan_on_a_lattice_becomes_the_map_of_where_its_motors_were(
    name: str, args: tuple[Any, ...], at: tuple[float, float]
) -> None:
    docs = other_scan(name, *args, at=at)
    maps = assembled(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100, um_per_unit=1))
    x, y = maps.grid.fast.centers_um, maps.grid.slow.centers_um
    np.testing.assert_allclose(maps.counts.values[0], 10 * y[:, None] + x + 200)
    assert maps.attrs["complete"]
    assert maps.attrs["notes"] == []


def test_a_scan_whose_points_are_on_no_lattice_is_refused() -> None:
    docs = other_scan("list_grid_scan", "y", [-3, -1, -0.5, 0, 0.5, 2, 3], "x", UP)
    with pytest.raises(AssemblyError, match="'samy' are not 7 equally spaced ones"):
        list(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=1, um_per_unit=1))


def test_scans_that_have_no_grid_are_refused_by_name() -> None:
    docs = other_scan("spiral_square", "x", "y", 0, 0, 16, 16, 17, 17)
    with pytest.raises(AssemblyError, match=r"is a 'spiral_square'; .* grid_scan, rel_grid_scan"):
        list(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=1, um_per_unit=1))


@pytest.mark.parametrize("offset", [0.1, 0.3, 0.74, -5.2])
def test_a_relative_scan_lies_where_its_motors_were_to_a_hundredth_of_a_pixel(
    offset: float,
) -> None:
    docs = other_scan("rel_grid_scan", "y", -3, 3, 7, "x", -3, 3, 7, at=(offset, 2 * offset))
    maps = assembled(adapt_grid_scan(docs, {"Fe": "iron"}, dwell_ms=100, um_per_unit=1))
    np.testing.assert_allclose(maps.grid.fast.centers_um, np.arange(-3, 4) + offset, atol=0.005)
    np.testing.assert_allclose(maps.grid.slow.centers_um, np.arange(-3, 4) + 2 * offset, atol=0.005)
    assert np.isfinite(maps.counts.values).all()


def four_channels(stacked: bool) -> list[Document]:
    """A scan whose detector has four elements, in columns of their own or in one array."""
    docs = fly_grid_scan()
    shares = (0.5, 0.25, 0.125, 0.125)
    for name, doc in docs:
        if name == "descriptor":
            iron = doc["data_keys"].pop("iron")
            for number in range(4):
                doc["data_keys"][f"xs_ch{number}_fe"] = iron
        if name == "event":
            iron = doc["data"].pop("iron")
            columns = {f"xs_ch{at}_fe": share * iron for at, share in enumerate(shares)}
            doc["data"] |= {"xs_ch0_fe": list(columns.values())} if stacked else columns
    return docs


@pytest.mark.parametrize("keys", [None, [f"xs_ch{number}_fe" for number in range(4)]])
def test_the_columns_of_several_detector_elements_are_added_up(keys: list[str] | None) -> None:
    channels = {"Fe": keys} if keys else None
    maps = assembled(adapted(four_channels(stacked=False), channels=channels, dwell_ms=100))
    np.testing.assert_array_equal(maps.counts.values[0], EXPECTED)
    assert maps.elements == ["Fe"]


def test_a_column_of_several_detector_elements_is_added_up_and_a_spectrum_is_not() -> None:
    docs = four_channels(stacked=True)
    maps = assembled(adapt_grid_scan(docs, {"Fe": "xs_ch0_fe"}, dwell_ms=100))
    np.testing.assert_array_equal(maps.counts.values[0], EXPECTED)
    for shape in ((64,), (1, 4, 64), (3, 4)):
        for name, doc in docs:
            if name == "event":
                doc["data"]["xs_ch0_fe"] = np.ones(shape).tolist()
        with pytest.raises(AssemblyError, match=r"stream 'primary', data key 'xs_ch0_fe': has the"):
            list(adapt_grid_scan(docs, {"Fe": "xs_ch0_fe"}, dwell_ms=100))


def test_a_scan_column_by_column_is_turned() -> None:
    fast, slow = Motor(name="samy"), Motor(name="samx")
    fast.egu = slow.egu = "um"
    detector = SynSignal(name="fe", func=lambda: 10 * fast.readback.get() + slow.readback.get())
    docs: list[Document] = []
    plan = grid_scan([detector], slow, 1.0, 4.0, 4, fast, 1.0, 3.0, 3, True)
    RunEngine({})(plan, lambda name, doc: docs.append((name, doc)))
    maps = assembled(adapted(docs, dwell_ms=100))
    np.testing.assert_array_equal(maps.counts.values[0, 2], [31, 32, 33, 34])
    assert (maps.grid.fast.name, maps.grid.slow.name) == ("samx", "samy")
    assert maps.attrs["sampling"] == "point"


def test_the_dwell_time_is_taken_from_the_documents_or_from_the_times_of_the_events() -> None:
    docs = fly_grid_scan()
    maps = assembled(adapted(docs, channels={"Fe": "iron"}))
    assert any("no dwell time in the documents" in note for note in maps.attrs["notes"])
    with pytest.raises(AssemblyError, match="'counts/s', which needs a dwell time"):
        list(adapted(with_units(docs, "counts/s"), channels={"Fe": "iron"}))
    docs[0][1]["dwell_time"] = 0.25
    assert assembled(adapted(docs, channels={"Fe": "iron"})).attrs["dwell_ms"] == 250
