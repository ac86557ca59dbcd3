"""Adapting a model without pairs: thinning is honest, it learns, it repeats, it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("lightning")
torch = pytest.importorskip("torch")

from xrf_sr_plans.errors import ConfigError, FileFormatError, ModelError  # noqa: E402
from xrf_sr_plans.measurement import SAMPLINGS, Measurement  # noqa: E402
from xrf_sr_plans.physics.operators import measure_again  # noqa: E402
from xrf_sr_plans.sr.network import SetNetwork, SetNetworkConfig  # noqa: E402
from xrf_sr_plans.training.adaptation import (  # noqa: E402
    AdaptationConfig,
    adapt,
    held_out_error_db,
    verdict,
)
from xrf_sr_plans.training.batches import batch_tensors  # noqa: E402
from xrf_sr_plans.training.fine_tuning import fine_tune  # noqa: E402
from xrf_sr_plans.training.phantoms import phantom  # noqa: E402
from xrf_sr_plans.training.self_supervised import (  # noqa: E402
    measured_again,
    self_supervised_loss,
)
from xrf_sr_plans.training.simulated_pairs import Samples, random_batch  # noqa: E402
from xrf_sr_plans.training.thinned_maps import (  # noqa: E402
    CoarseMap,
    ThinnedBatches,
    coarser_pair,
    held_out_pairs,
    hold_out,
    photon_gain,
    thin,
)
from xrf_sr_plans.training.unpaired import unpaired_loss  # noqa: E402


def counts(side: int = 48, level: float = 60.0, seed: int = 0) -> np.ndarray:
    sample = phantom("cathode", 5, size=96, n_elements=2)[:, :side, :side]
    return np.random.default_rng(seed).poisson(level * sample)


@given(share=st.floats(0.05, 0.95), mean=st.floats(0.5, 200.0), seed=st.integers(0, 2**32 - 1))
def test_thinned_parts_add_up_are_unbiased_poisson_and_independent(share, mean, seed):
    rng = np.random.default_rng(seed)
    whole = rng.poisson(mean, 20_000)
    kept, rest = thin(whole, share, rng)
    assert np.array_equal(kept + rest, whole)
    for part, expected in ((kept, share * mean), (rest, (1 - share) * mean)):
        assert abs(part.mean() - expected) < 6 * np.sqrt(expected / whole.size)
        assert abs(part.var() / expected - 1) < 6 * np.sqrt((2 + 1 / expected) / whole.size)
    assert abs(np.corrcoef(kept, rest)[0, 1]) < 6 / np.sqrt(whole.size)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_map_made_coarser_has_the_noise_of_counts(sampling, factor):
    rng = np.random.default_rng(1)
    flat = CoarseMap.of("flat", rng.poisson(30.0, (1, 256, 256)), sampling)
    kept, rest = thin(flat.counts, 0.5, rng)
    pair = coarser_pair(flat, kept, rest, factor, 1.0)
    assert pair.counts.mean() == pytest.approx(15 * photon_gain(pair.measurement), rel=0.01)
    assert pair.counts.var() / pair.counts.mean() == pytest.approx(1, abs=0.06)
    # The truth is in photons per coarse pixel.
    whole = pair.counts.mean() * pair.measurement.fast_pixels
    assert pair.truth.mean() == pytest.approx(whole, rel=0.01)


def test_measuring_again_in_torch_is_the_forward_model():
    fine = np.random.default_rng(2).random((3, 2, 16, 24))
    for index, sampling in enumerate(SAMPLINGS):
        how = Measurement(4, sampling)
        maps = torch.tensor(fine, dtype=torch.float32)
        made = measured_again(maps, torch.full((3,), index), 4)
        expected = measure_again(fine, how) / how.fast_pixels
        assert np.allclose(made.numpy(), expected, atol=1e-5)


def test_held_out_photons_are_in_no_training_map():
    whole = CoarseMap.of("a", counts())
    learn, judge = hold_out([whole], 0.1, seed=3)
    assert np.array_equal(learn[0].counts + judge[0].counts, whole.counts)
    assert judge[0].counts.sum() / whole.counts.sum() == pytest.approx(0.1, abs=0.02)


def tiny() -> SetNetwork:
    torch.manual_seed(0)
    return SetNetwork(SetNetworkConfig(8, 2, (0,), 4))


@pytest.mark.parametrize("method", [self_supervised_loss, unpaired_loss])
def test_what_a_network_gets_wrong_is_put_right_by_photons_it_was_not_shown(method):
    network = tiny()
    with torch.no_grad():
        for head in network.heads.values():
            head.out.bias.fill_(0.15)  # everything is predicted too bright
    learn, judge = hold_out([CoarseMap.of("a", counts())], 0.2, seed=0)
    pairs = held_out_pairs(learn, judge, 0.2, (2, 4))

    samples = Samples([phantom("cells", 0, size=64, n_elements=6).astype(np.float32)])

    def known(step: int):
        drawn = random_batch(samples, 0, step, maps_per_batch=1, coarse_px=8, reads=network.reads)
        return batch_tensors(drawn)

    loss = method(network, ThinnedBatches(learn, 4, 12), known, 0)
    before = held_out_error_db(network, pairs)
    assert fine_tune(network, loss, steps=40, learning_rate=1e-2) == 40
    assert held_out_error_db(network, pairs) < before - 0.3


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A small model to start from."""
    from xrf_sr_plans.training.export_model import export_model
    from xrf_sr_plans.training.loop import save_weights
    from xrf_sr_plans.training.training_config import TrainingConfig

    folder = tmp_path_factory.mktemp("start")
    config = TrainingConfig(architecture="set", filters=8, blocks=5, mix_width=4)
    torch.manual_seed(0)
    network = SetNetwork(SetNetworkConfig(8, 5, mix_width=4))
    save_weights(network, folder / "small.safetensors")
    return export_model(folder / "small.safetensors", "small", config, folder=folder)


