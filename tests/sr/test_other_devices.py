"""By how much a map may differ that another machine enhanced: bounds in sigma.

The same device with the same number of threads gives the same bits. Another number of threads, a
torch without fused operators and the way that GPUs compute differ in how sums are rounded in single
precision. A device with bfloat16, as most GPUs and some CPUs, differs by the rounding of that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("torch")

import torch

from xrf_sr_plans.maps.elemental import EnhancedMaps
from xrf_sr_plans.sr import fused_convolution, tiled_inference
from xrf_sr_plans.sr.predict import enhance

ROUNDING = {"estimate": 1e-3, "sigma": 1e-3, "interval": 1e-3, "trusted": 1e-3}
"""Single precision: largest difference anywhere, in sigma; of trust, the share of pixels."""
BFLOAT16 = {"estimate": 0.15, "sigma": 0.15, "interval": 0.3, "trusted": 0.01}
"""bfloat16: the same, for all but one pixel in a thousand."""


@pytest.fixture(scope="module", params=[2, 4])
def factor(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def counts() -> np.ndarray:
    """Bright, weak and very weak structures (element, y, x)."""
    random = np.random.default_rng(0)
    made = ndimage.gaussian_filter(random.gamma(0.3, 1.0, (3, 48, 48)), (0, 1.5, 1.5))
    brightest = np.array([400.0, 60.0, 8.0])[:, None, None]
    return random.poisson(made / made.max((1, 2), keepdims=True) * brightest + 0.2).astype(float)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def usual(counts: np.ndarray, factor: int) -> EnhancedMaps:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiled_inference, "has_fast_bf16", lambda device: False)
        return enhanced(counts, factor, "cpu")


def enhanced(counts: np.ndarray, factor: int, device: str) -> EnhancedMaps:
    return enhance(
        counts,
        elements=["Fe", "Zn", "K"],
        factor=factor,
        step_um=1.0,
        probe_fwhm_um=0.7,
        deblur=False,
        device=device,
    )


def differences(one: EnhancedMaps, other: EnhancedMaps, largest: Callable) -> dict[str, float]:
    sigma = one.sigma.values
    ends = (np.abs(getattr(other, end) - getattr(one, end)).values for end in ("lower", "upper"))
    return {
        "estimate": largest(np.abs(other.estimate.values - one.estimate.values) / sigma),
        "sigma": largest(np.abs(other.sigma.values / sigma - 1)),
        "interval": largest(np.maximum(*ends) / sigma),
        "trusted": float((one.trusted.values != other.trusted.values).mean()),
    }


def assert_within(found: dict[str, float], bounds: dict[str, float]) -> None:
    assert {name: value for name, value in found.items() if value > bounds[name]} == {}


@pytest.mark.parametrize("variant", ["threads", "no fused operators", "all elements at once"])
def test_another_order_of_sums_changes_less_than_a_thousandth_of_sigma(
    counts: np.ndarray,
    factor: int,
    usual: EnhancedMaps,
    variant: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiled_inference, "has_fast_bf16", lambda device: False)
    if variant == "no fused operators":
        two_steps = classmethod(lambda cls, dtype: cls(None))
        monkeypatch.setattr(fused_convolution.Fused, "of", two_steps)
    elif variant == "all elements at once":
        # As GPUs do it: no network is taken for one that is run element by element.
        monkeypatch.setattr(tiled_inference, "FoldedNetwork", ())
    else:
        torch.set_num_threads(2)
    try:
        other = enhanced(counts, factor, "cpu")
    finally:
        torch.set_num_threads(1)
    assert_within(differences(usual, other, np.max), ROUNDING)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_device_with_bfloat16_changes_less_than_a_third_of_sigma(
    counts: np.ndarray,
    factor: int,
    usual: EnhancedMaps,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")
    monkeypatch.setattr(tiled_inference, "has_fast_bf16", lambda device: True)
    if device == "cpu":
        monkeypatch.setattr(tiled_inference, "FoldedNetwork", ())
    other = enhanced(counts, factor, device)
    found = differences(usual, other, lambda values: float(np.quantile(values, 0.999)))
    assert_within(found, BFLOAT16)
    assert np.abs(other.estimate.values - usual.estimate.values).max() > 0
