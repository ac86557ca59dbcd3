"""The peers run in `evaluate`, and learn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xrf_sr_plans.evaluation.degraded_map import degraded  # noqa: E402
from xrf_sr_plans.evaluation.own_map import evaluate  # noqa: E402
from xrf_sr_plans.maps.files.model import MapsFile  # noqa: E402
from xrf_sr_plans.training.phantoms import phantom  # noqa: E402


def test_a_peer_that_ships_shows_up():
    torch.set_num_threads(1)
    maps = phantom("cells", 1_000_500, size=64, n_elements=2)
    file = MapsFile(maps, ("Fe", "Zn"), 0.1, {})
    table = evaluate(degraded(file, 2, 200.0), methods=["SRCNN"])
    gains = {summary.method: summary.gain_db for summary in table.summaries}
    assert gains.keys() == {"bicubic", "SRCNN"}
    assert np.isfinite(gains["SRCNN"])


def test_the_network_of_the_notes_learns_at_a_high_rate_without_dying():
    from xrf_sr_plans.sr.peer_networks import NotesNetwork

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = NotesNetwork(2, 2, blocks=2, filters=16)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    maps, truth = torch.rand(2, 2, 12, 12), torch.rand(2, 2, 24, 24)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (network.maps(maps) - truth).abs().mean()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.75 * losses[0]
    features: list[torch.Tensor] = []
    network.upsampling.register_forward_hook(lambda _m, _i, out: features.append(out))
    network.maps(maps)
    assert (features[0] != 0).float().mean() > 0.5


def test_the_poisson_deviance_is_least_at_the_truth_and_has_a_gradient_at_zero():
    from xrf_sr_plans.training.losses import poisson_deviance

    truth = torch.tensor([[[[0.0, 0.0, 5.0, 100.0]]]])
    for per_map in (True, False):
        off = torch.tensor([[[[0.5, -1.0, 5.0, 120.0]]]], requires_grad=True)
        loss = poisson_deviance(off, truth, per_map=per_map)
        assert loss > poisson_deviance(truth, truth, per_map=per_map)
        loss.backward()
        assert off.grad is not None
        signs = torch.sign(off.grad).flatten().tolist()
        assert signs == [1.0, -1.0, 0.0, 1.0]
