"""Runs of SRX, TES, HXN and haven become the map that was measured, or a refusal that says why."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.foreign_runs import (
    FIELD,
    ROI_CHANNELS,
    Document,
    Field,
    assembled,
    assert_is,
    grid_run,
    haven_run,
    hxn_run,
    ophyd_async_run,
    srx_run,
    tes_run,
)
from xrf_sr_plans.errors import AssemblyError, ConfigError
from xrf_sr_plans.maps.adapters import adapted


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("snake", [False, True])
def test_rows_of_srx_are_read_from_the_files_that_they_refer_to(
    tmp_path: Path, snake: bool, reverse: bool
) -> None:
    docs = srx_run(tmp_path, snake=snake, reverse=reverse)
    maps = assembled(adapted(docs, channels=ROI_CHANNELS))
    assert_is(maps)
    assert maps.attrs["notes"] == []
    assert maps.attrs["sampling"] == "fly"
    assert maps.attrs["dwell_ms"] == 50
    assert (maps.dataset["i0"].values == 1e5).all()


def test_a_lost_row_of_srx_is_a_hole_and_moves_no_other_row(tmp_path: Path) -> None:
    docs = srx_run(tmp_path, lost={0, 3}, short={4: 6})
    maps = assembled(adapted(docs, channels=ROI_CHANNELS))
    assert_is(maps, missing=[(0, slice(None)), (3, slice(None)), (4, slice(6, None))])


def test_without_readings_of_the_slow_axis_nobody_knows_which_row_was_lost(tmp_path: Path) -> None:
    docs = srx_run(tmp_path, lost={3})
    for name, doc in docs:
        for part in ("data_keys", "data"):
            doc.get(part, {}).pop("enc2", None)
            doc.get(part, {}).pop("enc3", None)
        assert name
    with pytest.raises(AssemblyError, match=r"6 rows came and 7 .*nano_stage_sy.*slow_key"):
        list(adapted(docs, channels=ROI_CHANNELS))
    # A run that was cut off lacks its last rows.
    maps = assembled(adapted(docs[:-1], channels=ROI_CHANNELS))
    assert not np.isfinite(maps.counts.values[:, -1]).any()


@pytest.mark.parametrize("snake", [False, True])
def test_frames_of_ophyd_async_lie_where_the_events_say(tmp_path: Path, snake: bool) -> None:
    docs = ophyd_async_run(tmp_path, snake=snake, lost={17, 18})
    maps = assembled(adapted(docs, channels=ROI_CHANNELS, dwell_ms=50))
    first = 22 - 18 - 1 if snake else 17 - 11
    assert_is(maps, missing=[(1, slice(first, first + 2))])


def test_a_list_grid_scan_is_read_by_its_readings() -> None:
    docs = grid_run(from_lists=True, lost={17})
    maps = assembled(adapted(docs, dwell_ms=50))
    assert_is(maps, missing=[(1, slice(4, 5))])


def test_axes_of_srx_in_mm_are_not_taken_for_um(tmp_path: Path) -> None:
    assert_is(assembled(adapted(srx_run(tmp_path, unit="mm"), channels=ROI_CHANNELS)))


def test_a_map_that_was_flown_along_y_is_turned(tmp_path: Path) -> None:
    docs = srx_run(tmp_path, y_is_fast=True, lost={2})
    maps = assembled(adapted(docs, channels=ROI_CHANNELS))
    expected = FIELD.counts
    expected[:, :, 2] = np.nan
    np.testing.assert_allclose(maps.counts.values, expected)
    np.testing.assert_allclose(maps.grid.fast.centers_um, FIELD.x)
    assert (maps.grid.fast.name, maps.attrs["sampling"]) == ("nano_stage_sx", "area")


@pytest.mark.parametrize("pixels", [2, 4])
def test_pixels_that_are_finer_than_the_rows_are_apart_are_rows(
    tmp_path: Path, pixels: int
) -> None:
    of = Field(nx=16, ny=5, dx_um=1.0, dy_um=float(pixels))
    docs = list(adapted(srx_run(tmp_path, of=of), channels=ROI_CHANNELS))
    metadata = docs[0][1]["xrf_sr"]
    assert (metadata["sampling"], metadata["fast_pixels"]) == ("rows", pixels)
    assert (metadata["step_um"], metadata["analysis"]["factor"]) == (pixels, pixels)
    assert_is(assembled(docs), of)


def test_a_spec_that_nobody_reads_is_named_with_run_stream_and_key(tmp_path: Path) -> None:
    docs = srx_run(tmp_path, spec="XSP9_FLY")
    where = rf"run {docs[0][1]['uid']}, stream 'stream0', data key 'fluor'.*spec 'XSP9_FLY'"
    with pytest.raises(AssemblyError, match=where):
        list(adapted(docs, channels=ROI_CHANNELS))

    class Handler:
        def __init__(self, path: str) -> None:
            self._path = path

        def __call__(self) -> Any:
            import h5py

            with h5py.File(self._path) as file:
                return file["entry/instrument/detector/data"][()]

    assert_is(assembled(adapted(docs, channels=ROI_CHANNELS, handlers={"XSP9_FLY": Handler})))


def test_files_outside_of_the_allowed_folders_are_not_read(tmp_path: Path) -> None:
    docs = srx_run(tmp_path)
    assert_is(assembled(adapted(docs, channels=ROI_CHANNELS, roots=[tmp_path])))
    with pytest.raises(AssemblyError, match="only below configured folders"):
        list(adapted(docs, channels=ROI_CHANNELS, roots=[tmp_path / "other"]))
    with pytest.raises(AssemblyError, match="only below configured folders"):
        list(adapted(haven_run(tmp_path), channels=ROI_CHANNELS, roots=[tmp_path / "other"]))


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    docs = srx_run(tmp_path)
    (tmp_path / "xs2.h5").unlink()
    with pytest.raises(AssemblyError, match=r"stream 'stream0', data key 'fluor'.*xs2\.h5"):
        list(adapted(docs, channels=ROI_CHANNELS))


def test_spectra_are_not_summed_over_their_energies(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match=r"'fluor'.*\(11, 4, 96\).*name the bins"):
        list(adapted(srx_run(tmp_path), channels={"Fe": "fluor"}))
    with pytest.raises(AssemblyError, match=r"there are no bins 90:120"):
        list(adapted(srx_run(tmp_path), channels={"Fe": "fluor[90:120]"}))


def test_spectra_are_cut_at_the_lines_of_the_elements_where_the_energies_are_known(
    tmp_path: Path,
) -> None:
    pytest.importorskip("xraydb")
    # Bins of 0.21 keV: the line of Fe is in bin 30, that of Ca in 17, where nothing is.
    docs = srx_run(tmp_path)
    maps = assembled(adapted(docs, channels={"Fe": "fluor"}, energy_kev=(0.1, 0.21)))
    assert_is(maps, elements=["Fe"])
    maps = assembled(adapted(docs, channels={"Ca": "fluor"}, energy_kev=(0.1, 0.21)))
    assert (maps.counts.values == 0).all()
    with pytest.raises(AssemblyError, match=r"'fluor': the line of Fe at 6\.40\d keV is outside"):
        list(adapted(docs, channels={"Fe": "fluor"}, energy_kev=(0.0, 0.01)))


def test_rows_of_tes_are_placed_by_their_centers_in_mm() -> None:
    assert_is(assembled(adapted(tes_run(), channels=ROI_CHANNELS)))
    maps = assembled(adapted(tes_run(lost={2, 6}), channels=ROI_CHANNELS))
    assert_is(maps, missing=[(2, slice(None)), (6, slice(None))])


@pytest.mark.parametrize("encoders", [False, True])
@pytest.mark.parametrize("kind", ["2D_FLY_PANDA", "FIP_2D_FLY"])
@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("y_is_fast", [False, True])
def test_the_one_event_of_hxn_is_read_with_and_without_encoders(
    kind: str, encoders: bool, down: bool, y_is_fast: bool
) -> None:
    docs = hxn_run(kind, encoders=encoders, down=down, y_is_fast=y_is_fast)
    assert_is(assembled(adapted(docs)))


def test_a_map_of_hxn_that_was_cut_off_and_one_of_a_single_line() -> None:
    maps = assembled(adapted(hxn_run(frames=4 * 11 + 5)))
    assert_is(maps, missing=[(4, slice(5, None)), (5, slice(None)), (6, slice(None))])
    line = Field(ny=1)
    maps = assembled(adapted(hxn_run(of=line, down=True)))
    np.testing.assert_allclose(maps.counts.values, line.counts)
    np.testing.assert_allclose(maps.grid.fast.centers_um, line.x)
    np.testing.assert_allclose(maps.grid.slow.centers_um, line.y)


def test_encoders_that_count_lines_of_a_grating_place_nothing() -> None:
    docs = hxn_run()
    for name, doc in docs:
        if name == "event":
            for key in ("inenc2_val", "inenc3_val"):
                doc["data"][key] = (np.array(doc["data"][key]) * -9542).tolist()
    assert_is(assembled(adapted(docs)))


def test_readings_decide_where_the_start_document_is_wrong_and_that_is_noted() -> None:
    docs = hxn_run()
    docs[0][1]["scan"]["scan_input"][0:2] = [FIELD.x[0] + 2, FIELD.x[-1] + 2]
    maps = assembled(adapted(docs))
    assert_is(maps)
    assert any("the start document says" in note for note in maps.attrs["notes"])


@pytest.mark.parametrize("snake", [False, True])
def test_streams_of_haven_are_read_from_their_file(tmp_path: Path, snake: bool) -> None:
    pytest.importorskip("bluesky_tiled_plugins")
    maps = assembled(adapted(haven_run(tmp_path, snake=snake), channels=ROI_CHANNELS))
    assert_is(maps)
    assert any("placed by their order" in note for note in maps.attrs["notes"])


def test_frames_that_haven_does_not_refer_to_are_holes(tmp_path: Path) -> None:
    pytest.importorskip("bluesky_tiled_plugins")
    maps = assembled(adapted(haven_run(tmp_path, lost=range(2, 4)), channels=ROI_CHANNELS))
    assert_is(maps, missing=[(2, slice(None)), (3, slice(None))])


def test_several_runs_of_one_file_are_read_and_ours_pass_untouched() -> None:
    ours: list[Document] = [("start", {"uid": "ours", "time": 1.0, "xrf_sr": {"purpose": "map"}}),
                            ("stop", {"uid": "s", "run_start": "ours", "time": 2.0})]  # fmt: skip
    tune: list[Document] = [("start", {"uid": "c", "time": 1.0, "plan_name": "tune"}),
                            ("stop", {"uid": "t", "run_start": "c", "time": 2.0})]  # fmt: skip
    first, second = hxn_run(), hxn_run("FIP_2D_FLY", y_is_fast=True)
    mixed = [one for pair in zip(first, second, strict=True) for one in pair]
    found = list(adapted([*ours, *tune, *mixed]))
    assert found[:2] == ours
    half = (len(found) + 2) // 2
    for documents, run in ((found[2:half], first), (found[half:], second)):
        assert documents[0][1]["uid"] == run[0][1]["uid"]
        assert documents[-1] == run[-1]
        assert_is(assembled(documents))


def test_one_of_several_detector_elements_is_read_with_a_note() -> None:
    maps = assembled(adapted(hxn_run(), channels={"Fe": ["Det1_Fe", "Det2_Fe"]}))
    np.testing.assert_array_equal(maps.counts.values[0], 0.75 * FIELD.counts[1])
    assert any("Fe is that of Det1_Fe, Det2_Fe alone" in note for note in maps.attrs["notes"])


def test_one_that_is_refused_is_told_and_the_others_go_on() -> None:
    refused: list[str] = []
    docs = [*tes_run(), *hxn_run()]
    found = list(adapted(docs, on_refused=lambda uid, error: refused.append(uid)))
    assert refused == [docs[0][1]["uid"]]
    assert_is(assembled(found))


def test_runs_of_no_known_kind_are_refused_with_the_kinds_that_there_are() -> None:
    docs: list[Document] = [("start", {"uid": "c", "time": 1.0, "plan_name": "tune"}),
                            ("stop", {"uid": "t", "run_start": "c", "time": 2.0})]  # fmt: skip
    with pytest.raises(AssemblyError, match=r"run c: plan 'tune' .* hxn .* srx .* tes "):
        list(adapted(docs))
    with pytest.raises(ConfigError, match="no reader 'xyz' of runs; there are hxn, srx"):
        list(adapted(docs, reader="xyz"))


def test_monitors_are_no_elements() -> None:
    with pytest.raises(AssemblyError, match="'I0' is a monitor of the beam"):
        list(adapted(hxn_run(), channels={"I0": "sclr1_ch4"}))


@pytest.mark.parametrize("family", ["srx", "tes", "hxn", "haven"])
def test_a_run_without_a_stop_document_is_read_as_far_as_it_goes(
    tmp_path: Path, family: str
) -> None:
    docs = {
        "srx": lambda: srx_run(tmp_path), "tes": tes_run, "hxn": hxn_run,
        "haven": lambda: haven_run(tmp_path),
    }[family]()  # fmt: skip
    channels = None if family == "hxn" else ROI_CHANNELS
    found = list(adapted(docs[:-1], channels=channels))
    assert [name for name, _ in found].count("stop") == 0
    assert_is(assembled(found))


def test_documents_are_left_as_they_were(tmp_path: Path) -> None:
    docs = srx_run(tmp_path)
    before = copy.deepcopy(docs)
    list(adapted(docs, channels=ROI_CHANNELS))
    assert docs == before


def test_the_same_run_always_becomes_the_same_documents(tmp_path: Path) -> None:
    docs = srx_run(tmp_path)
    once, again = (list(adapted(docs, channels=ROI_CHANNELS)) for _ in range(2))
    assert re.sub(r"\bnan\b", "0", repr(once)) == re.sub(r"\bnan\b", "0", repr(again))


def moved(docs: list[Document], change: dict[str, Any]) -> list[Document]:
    """The documents with the readings of encoders changed, by data key."""
    for name, doc in docs:
        if name == "event":
            for key, made in change.items():
                doc["data"][key] = made(np.array(doc["data"][key])).tolist()
    return docs


def test_encoders_that_tremble_place_every_frame() -> None:
    rng = np.random.default_rng(5)
    tremble = {"inenc2_val": lambda x: x + rng.normal(0, 0.2, x.size),
               "inenc3_val": lambda y: y + rng.normal(0, 0.5, y.size)}  # fmt: skip
    maps = assembled(adapted(moved(hxn_run(), tremble)))
    np.testing.assert_allclose(maps.counts.values, FIELD.counts)
    np.testing.assert_allclose(maps.grid.fast.centers_um, FIELD.x, atol=0.1)


def test_encoders_that_are_read_several_times_a_frame_are_averaged() -> None:
    often = {key: lambda values: np.repeat(values, 10) for key in ("inenc2_val", "inenc3_val")}
    assert_is(assembled(adapted(moved(hxn_run(), often))))


def test_encoders_with_another_origin_tell_the_order_and_not_the_place() -> None:
    away = {key: lambda values: values + 5000 for key in ("inenc2_val", "inenc3_val")}
    maps = assembled(adapted(moved(hxn_run(), away)))
    assert_is(maps)
    assert any("another origin" in note for note in maps.attrs["notes"])


def test_half_a_step_between_start_document_and_readings_is_half_a_step_of_the_map() -> None:
    half = {"inenc2_val": lambda x: x + 0.5 * FIELD.dx_um}
    maps = assembled(adapted(moved(hxn_run(), half)))
    np.testing.assert_allclose(maps.grid.fast.centers_um, FIELD.x + 0.5 * FIELD.dx_um, atol=0.01)
    np.testing.assert_allclose(maps.counts.values, FIELD.counts)


@pytest.mark.parametrize("relative", [False, True])
def test_grid_scans_that_lack_events_or_were_cut_off_have_holes(relative: bool) -> None:
    docs = grid_run(relative=relative, lost={0, 5, *range(33, 77)})[:-1]
    holes = [(0, slice(0, 1)), (0, slice(5, 6)), *((row, slice(None)) for row in range(3, 7))]
    assert_is(assembled(adapted(docs, dwell_ms=50)), missing=holes)


@pytest.mark.parametrize("lost", [{1, 3}, {0, 3}, {3, 6}, {0, 1, 2, 3}, {1, 2, 4, 5}])
def test_rows_lie_where_their_encoder_says_whichever_others_are_lost(lost: set[int]) -> None:
    docs = tes_run(lost=lost)
    for name, doc in docs:
        if name == "descriptor":
            # Nobody says the unit.
            doc["data_keys"].pop("xy_stage_y", None)
    maps = assembled(adapted(docs, channels=ROI_CHANNELS))
    assert_is(maps, missing=[(row, slice(None)) for row in lost])


def test_a_scan_of_three_motors_is_refused_by_its_motors(tmp_path: Path) -> None:
    documents = grid_run()
    start = documents[0][1]
    start |= {"shape": [2, 7, 11], "motors": ["theta", "samy", "samx"]}
    start["extents"] = [[0.0, 90.0], *start["extents"]]
    says = r"run .*: no two-dimensional grid scan: 'grid_scan' of the motors \['theta', 'samy'"
    with pytest.raises(AssemblyError, match=says):
        list(adapted(documents))
