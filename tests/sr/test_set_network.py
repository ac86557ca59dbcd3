"""What the default network promises whatever its weights are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xrf_sr_plans.measurement import Measurement  # noqa: E402
from xrf_sr_plans.physics.resample import upsample  # noqa: E402
from xrf_sr_plans.sr.network import (  # noqa: E402
    Conditions,
    SetNetwork,
    SetNetworkConfig,
    conditions_of,
    upsample_tensor,
)
from xrf_sr_plans.sr.scale import Scale  # noqa: E402
from xrf_sr_plans.sr.tiled_inference import run_tiled  # noqa: E402

torch.set_num_threads(1)


def small_network(*, trained: bool = True) -> SetNetwork:
    torch.manual_seed(0)
    network = SetNetwork(SetNetworkConfig(filters=8, blocks=5, mix_before=(0, 2, 4)))
    if trained:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def conditions_for(counts: np.ndarray) -> Conditions:
    scale = Scale.of(counts)
    return conditions_of(scale.low[None], scale.span[None], [Measurement(2, "fly", 0.5)])


def predict(network: SetNetwork, counts: np.ndarray, factor: int) -> np.ndarray:
    with torch.inference_mode():
        tensor = torch.tensor(counts, dtype=torch.float32)[None]
        return network(tensor, conditions_for(counts), factor).estimate[0].numpy()


def noisy_maps(n_elements: int = 4, shape: tuple[int, int] = (18, 22)) -> np.ndarray:
    rng = np.random.default_rng(1)
    return rng.poisson(40 * rng.random((n_elements, 1, 1)), (n_elements, *shape)).astype(float)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_order_of_elements_does_not_matter(factor):
    counts, order = noisy_maps(), [2, 0, 3, 1]
    network = small_network()
    straight = predict(network, counts, factor)
    turned = predict(network, counts[order], factor)
    np.testing.assert_allclose(turned, straight[order], rtol=1e-4, atol=1e-3)


def test_an_element_is_seen_differently_beside_others():
    counts = noisy_maps()
    network = small_network()
    assert not np.allclose(predict(network, counts, 2)[:1], predict(network, counts[:1], 2))


@pytest.mark.parametrize("factor", [2, 4])
def test_without_weights_it_is_phase_correct_bicubic(factor):
    counts = noisy_maps()
    made = predict(small_network(trained=False), counts, factor)
    # (Bicubic undershoots below zero counts, which stabilised counts can't follow.)
    expected = np.clip(upsample(counts, factor), 0, None)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
def test_without_weights_a_ramp_stays_the_same_ramp(factor):
    ramp = 50 + 3.0 * np.arange(20)
    counts = np.broadcast_to(ramp, (1, 16, 20)).copy()
    made = predict(small_network(trained=False), counts, factor)
    fine = 50 + 3.0 * ((np.arange(20 * factor) + 0.5) / factor - 0.5)
    inner = slice(2 * factor, -2 * factor)
    np.testing.assert_allclose(made[0, 5, inner], fine[inner], rtol=1e-5)


def test_the_torch_and_numpy_upsampling_are_one():
    counts = noisy_maps()
    tensor = upsample_tensor(torch.tensor(counts, dtype=torch.float32), 4)
    np.testing.assert_allclose(tensor.numpy(), upsample(counts, 4), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
def test_tiles_leave_no_seams(factor, monkeypatch):
    from xrf_sr_plans.sr import tiled_inference as tiles

    monkeypatch.setattr(tiles, "has_fast_bf16", lambda device: False)
    counts, network = noisy_maps(2, (45, 52)), small_network()
    known, cpu = conditions_for(counts), torch.device("cpu")
    whole = run_tiled(network, counts, known, factor, cpu, tile=64)
    tiled = run_tiled(network, counts, known, factor, cpu, tile=16)
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_sigma_sees_as_far_as_the_network_says_and_the_estimate_less_far():
    network, counts = small_network(), noisy_maps(1, (1, 64))
    other = counts.copy()
    other[..., 32] += 40
    made = []
    with torch.inference_mode():
        for maps in (counts, other):
            tensor = torch.tensor(maps, dtype=torch.float32)[None]
            made.append(network(tensor, conditions_for(counts), 2))
    changed = [
        np.flatnonzero((one != two).numpy().any(axis=(0, 1, 2))) // 2
        for one, two in ((made[0].stabilised, made[1].stabilised), (made[0].sigma, made[1].sigma))
    ]
    reaches = [int(np.abs(columns - 32).max()) for columns in changed]
    assert reaches[0] < reaches[1] <= network.reach


def test_tiles_in_bfloat16_leave_no_seams_above_its_rounding(monkeypatch):
    from xrf_sr_plans.sr import tiled_inference as tiles

    counts, network = noisy_maps(2, (45, 52)), small_network()
    known, cpu = conditions_for(counts), torch.device("cpu")
    monkeypatch.setattr(tiles, "has_fast_bf16", lambda device: False)
    exact = run_tiled(network, counts, known, 2, cpu, tile=64)[0]
    monkeypatch.setattr(tiles, "has_fast_bf16", lambda device: True)
    tiled = run_tiled(network, counts, known, 2, cpu, tile=16)[0]
    assert np.abs(tiled - exact).max() < 0.03 * float(known.span.max())


def test_bfloat16_changes_no_more_across_seams_than_elsewhere(monkeypatch):
    from xrf_sr_plans.sr import tiled_inference as tiles

    counts, network = noisy_maps(2, (48, 64)), small_network()
    known, cpu = conditions_for(counts), torch.device("cpu")
    monkeypatch.setattr(tiles, "has_fast_bf16", lambda device: False)
    exact = run_tiled(network, counts, known, 2, cpu, tile=64)[0]
    monkeypatch.setattr(tiles, "has_fast_bf16", lambda device: True)
    error = run_tiled(network, counts, known, 2, cpu, tile=16)[0] - exact
    steps = np.abs(np.diff(error, axis=-1)).mean(axis=(0, 1))
    seams = np.arange(31, 127, 32)
    assert steps[seams].mean() < 1.3 * np.delete(steps, seams).mean()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no more"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_is_met_with_smaller_tiles(error, monkeypatch):
    counts, network = noisy_maps(1, (40, 40)), small_network()
    known, cpu = conditions_for(counts), torch.device("cpu")
    expected = run_tiled(network, counts, known, 2, cpu)[0]
    call = SetNetwork.forward

    def needy(self, counts, *args):
        if counts.shape[-1] > 39:
            raise error
        return call(self, counts, *args)

    monkeypatch.setattr(SetNetwork, "forward", needy)
    made = run_tiled(network, counts, known, 2, cpu)[0]
    np.testing.assert_allclose(made, expected, rtol=1e-2, atol=0.2)


def test_memory_that_never_suffices_is_an_analysis_error(monkeypatch):
    from xrf_sr_plans.errors import AnalysisError

    def needy(self, *args):
        raise torch.OutOfMemoryError("no more")

    monkeypatch.setattr(SetNetwork, "forward", needy)
    counts = noisy_maps(1)
    with pytest.raises(AnalysisError, match="out of memory"):
        run_tiled(small_network(), counts, conditions_for(counts), 2, torch.device("cpu"))
