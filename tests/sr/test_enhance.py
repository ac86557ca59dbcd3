"""What a user relies on when calling `enhance` with the model that ships."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

import xrf_sr_plans  # noqa: E402
from xrf_sr_plans.errors import ConfigError, GridError, ModelError  # noqa: E402
from xrf_sr_plans.maps.elemental import ElementalMaps  # noqa: E402
from xrf_sr_plans.maps.grid import ScanGrid  # noqa: E402
from xrf_sr_plans.sr.predict import enhance_maps, model_identity  # noqa: E402

torch.set_num_threads(1)
NAMES = ["Fe", "Zn", "Ca"]


def sample(size: int = 64) -> np.ndarray:
    """Three elements with edges between them: (element, y, x), 0..1."""
    y, x = np.mgrid[:size, :size] / size
    disc = (np.hypot(y - 0.5, x - 0.45) < 0.3).astype(float)
    stripe = (np.abs(x - 0.3 - 0.3 * y) < 0.06).astype(float)
    return np.stack([disc + 0.1, stripe + 0.05, 0.5 * disc + 0.5 * stripe + 0.02])


def measured(peak: float = 200, factor: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    truth = peak * sample()
    side = truth.shape[1] // factor
    expected = truth.reshape(3, side, factor, side, factor).mean((2, 4))
    return np.random.default_rng(seed).poisson(expected).astype(float), truth


def enhanced(counts: np.ndarray, factor: int = 2, **changes):
    known = {"elements": NAMES, "factor": factor, "step_um": 1.0, "sampling": "area"} | changes
    return xrf_sr_plans.enhance(counts, **known, device="cpu")


def test_an_array_of_rates_needs_the_dwell_and_one_of_concentrations_is_refused():
    counts, _ = measured()
    dims = ("element", "y", "x")
    rates = xr.DataArray(counts / 0.01, dims=dims, attrs={"units": "counts/s"})
    with pytest.raises(ConfigError, match="unit 'counts/s': give dwell_ms"):
        enhanced(rates)
    made = enhanced(rates, dwell_ms=10)
    np.testing.assert_allclose(made.estimate.values, enhanced(counts).estimate.values, rtol=1e-4)
    with pytest.raises(ConfigError, match="unit 'ug/cm2': photons are needed"):
        enhanced(rates.assign_attrs(units="ug/cm2"), dwell_ms=10)


def test_two_maps_of_one_name_are_refused():
    with pytest.raises(GridError, match="'Fe' is named more than once"):
        enhanced(measured()[0], elements=["Fe", "Zn", "Fe"])


@pytest.mark.parametrize("factor", [2, 4])
def test_it_is_closer_to_the_truth_than_bicubic(factor):
    counts, truth = measured(100, factor)
    made = enhanced(counts, factor)
    ours = np.square(made.estimate.values - truth).mean()
    bicubic = np.square(made.baseline.values - truth).mean()
    assert ours < 0.85 * bicubic


def test_ninety_percent_intervals_hold_most_of_the_truth():
    counts, truth = measured(50)
    made = enhanced(counts)
    inside = (made.lower.values <= truth) & (truth <= made.upper.values)
    assert inside.mean() > 0.8
    assert (made.lower.values <= made.estimate.values).all()
    assert (made.estimate.values <= made.upper.values).all()
    assert (made.sigma.values > 0).all()


@pytest.mark.parametrize("peak", [5, 50, 2000])
def test_the_total_of_each_element_is_what_was_counted(peak):
    counts, _ = measured(peak)
    total = enhanced(counts).estimate.values.mean((1, 2))
    np.testing.assert_allclose(total, counts.mean((1, 2)), rtol=0.005)


def test_the_measured_counts_are_within_their_noise_of_the_estimate():
    counts, _ = measured(100)
    made = enhanced(counts).estimate.values.reshape(3, 32, 2, 32, 2).mean((2, 4))
    chi2 = np.square(counts - made).mean() / counts.mean()
    assert 0.2 < chi2 < 1.5


def test_more_counts_than_the_model_has_seen_change_nothing_but_the_scale():
    truth = sample()
    counts = truth.reshape(3, 32, 2, 32, 2).mean((2, 4))
    bright, brighter = enhanced(2e6 * counts), enhanced(2e8 * counts)
    np.testing.assert_allclose(
        bright.estimate.values / 2e6, brighter.estimate.values / 2e8, rtol=1e-3, atol=1e-3
    )
    ours = np.square(bright.estimate.values / 2e6 - truth).mean()
    assert ours < np.square(bright.baseline.values / 2e6 - truth).mean()


def test_the_fine_pixels_lie_where_the_grid_says():
    counts = xr.DataArray(
        measured()[0],
        dims=("element", "y", "x"),
        coords={"y": 100 + 2.0 * np.arange(32), "x": -7 + 2.0 * np.arange(32)},
    )
    made = enhanced(counts, step_um=2.0)
    np.testing.assert_allclose(made.estimate.x.values[:2], [-7.5, -6.5])
    np.testing.assert_allclose(made.estimate.y.values[:2], [99.5, 100.5])


def test_a_smooth_ramp_is_not_shifted():
    ramp = np.broadcast_to(200 + 20.0 * np.arange(32), (1, 32, 32)).copy()
    made = enhanced(ramp, elements=["Fe"]).estimate.values[0, 20:44, 8:-8].mean(0)
    fine = 200 + 20.0 * ((np.arange(64) + 0.5) / 2 - 0.5)
    # 20 counts are one coarse step: not off by a tenth of one on average.
    assert abs((made - fine[8:-8]).mean()) < 2


def test_what_was_not_measured_is_nan_and_never_zero():
    counts, _ = measured()
    counts[:, 10:12] = np.nan
    counts[1, 20, 20] = np.nan
    made = enhanced(counts)
    missing = np.isnan(made.estimate.values)
    assert missing[:, 20:24].all()
    assert missing[1, 40:42, 40:42].all()
    assert not missing[0, 40:42, 40:42].any()
    assert missing.sum() == 3 * 4 * 64 + 4
    assert not made.trusted.values[missing].any()


def test_a_failed_fit_of_1e308_is_not_a_count():
    counts, _ = measured()
    counts[0, 3, 3] = 1.8e308
    made = enhanced(counts)
    assert np.isnan(made.estimate.values[0, 6:8, 6:8]).all()
    assert np.nanmax(made.estimate.values) < 1000


def test_an_empty_element_stays_empty_and_is_not_trusted():
    counts, _ = measured()
    counts[1] = 0
    made = enhanced(counts)
    assert made.estimate.values[1].max() < 0.5
    assert not made.trusted.values[1].any()
    assert any("Zn" in note for note in made.dataset.attrs["notes"])


def test_the_same_input_gives_the_same_bits():
    counts, _ = measured()
    first, second = enhanced(counts), enhanced(counts.copy())
    for name in first.dataset.data_vars:
        np.testing.assert_array_equal(first.dataset[name].values, second.dataset[name].values)


def test_elements_in_threads_give_the_same_bits(monkeypatch):
    # (The network itself may add up in another order with another number of threads.)
    counts, _ = measured()
    first = enhanced(counts)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    second = enhanced(counts)
    for name in first.dataset.data_vars:
        np.testing.assert_array_equal(first.dataset[name].values, second.dataset[name].values)
    assert first.dataset.attrs["notes"] == second.dataset.attrs["notes"]


def test_the_order_of_elements_only_reorders_the_result():
    counts, _ = measured()
    order = [2, 0, 1]
    straight = enhanced(counts).estimate.values
    turned = enhanced(counts[order], elements=[NAMES[k] for k in order]).estimate.values
    np.testing.assert_allclose(turned, straight[order], rtol=0.02, atol=0.5)


def test_beam_intensity_is_taken_out():
    counts, _ = measured(2000)
    beam = np.where(np.arange(32) < 24, 1.0, 0.8)[None, :] * np.ones((32, 1))
    made = enhanced(counts * beam, i0=1e6 * beam)
    np.testing.assert_allclose(made.estimate.values, enhanced(counts).estimate.values)


def test_a_beam_dump_is_a_gap_in_the_map_and_not_a_dark_spot():
    counts, _ = measured(2000)
    beam = np.ones((32, 32))
    beam[5, 5:9] = 0.0
    made = enhanced(counts * beam, i0=beam)
    assert np.isnan(made.estimate.values[:, 10:12, 10:18]).all()
    assert np.isnan(made.estimate.values).sum() == 3 * 2 * 8


def test_a_probe_beyond_what_was_calibrated_falls_back_and_says_so():
    counts, _ = measured()
    made = enhanced(counts, probe_fwhm_um=3.0)
    assert not made.trusted.values.any()
    np.testing.assert_array_equal(made.estimate.values, made.baseline.values)
    assert any("bicubic" in note for note in made.dataset.attrs["notes"])


def test_maps_keep_their_place_and_their_source():
    counts, _ = measured()
    grid = ScanGrid.from_center(
        x_center_um=5, y_center_um=-3, width_um=64, height_um=64, step_um=2.0
    )
    maps = ElementalMaps.from_arrays(
        counts, grid, NAMES, source_uid="abc", step_um=2.0, probe_fwhm_um=1.0, sampling="fly"
    )
    made = enhance_maps(maps, 2, device="cpu")
    assert made.grid == grid.refined(2)
    assert made.dataset.attrs["source_uid"] == "abc"
    assert made.model == model_identity(None, 2)
    assert made.fallback == ""


def test_a_map_of_one_pixel_is_possible():
    made = enhanced(np.full((3, 1, 1), 7.0))
    assert made.estimate.shape == (3, 2, 2)
    assert np.isfinite(made.estimate.values).all()


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"factor": 3}, ConfigError, "factor is 3; it should be 1, 2 or 4"),
        ({"factor": 1, "model": "set-small"}, ModelError, "'set-small' can't enhance by 1"),
        ({"sampling": "spiral"}, ConfigError, "sampling is 'spiral'"),
        ({"elements": ["Fe"]}, GridError, "counts have the shape"),
        ({"probe_fwhm_um": -1.0}, ConfigError, "probe FWHM is -1.0 coarse steps"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, kind, says):
    with pytest.raises(kind, match=says):
        enhanced(measured()[0], **changes)


def test_counts_of_two_dimensions_are_refused():
    with pytest.raises(GridError, match="element, y, x"):
        enhanced(np.ones((8, 8)))


def test_results_larger_than_the_memory_are_refused_before_anything_is_computed(monkeypatch):
    counts, _ = measured()
    monkeypatch.setattr("xrf_sr_plans.sr.prepare.memory_bytes", lambda: 30_000)
    with pytest.raises(GridError, match=r"3 x 32 x 32 counts 2 times as fine need 0\.0 GiB"):
        xrf_sr_plans.enhance(counts, elements=NAMES, factor=2, step_um=1.0)
    monkeypatch.setattr("xrf_sr_plans.sr.prepare.memory_bytes", lambda: None)
    assert xrf_sr_plans.enhance(counts, elements=NAMES, factor=2, step_um=1.0).trusted.any()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "abacus"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ConfigError, match=device):
        xrf_sr_plans.enhance(measured()[0], elements=NAMES, factor=2, step_um=1.0, device=device)


def test_an_unknown_model_is_refused_by_name():
    with pytest.raises(ModelError, match="shipped models"):
        enhanced(measured()[0], model="best-ever")


@pytest.mark.parametrize(
    "reading", [np.zeros((8, 10)), np.full((8, 10), -3.0), np.full((8, 10), np.nan)]
)
def test_a_monitor_that_says_nothing_takes_no_pixel_away_and_is_named(reading: np.ndarray) -> None:
    counts = np.random.default_rng(0).poisson(20, (2, 8, 10)).astype(float)
    wishes = {"elements": ["Fe", "Zn"], "factor": 2, "step_um": 1.0, "device": "cpu"}
    silent = xrf_sr_plans.enhance(counts, i0=reading, **wishes)
    without = xrf_sr_plans.enhance(counts, **wishes)
    np.testing.assert_array_equal(silent.dataset["estimate"], without.dataset["estimate"])
    named = "I0 says nothing" in "; ".join(silent.dataset.attrs["notes"])
    assert named == bool(np.isfinite(reading).any())
