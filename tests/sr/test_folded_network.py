"""The folded network: what it starts as, mirrored maps, tiles, elements one by one."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xrf_sr_plans.measurement import READINGS, Measurement  # noqa: E402
from xrf_sr_plans.physics.counting import stabilise  # noqa: E402
from xrf_sr_plans.physics.smoothing import chosen_widths, smoothed  # noqa: E402
from xrf_sr_plans.sr.cpu_inference import Elementwise  # noqa: E402
from xrf_sr_plans.sr.flips import FlipConv, folded, joined, versions  # noqa: E402
from xrf_sr_plans.sr.folded_network import (  # noqa: E402
    FoldedNetwork,
    FoldedNetworkConfig,
)
from xrf_sr_plans.sr.kriging import KRIGED, kriging, kriging_choice  # noqa: E402
from xrf_sr_plans.sr.network import conditions_of  # noqa: E402
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel  # noqa: E402
from xrf_sr_plans.sr.tiled_inference import run_tiled  # noqa: E402

N_ELEMENTS = 3
SMALL = FoldedNetworkConfig(
    filters=8,
    blocks=4,
    mix_width=4,
    sigma_filters=4,
    shared_filters=12,
    shared_blocks=2,
    kriges=True,
)


def measurement_of(reading: tuple[int, int]) -> Measurement:
    factor, pixels = reading
    return Measurement(factor, "rows" if pixels > 1 else "fly", 0.4)


def noisy_counts(how: Measurement, rows: int = 18, columns: int = 22) -> np.ndarray:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:rows, : columns * how.fast_pixels]
    mean = [
        40 / how.fast_pixels * (1.2 + np.sin(y / 3 + k) * np.cos(x / (2 * how.fast_pixels)))
        for k in range(N_ELEMENTS)
    ]
    return rng.poisson(mean).astype(np.float32)


def known(counts: np.ndarray, how: Measurement):
    scale = Scale.of(per_coarse_pixel(counts, how))
    linear = chosen_widths(counts, how)[None], kriging_choice(counts, how)[None]
    return conditions_of(scale.low[None], scale.span[None], [how], *linear)


def trained_looking(config: FoldedNetworkConfig = SMALL) -> FoldedNetwork:
    torch.manual_seed(0)
    network = FoldedNetwork(config).eval()
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("reading", READINGS)
def test_untrained_it_is_the_best_gaussian_treatment(reading):
    how = measurement_of(reading)
    counts = noisy_counts(how)
    with torch.inference_mode():
        made = FoldedNetwork(SMALL)(torch.tensor(counts[None]), known(counts, how), how.factor)
    start = stabilise(how.fast_pixels * smoothed(counts, how))
    np.testing.assert_allclose(made.stabilised[0], start, rtol=1e-4)
    assert made.estimate.shape == (1, N_ELEMENTS, 18 * how.factor, 22 * how.factor)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("axes", [(-1,), (-2,), (-2, -1)])
def test_a_mirrored_map_gives_the_mirrored_result(reading, axes):
    how, network = measurement_of(reading), trained_looking()
    counts = noisy_counts(how)
    mirrored = np.flip(counts, axes).copy()
    with torch.inference_mode():
        made, other = (
            network(torch.tensor(maps[None]), known(maps, how), how.factor)
            for maps in (counts, mirrored)
        )
    for one, two in ((made.stabilised, other.stabilised), (made.sigma, other.sigma)):
        np.testing.assert_allclose(two.flip(axes), one, rtol=1e-3, atol=1e-3)
    # The network does more than its start, which is symmetric anyway.
    start = stabilise(how.fast_pixels * smoothed(counts, how))
    assert np.abs(made.stabilised[0].numpy() - start).max() > 1


def test_with_the_whole_share_of_kriging_an_untrained_network_is_kriging():
    how = measurement_of(KRIGED)
    # So bright that it is all the same how the bias of stabilised counts is taken back.
    counts = 1000 * noisy_counts(how, 40, 44)
    network = FoldedNetwork(SMALL)
    assert network.kriged is not None
    torch.nn.init.ones_(network.kriged.share.bias)
    with torch.inference_mode():
        made = network(torch.tensor(counts[None]), known(counts, how), how.factor).stabilised[0]
    expected = stabilise(how.fast_pixels * kriging(counts, how))
    start = stabilise(how.fast_pixels * smoothed(counts, how))
    # Noise of one part in the variance is rounded to one of a dozen levels.
    apart = np.abs(made.numpy() - expected).mean()
    assert apart < 0.3 * np.abs(start - expected).mean()


def test_a_smaller_network_ends_where_a_larger_one_begins():
    smaller = FoldedNetworkConfig(filters=8, blocks=4, mix_width=4, sigma_filters=4)
    network, larger = trained_looking(smaller), FoldedNetwork(SMALL).eval()
    larger.load_state_dict(network.state_dict(), strict=False)
    for reading in READINGS:
        how = measurement_of(reading)
        counts = noisy_counts(how)
        with torch.inference_mode():
            made, same = (
                one(torch.tensor(counts[None]), known(counts, how), how.factor).estimate
                for one in (network, larger)
            )
        torch.testing.assert_close(same, made)


def test_as_many_numbers_are_learnt_as_are_different():
    features = versions(4)
    conv = FlipConv(features, features)
    assert conv.weight.numel() == 16 * 16 * 9 // 4
    assert conv.bias.numel() == 4
    weight, bias = conv.whole()
    assert weight.shape == (16, 16, 3, 3)
    # The second version of a feature is what the first would be on a map mirrored along x.
    swapped = [4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]
    torch.testing.assert_close(weight[swapped][:, swapped].flip(-1), weight)
    torch.testing.assert_close(bias[swapped], bias)


def test_layouts_say_where_channels_go():
    assert folded(1, 2) == ((0, 1), (1, 0), (0, 1), (1, 0))
    assert folded(2, 2)[2] == (2, 3, 0, 1)
    assert joined(folded(1, 2), folded(1, 1))[1] == (1, 0, 2)


@pytest.mark.parametrize("reading", READINGS)
def test_one_element_after_the_other_gives_what_all_at_once_give(reading):
    how, network = measurement_of(reading), trained_looking()
    counts = noisy_counts(how)
    tensor, conditions = torch.tensor(counts), known(counts, how)
    with torch.inference_mode():
        expected = network(tensor[None], conditions, how.factor)
        found = list(Elementwise(network, conditions, how.factor, torch.float32)(tensor))
    for index, (stabilised, sigma) in enumerate(found):
        np.testing.assert_allclose(stabilised, expected.stabilised[0, index], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(sigma, expected.sigma[0, index], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reading", READINGS)
def test_tiles_leave_no_seams(reading):
    how, network = measurement_of(reading), trained_looking()
    counts = noisy_counts(how, 60, 66)
    conditions, cpu = known(counts, how), torch.device("cpu")
    whole, tiled = (
        run_tiled(network, counts, conditions, how.factor, cpu, tile=tile) for tile in (80, 16)
    )
    # Half precision, where the machine has it, rounds by the size of a tile.
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=0.3)
