"""The microscope counts what the forward model expects, and only that."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from support.sim_support import fly, grid_of
from xrf_sr_plans.devices.sim import Microscope, make_beamline
from xrf_sr_plans.devices.sim.sample import Sample, cells, zagami
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import FACTORS, Factor, Measurement, Sampling
from xrf_sr_plans.physics import forward


def flat(rate_cps: float, shape: tuple[int, int] = (20, 40), elements: int = 1) -> Sample:
    rates = np.full((elements, *shape), rate_cps)
    names = tuple(f"E{k}" for k in range(elements))
    return Sample(rates, names, 0.5, -shape[1] / 4, -shape[0] / 4, "flat")


def paths(nx: int, step: float, low: float) -> tuple[np.ndarray, np.ndarray]:
    edges = low + step * np.arange(nx + 1)
    return edges[:-1], edges[1:]


@pytest.mark.parametrize("sampling", ["fly", "rows"])
@pytest.mark.parametrize("factor", FACTORS)
def test_a_noise_free_row_is_what_the_training_degradation_makes_of_the_sample(
    factor: Factor, sampling: Sampling
) -> None:
    sample = cells(shape=(48, 60), pixel_um=0.25)
    microscope = Microscope(sample, probe_fwhm_um=0.6)
    expected = forward.coarsen(microscope.blurred_rates_cps(), factor, sampling)
    step = factor * sample.pixel_um
    pixel_um = step / Measurement(factor, sampling).fast_pixels
    start, stop = paths(expected.shape[-1], pixel_um, sample.x_low_um)
    for row in (2, 5, 7):
        height = sample.y_low_um + (row + 0.5) * step
        rates = microscope.rates_cps(start, stop, height)
        np.testing.assert_allclose(rates, expected[:, row], rtol=1e-9, atol=1e-6)


def test_a_path_that_straddles_two_pixels_averages_them_by_length() -> None:
    sample = Sample(np.array([[[0.0, 100.0, 0.0, 0.0]]] * 1), ("Fe",), 1.0, 0.0, 0.0)
    microscope = Microscope(sample, probe_fwhm_um=None)
    rates = microscope.rates_cps(np.array([0.25]), np.array([1.25]), 0.5)
    assert rates[0, 0] == pytest.approx(25.0)


def test_the_probe_blurs_once_an_edge_has_the_width_of_the_probe() -> None:
    sample = Sample(
        np.repeat((np.arange(400) >= 200) * 1.0, 3).reshape(1, 400, 3), ("Fe",), 0.1, 0, 0
    )
    sample = Sample(np.ascontiguousarray(sample.rates_cps.transpose(0, 2, 1)), ("Fe",), 0.1, 0, 0)
    sample = Sample(np.repeat(sample.rates_cps, 60, axis=1), ("Fe",), 0.1, 0, 0)
    microscope = Microscope(sample, probe_fwhm_um=2.0)
    x = 0.05 + 0.1 * np.arange(400)
    edge = microscope.rates_cps(x, x, 9.0)[0]
    line = np.gradient(edge, x)[100:300]
    middle = np.average(x[100:300], weights=line)
    sigma = np.sqrt(np.average((x[100:300] - middle) ** 2, weights=line))
    assert middle == pytest.approx(20.0, abs=0.05)
    assert sigma * forward.FWHM_PER_SIGMA == pytest.approx(2.0, rel=0.02)


def test_mean_counts_agree_with_the_model_within_their_counting_error() -> None:
    sample = cells(shape=(40, 40), pixel_um=0.5)
    start, stop = paths(20, 1.0, -10.0)
    dwell = 0.01
    counts = []
    for seed in range(200):
        microscope = Microscope(sample, i0_ripple=0.0, seed=seed)
        exposure = microscope.ideal_exposure(start, stop, 0.5, dwell, ("row", 1))
        counts.append(microscope.expose(exposure).counts)
    rates = microscope.rates_cps(start, stop, 0.5)
    live = dwell * forward.live_fraction(rates.sum(0), microscope.detector)
    expected = rates * live
    z = (np.mean(counts, 0) - expected) / np.sqrt(np.maximum(expected, 1e-3) / len(counts))
    assert np.abs(z).max() < 4.5
    assert 0.7 < np.std(z) < 1.3
    # Poisson: the variance is the mean.
    bright = expected > 20
    assert np.mean(np.var(counts, 0)[bright] / expected[bright]) == pytest.approx(1.0, abs=0.1)


def test_dead_time_takes_its_share_of_live_time_and_counts() -> None:
    detector = forward.Detector(n_elements=2, dead_time_us=2.0)
    microscope = Microscope(flat(4e5), detector=detector, i0_ripple=0.0, probe_fwhm_um=None)
    start, stop = paths(10, 0.5, -2.5)
    readout = microscope.expose(microscope.ideal_exposure(start, stop, 0.0, 0.1, ("k",)))
    live = 1 / (1 + 2e5 * 2e-6)
    np.testing.assert_allclose(readout.live_time_s, 0.1 * live)
    assert readout.counts.mean() == pytest.approx(4e5 * 0.1 * live, rel=0.005)


def test_a_saturated_detector_returns_neither_counts_nor_live_time() -> None:
    detector = forward.Detector(saturation_cps=1e5)
    microscope = Microscope(flat(1e6), detector=detector)
    start, stop = paths(4, 0.5, -1.0)
    readout = microscope.expose(microscope.ideal_exposure(start, stop, 0.0, 0.01, ("k",)))
    assert readout.counts.sum() == 0
    assert readout.live_time_s.sum() == 0


def test_beam_fluctuation_shows_alike_in_counts_and_monitor() -> None:
    microscope = Microscope(flat(1e6), i0_ripple=0.1, probe_fwhm_um=None)
    start, stop = paths(400, 0.01, -2.0)
    readout = microscope.expose(microscope.ideal_exposure(start, stop, 0.0, 0.1, ("k",)))
    assert np.std(readout.i0) / np.mean(readout.i0) == pytest.approx(0.1, rel=0.3)
    assert np.corrcoef(readout.i0, readout.counts[0])[0, 1] > 0.99


def test_beyond_the_sample_there_is_nothing() -> None:
    microscope = Microscope(flat(1e6), probe_fwhm_um=0.5)
    start, stop = paths(4, 1.0, 30.0)
    assert microscope.rates_cps(start, stop, 0.0).sum() == 0
    assert microscope.rates_cps(start - 30, stop - 30, 50.0).sum() == 0


def test_a_measured_probe_replaces_the_gaussian() -> None:
    psf = np.zeros((1, 5))
    psf[0, 4] = 1.0
    sample = zagami()
    blurred = Microscope(sample, psf=psf).blurred_rates_cps()
    np.testing.assert_allclose(blurred[:, :, 4:-4], np.roll(sample.rates_cps, 2, -1)[:, :, 4:-4])


def test_the_measured_map_gives_200_photons_at_p99_in_10_ms() -> None:
    sample = zagami()
    assert np.percentile(sample.rates_cps * 0.01, 99) == pytest.approx(200)
    assert sample.elements == ("Si", "Mg", "K", "Fe", "Ca")
    assert sample.box_um == ((-60.0, 60.0), (-20.0, 20.0))


def test_a_closed_shutter_means_zero_counts_and_zero_i0() -> None:
    beamline = make_beamline()
    beamline.shutter.set("close")
    row = fly(beamline.flyer, grid_of(ny=1)).rows()[0]
    assert np.sum(row["counts"]) == 0
    assert np.sum(row["i0"]) == 0
    beamline.shutter.set("open")
    assert np.sum(fly(beamline.flyer, grid_of(ny=1)).rows()[0]["counts"]) > 0


def test_a_sample_with_as_many_names_as_maps_only() -> None:
    with pytest.raises(ConfigError, match="2 elements"):
        Sample(np.zeros((1, 2, 2)), ("Fe", "Zn"), 1.0, 0, 0)
    with pytest.raises(ConfigError, match="'Fe' is named more than once"):
        Sample(np.zeros((2, 2, 2)), ("Fe", "Fe"), 1.0, 0, 0)


def test_the_shipped_map_carries_its_source_and_licence_and_is_small() -> None:
    folder = files("xrf_sr_plans.data")
    with folder.joinpath("zagami_crop.npz").open("rb") as file:
        data = dict(np.load(file, allow_pickle=False))
    assert str(data["license"]) == "Apache-2.0"
    assert "pixlise/core" in str(data["source"])
    assert data["maps"].shape == (5, 80, 240)
    readme = folder.joinpath("README.md").read_text(encoding="utf-8")
    assert "Apache-2.0" in readme
    assert "0.5 µm" in readme
