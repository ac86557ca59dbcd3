"""The figures of the model card: what they are made of."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from xrf_sr_plans.evaluation.model_assessment import Case, assess, best_classical, gain_db, summary
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.sr.classical import methods_for
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.training.phantoms import VALIDATION_SEED, phantom
from xrf_sr_plans.training.samples import Sample

NAMES = methods_for(Measurement(2, "area"))


@pytest.fixture(scope="module")
def rows():
    _, calibration, network = load_model(None)
    maps = phantom("cathode", VALIDATION_SEED, size=64, n_elements=3)
    samples = [Sample("one", "cathode", maps), Sample("two", "cathode", maps[:1])]
    cases = [Case.of(2, 200.0, "area"), Case.of(2, float("inf"), "area")]
    return assess(samples, cases, network, calibration)


def test_every_element_is_compared_and_some_with_all_methods(rows):
    assert len(rows) == 2 * (3 + 1)
    assert sum(set(NAMES) <= set(row.mse) for row in rows) == 2 * 2
    noisy = [row for row in rows if row.case.n99 == 200]
    assert gain_db(noisy, "bicubic").mean() > 1


def test_the_best_classical_method_is_the_best_of_all(rows):
    chosen = [row for row in rows if set(NAMES) <= set(row.mse) and row.case.n99 == 200]
    best = best_classical(chosen)
    assert all(
        gain_db(chosen, best).mean() <= gain_db(chosen, name).mean() + 1e-9 for name in NAMES
    )
    assert summary(chosen)["best_classical"] == best


def test_the_truth_explains_the_counts_and_the_split_shows_what_an_estimate_takes(rows):
    figures = summary([row for row in rows if row.case.n99 == 200])
    assert figures["chi2_of_truth"] == pytest.approx(1, abs=0.12)
    assert figures["chi2"] < figures["chi2_of_truth"]
    assert figures["chi2_split"] == pytest.approx(1, abs=0.25)
    assert summary([row for row in rows if np.isinf(row.case.n99)])["chi2"] is None


def test_edges_are_never_sharper_than_those_of_the_truth(rows):
    figures = summary(rows)
    if figures["fwhm_maps"]:
        assert figures["fwhm_ours"] >= figures["fwhm_truth"]
        assert figures["fwhm_ours"] < figures["fwhm_bicubic"]
    assert figures["ssim_ours"] > figures["ssim_bicubic"]


@pytest.mark.parametrize(("factor", "sampling"), [(1, "fly"), (2, "rows"), (4, "rows")])
def test_rows_and_the_same_grid_are_judged_in_photons_per_measured_pixel(
    factor, sampling, tmp_path
):
    from support.models import made_model

    _, calibration, network = load_model(made_model(tmp_path))
    maps = phantom("cells", VALIDATION_SEED + 500_000, size=96, n_elements=1)
    case = Case.of(factor, 200.0, sampling)
    (row,) = assess([Sample("one", "cells", maps)], [case], network, calibration, ensemble=True)
    assert set(methods_for(case.measurement)) <= set(row.mse)
    # An untrained network is the smoothed map, but for what its projection takes back.
    assert gain_db([row], "interpolated, smoothed")[0] == pytest.approx(0, abs=0.3)
    assert gain_db([row])[0] > 0.2
    # It commutes with mirroring: nothing is left for an ensemble.
    assert row.ensemble_db == pytest.approx(0, abs=0.02)
    assert 0.05 < row.chi2 < 2
    assert abs(row.total_bias) < 0.01
    figures = summary([row])
    assert figures["best_classical"] in methods_for(case.measurement)
    assert figures["ensemble_db"] == pytest.approx(row.ensemble_db)
