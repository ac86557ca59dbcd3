"""The classical peers: in phase, linear in the forward model, and as strong as they should be."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xrf_sr_plans import measurement as measurement_module
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.metrics.image import psnr_db
from xrf_sr_plans.physics.operators import measure_again
from xrf_sr_plans.physics.resample import upsample
from xrf_sr_plans.sr.classical import METHODS, upscale


def grains(size=96, seed=0):
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(2, size, size)), (0, 5, 5))
    return ndimage.gaussian_filter((field > 0) * 1.0, (0, 1.2, 1.2)) + 0.05


@pytest.fixture
def any_factor(monkeypatch):
    """The methods themselves know no smallest set of factors."""
    monkeypatch.setattr(measurement_module, "FACTORS", (1, 2, 3, 4))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "nearest"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_a_linear_ramp_stays_that_ramp(method, sampling, factor, any_factor):
    y, x = np.mgrid[: 24 * factor, : 24 * factor]
    ramp = (200 + 3.0 * x + 2.0 * y)[None]
    measurement = Measurement(factor, sampling, probe_steps=0.8, noisy=False)
    out = upscale(measure_again(ramp, measurement), measurement, method)
    inner = np.s_[:, 6 * factor : -6 * factor, 6 * factor : -6 * factor]
    # A shift of half a fine pixel would be 1.5; what is left is what the borders send inwards.
    assert np.abs(out[inner] - ramp[inner]).max() < 0.4
    assert abs((out[inner] - ramp[inner]).mean()) < 0.05


def test_without_noise_deconvolution_beats_bicubic_where_the_probe_is_known():
    truth = 1e4 * grains()
    measurement = Measurement(2, "fly", probe_steps=1.0, noisy=False)
    counts = measure_again(truth, measurement)
    bicubic = psnr_db(upscale(counts, measurement, "bicubic")[0], truth[0])
    for method in ("Richardson-Lucy + bicubic", "back-projection", "Wiener + bicubic"):
        assert psnr_db(upscale(counts, measurement, method)[0], truth[0]) > bicubic + 1


def test_with_few_counts_smoothing_beats_bicubic_and_deconvolution_does_no_harm():
    truth = 20 * grains()
    measurement = Measurement(2, "fly", probe_steps=0.5)
    counts = np.random.default_rng(1).poisson(measure_again(truth, measurement)).astype(float)
    bicubic = psnr_db(upscale(counts, measurement, "bicubic")[0], truth[0])
    gains = {
        name: psnr_db(upscale(counts, measurement, name)[0], truth[0]) - bicubic
        for name in ("bicubic + Gaussian", "Richardson-Lucy + bicubic", "NLM + bicubic")
    }
    assert gains["bicubic + Gaussian"] > 1
    assert min(gains.values()) > -0.2


def test_thinning_chooses_nearly_the_best_gaussian():
    truth = 8 * grains(128)
    measurement = Measurement(2, "area")
    counts = np.random.default_rng(2).poisson(measure_again(truth, measurement)).astype(float)
    chosen = psnr_db(upscale(counts, measurement, "bicubic + Gaussian")[0], truth[0])
    oracle = max(
        psnr_db(upsample(ndimage.gaussian_filter(counts[0], s), 2), truth[0])
        for s in (0.45, 0.55, 0.7, 0.85, 1.0, 1.25, 1.6)
    )
    assert chosen > oracle - 0.3


def test_an_empty_element_stays_empty_in_every_method():
    for method in METHODS:
        out = upscale(np.zeros((1, 16, 16)), Measurement(2), method)
        assert out.shape == (1, 32, 32)
        np.testing.assert_allclose(out, 0, atol=0.05)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match=r"'magic'.*bicubic"):
        upscale(np.zeros((1, 8, 8)), Measurement(2), "magic")