def config(out: Path, start: Path, file: Path, **changes) -> AdaptationConfig:
    known = {
        "out": out,
        "start": str(start),
        "maps": (file,),
        "steps": 2,
        "maps_per_batch": 2,
        "coarse_px": 8,
        "n_phantoms": 6,
        "phantom_px": 64,
        "calibrate_per_family": 1,
        "threads": 1,
    }
    return AdaptationConfig.model_validate(known | changes)


def save(path: Path, maps: np.ndarray) -> Path:
    np.savez(path, maps=maps, elements=[f"E{k}" for k in range(len(maps))])
    return path


@pytest.mark.parametrize("method", ["self-supervised", "unpaired"])
def test_a_seed_decides_the_weights_and_the_model_can_be_used(tmp_path, start, method, monkeypatch):
    from xrf_sr_plans import enhance

    file = save(tmp_path / "map.npz", counts())
    once = adapt(config(tmp_path / "once", start, file, method=method))
    monkeypatch.setattr("xrf_sr_plans.training.adaptation.calibrate_model", lambda *_, **__: None)
    again, other = (
        adapt(config(tmp_path / name, start, file, method=method, seed=seed))
        for name, seed in (("again", 0), ("other", 1))
    )
    assert once.model.read_bytes() == again.model.read_bytes() != other.model.read_bytes()
    made = enhance(counts(), elements=["A", "B"], factor=2, step_um=1.0, model=str(once.model))
    assert made.model["name"] == f"small-{method}"


def test_fine_maps_of_other_samples_can_be_added(tmp_path, start, monkeypatch):
    monkeypatch.setattr("xrf_sr_plans.training.adaptation.calibrate_model", lambda *_, **__: None)
    file = save(tmp_path / "map.npz", counts())
    fine = save(tmp_path / "fine.npz", phantom("tissue", 3, size=64, n_elements=2))
    settings = config(tmp_path / "out", start, file, method="unpaired", fine=(fine,))
    done = adapt(settings)
    assert any("experimental" in line for line in verdict(done, settings))


def test_what_can_not_be_adapted_to_is_refused_by_name(tmp_path, start):
    good = save(tmp_path / "good.npz", counts())
    small = save(tmp_path / "small.npz", counts(side=31))
    rates = save(tmp_path / "rates.npz", counts() / 1000.0)
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match=r"small\.npz.*31.*32"):
        adapt(config(out, start, small))
    with pytest.raises(ConfigError, match=r"rates\.npz.*photons"):
        adapt(config(out, start, rates))
    with pytest.raises(ConfigError, match="--maps"):
        adapt(config(out, start, good, maps=()))
    with pytest.raises(ConfigError, match=r"good\.npz.*step"):
        adapt(config(out, start, good, probe_um=0.5))
    with pytest.raises(FileFormatError, match="nowhere"):
        adapt(config(out, start, tmp_path / "nowhere.npz"))
    with pytest.raises(ModelError, match="no-such-model"):
        adapt(config(out, Path("no-such-model"), good))
    with pytest.raises(ModelError, match="'srcnn'"):
        adapt(config(out, Path("srcnn-x2"), good))
    assert not out.exists()
