"""A survey in rows, from the flight to the composite map: every step takes its pixels as they are.

Nothing here depends on how good the network is, only on places, units and what is recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import Recorder
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.maps.row_sums import rows_for
from xrf_sr_plans.measurement import Factor, Measurement
from xrf_sr_plans.physics.resample import block_mean
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.review.picture import draw_survey
from xrf_sr_plans.review.record import SurveyRecord, read_survey
from xrf_sr_plans.review.view import SurveyView
from xrf_sr_plans.schema import AnalysisRequest
from xrf_sr_plans.session import start_session
from xrf_sr_plans.store.pairs import PairStore

SURVEY = {
    "width_um": 24,
    "height_um": 16,
    "step_um": 2,
    "x_center_um": 0,
    "y_center_um": 0,
    "find": "Fe > p95",
    "max_regions": 2,
    "min_size_um": 6,
}
BRIGHT_MS = 4000.0
"""So long a dwell that counting noise hardly matters."""


class Flown:
    """One survey on the simulated beamline, with its documents and those of its analysis."""

    def __init__(self, beamline: dict[str, Any], **wishes: Any) -> None:
        run_engine = RunEngine({}, call_returns_result=True)
        self.raw = Recorder(run_engine)
        self.results: list[tuple[str, dict[str, Any]]] = []
        session = start_session(
            run_engine,
            make_beamline(i0_ripple=0.0, **beamline),
            settings=AnalysisSettings(threads=1),
            in_process=True,
            result_sinks=[lambda name, doc: self.results.append((name, doc))],
        )
        with session as opened:
            plan = opened.plans["coarse_survey_with_sr"](**{**SURVEY, **wishes})
            self.outcome = run_engine(plan).plan_result

    @property
    def record(self) -> SurveyRecord:
        return read_survey([*self.raw.docs, *self.results])

    def run_of(self, documents: list, uid: str) -> list:
        """Return the documents of one run."""
        streams = {d["uid"] for n, d in documents if n == "descriptor" and d["run_start"] == uid}
        return [
            (name, doc)
            for name, doc in documents
            if uid in (doc.get("uid"), doc.get("run_start")) or doc.get("descriptor") in streams
        ]


@pytest.fixture(scope="module")
def rows() -> Flown:
    """A bright survey in rows, with rescans of another dwell and a detector that is read out."""
    beamline = {"readout_ms": 100.0, "max_rate_hz": 5}
    return Flown(beamline, factor=2, dwell_ms=BRIGHT_MS, fine_dwell_ms=1000.0)


@pytest.mark.timeout(240)
def test_a_replay_of_rows_has_the_digest_of_the_live_analysis(rows: Flown):
    (tile,) = rows.outcome.tile_uids
    (analysis,) = rows.outcome.analyses
    live = rows.run_of(rows.results, analysis.result_uid)
    again = replay(rows.run_of(rows.raw.docs, tile))
    assert again.digest == digest(live)
    start = live[0][1]
    assert (start["sampling"], start["factor"]) == ("rows", 2)
    assert start["dwell_ms"] == pytest.approx(BRIGHT_MS / 2 - 100.0), "time that a pixel counted"


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("factor", "sampling"), [(1, "fly"), (4, "fly")])
def test_rows_are_analyzed_by_another_factor_as_sums_of_their_pixels(
    rows: Flown, factor: Factor, sampling: str
):
    (tile,) = rows.outcome.tile_uids
    request = AnalysisRequest(factor=factor, find="Fe > p95")
    result: list[tuple[str, dict[str, Any]]] = []

    def keep(name: str, doc: dict[str, Any]) -> None:
        result.append((name, doc))

    again = replay(rows.run_of(rows.raw.docs, tile), request=request, sinks=[keep])
    assert f"pixels of rows were summed for factor {factor}" in again.summary.reason
    enhanced = enhanced_from_documents(result)
    assert enhanced.grid.shape == (8 * factor, 12 * factor)
    assert enhanced.sampling == sampling
    assert enhanced.dataset.attrs["dwell_ms"] == pytest.approx(BRIGHT_MS - 200.0)
    (coarse,) = rows.record.coarse.values()
    sums = 2 * coarse.counts.values.mean((1, 2))
    np.testing.assert_allclose(enhanced.estimate.values.mean((1, 2)), sums, rtol=0.05)


def test_sums_of_row_pixels_keep_photons_time_places_and_gaps():
    grid = ScanGrid.from_center(
        x_center_um=0, y_center_um=0, width_um=8, height_um=4, step_um=0.5, step_y_um=2
    )
    counts = np.arange(32.0).reshape(1, 2, 16)
    counts[0, 1, 3] = np.nan
    facts = {"sampling": "rows", "step_um": 2.0, "dwell_ms": 1.0}
    maps = ElementalMaps.from_arrays(counts, grid, ["Fe"], i0=np.full((2, 16), 5.0), **facts)
    halves, squares = rows_for(maps, 2), rows_for(maps, 1)
    assert rows_for(maps, 4) is maps
    assert (halves.attrs["sampling"], halves.attrs["dwell_ms"]) == ("rows", 2.0)
    assert (squares.attrs["sampling"], squares.attrs["dwell_ms"]) == ("fly", 4.0)
    assert squares.grid.shape == (2, 4)
    assert squares.grid.extents_um == halves.grid.extents_um == grid.extents_um
    np.testing.assert_array_equal(squares.counts.values[0, 0], [6, 22, 38, 54])
    assert np.isnan(squares.counts.values[0, 1, 0])
    assert np.isnan(halves.counts.values[0, 1]).sum() == 1
    assert (squares.i0.values == 5.0).all()


def test_an_enhanced_map_of_rows_has_square_pixels_and_keeps_photons_per_measured_pixel(
    rows: Flown,
):
    (coarse,), (enhanced,) = rows.record.coarse.values(), rows.record.enhanced.values()
    assert coarse.grid.shape == (8, 24)
    assert enhanced.grid.shape == (16, 24)
    assert enhanced.grid.fast.step_um == enhanced.grid.slow.step_um == 1.0
    assert enhanced.refinement == (2, 1)
    mean = block_mean(enhanced.estimate.values, enhanced.refinement)
    np.testing.assert_allclose(mean.mean((1, 2)), coarse.counts.values.mean((1, 2)), rtol=0.05)
    (analysis,) = rows.outcome.analyses
    stored = enhanced_from_documents(rows.run_of(rows.results, analysis.result_uid))
    assert (stored.sampling, stored.fast_pixels) == ("rows", 2)


def test_rescans_without_noise_agree_with_the_scale_of_the_enhanced_map(rows: Flown):
    assert rows.outcome.rescan_uids
    agreements = rows.record.agreements()
    assert agreements
    # 1900 ms in a pixel of the survey, and 900 ms in one of the rescans; I0 has some noise.
    assert [one["scale"] for one in agreements] == pytest.approx(
        [1900 / 900] * len(agreements), 1e-3
    )
    # Photons of another unit would be off by 100 % or more, wherever the network is wrong.
    biases = np.abs([one["bias"] for one in agreements])
    assert np.median(biases) < 0.05
    assert biases.max() < 0.3


def test_the_composite_map_of_rows_is_in_one_unit_and_can_be_drawn(rows: Flown, tmp_path):
    record = rows.record
    composite = record.composite()
    (enhanced,) = record.enhanced.values()
    assert composite.grid.shape == enhanced.grid.shape
    measured = composite.measured.values
    assert 0 < measured.mean() < 1
    ratio = composite.value.values[measured].sum() / enhanced.estimate.values[measured].sum()
    assert ratio == pytest.approx(1, abs=0.05)
    assert composite.dataset.attrs["sampling"] == "rows"
    coarse = list(record.coarse.values())
    view = SurveyView(coarse, [enhanced], rows.outcome.analyses[0].regions, composite=composite)
    assert draw_survey(view, tmp_path / "rows.png").stat().st_size > 10_000


@pytest.mark.timeout(240)
def test_tiles_of_rows_are_chosen_from_as_one_map():
    flown = Flown({}, factor=4, step_um=4, dwell_ms=40, tile_um=12, rescan="propose")
    assert len(flown.outcome.tile_uids) == 4
    record = flown.record
    assert {maps.grid.shape for maps in record.coarse.values()} == {(2, 12), (2, 12)}
    assert {maps.grid.shape for maps in record.enhanced.values()} == {(8, 12)}
    choice = [doc for name, doc in flown.results if doc.get("plan_name") == "xrf_survey_choice"]
    grid = ScanGrid.from_dict(choice[0]["grid"])
    assert grid.shape == (16, 24)
    assert grid.extents_um == [[-8.0, 8.0], [-12.0, 12.0]]


def test_queries_count_photons_per_coarse_pixel_of_rows_and_squares_alike():
    grid = ScanGrid.from_center(x_center_um=0, y_center_um=0, width_um=8, height_um=8, step_um=1)
    planes = dict.fromkeys(
        ("estimate", "sigma", "lower", "upper", "baseline"), np.full((1, 8, 8), 5.0)
    )
    trusted = np.ones((1, 8, 8), dtype=bool)
    facts = {"factor": 4, "dwell_ms": 2.0, "model": {}}
    rows = EnhancedMaps.from_arrays(
        grid, ["Fe"], **planes, trusted=trusted, sampling="rows", **facts
    )
    per_step = rows.per_coarse_pixel()
    assert (per_step.estimate.values == 20.0).all()
    assert per_step.dataset.attrs["dwell_ms"] == 8.0
    assert per_step.per_coarse_pixel() is per_step


@pytest.mark.parametrize("factor", [2, 4])
def test_a_pair_with_rows_is_recorded_and_registered(tmp_path, factor):
    run_engine = RunEngine({}, call_returns_result=True)
    beamline = make_beamline(i0_ripple=0.0, encoder_noise_um=0.0, backlash_um=0.0)
    settings = AnalysisSettings(threads=1, pair_dir=str(tmp_path))
    with start_session(run_engine, beamline, settings=settings, in_process=True) as session:
        plan = session.plans["acquire_pair"](
            width_um=24, height_um=24, fine_step_um=0.5, dwell_ms=200, factors=[factor]
        )
        run_engine(plan)
    (pair,) = PairStore(tmp_path).pairs()
    coarse, again = pair.coarse
    assert again.position == 2
    assert coarse.maps.grid.shape == (48 // factor, 48)
    assert coarse.maps.attrs["sampling"] == "rows"
    assert coarse.maps.attrs["dwell_ms"] == 200 / factor
    found = register(coarse.maps, pair.fine.maps)
    assert found.factor == factor == Measurement(factor, "rows").refinement[0]
    assert abs(found.dx_um) < 0.1
    assert abs(found.dy_um) < 0.1 * factor
    assert pair.registration[coarse.position].factor == factor
