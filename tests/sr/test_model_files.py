"""Weights are checked before they are used; nothing in them runs."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from xrf_sr_plans.errors import ModelError  # noqa: E402
from xrf_sr_plans.sr import model_files, registry  # noqa: E402
from xrf_sr_plans.sr.model_files import write_sealed  # noqa: E402


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    shipped = registry.model_path(None)
    for file in shipped.parent.glob(f"{shipped.stem}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / shipped.name


def edit_card(path: Path, **changes) -> None:
    """Change a card and its checksum with it, as somebody would who means to."""
    card = path.with_suffix(".json")
    write_sealed(card, json.loads(card.read_text()) | changes)


def rehash(path: Path) -> None:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_card(path, sha256=sha256)
    calibration = path.with_suffix(".calibration.json")
    plain = json.loads(calibration.read_text()) | {"model_sha256": sha256}
    plain.pop("id")
    calibration.write_text(json.dumps(plain))


def test_a_copy_of_the_shipped_model_loads(copied):
    card, calibration, _ = registry.load_model(copied)
    assert calibration.model_sha256 == card.sha256


def test_the_shipped_weights_are_small_enough_for_the_wheel():
    assert sum(f.stat().st_size for f in registry.WEIGHTS.iterdir()) < 12e6


def test_one_changed_byte_is_noticed(copied):
    data = bytearray(copied.read_bytes())
    data[-1] ^= 1
    copied.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        registry.load_model(copied)


def test_a_truncated_file_is_refused_even_with_a_matching_card(copied):
    copied.write_bytes(copied.read_bytes()[:1000])
    rehash(copied)
    with pytest.raises(ModelError, match="not a safetensors file"):
        registry.load_model(copied)


def test_a_pickle_is_refused_and_not_run(copied, tmp_path):
    marker = tmp_path / "ran"
    payload = b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR."
    copied.write_bytes(payload)
    rehash(copied)
    with pytest.raises(ModelError, match="not a safetensors file"):
        registry.load_model(copied)
    assert not marker.exists()


def test_an_unknown_architecture_is_refused(copied):
    edit_card(copied, architecture={"kind": "os.system"})
    with pytest.raises(ModelError, match="allowed"):
        registry.load_model(copied)


def test_a_card_that_asks_for_a_giant_network_is_refused(copied):
    edit_card(copied, architecture={"kind": "set", "filters": 10**6})
    with pytest.raises(ModelError, match="not a model card"):
        registry.load_model(copied)


def test_weights_of_another_size_are_refused(copied):
    edit_card(copied, architecture={"kind": "set", "filters": 16, "blocks": 6})
    with pytest.raises(ModelError, match="not the weights"):
        registry.load_model(copied)


def test_nan_in_the_weights_is_refused(copied):
    from safetensors.torch import load_file, save_file

    state = load_file(copied)
    next(iter(state.values())).view(-1)[0] = float("nan")
    save_file(state, copied)
    rehash(copied)
    with pytest.raises(ModelError, match="NaN"):
        registry.load_model(copied)


def test_a_calibration_of_other_weights_is_refused(copied):
    calibration = copied.with_suffix(".calibration.json")
    plain = json.loads(calibration.read_text()) | {"model_sha256": "0" * 64}
    calibration.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match="made for weights"):
        registry.load_model(copied)


def test_an_edited_calibration_is_noticed_by_its_id(copied):
    calibration = copied.with_suffix(".calibration.json")
    plain = json.loads(calibration.read_text()) | {"source": "elsewhere"}
    calibration.write_text(json.dumps(plain))
    with pytest.raises(ModelError, match="says id"):
        registry.load_model(copied)


def other_number(plain):
    """The same content with its last number changed by one percent."""
    if isinstance(plain, dict):
        keys = [*plain]
        for key in reversed(keys):
            if (changed := other_number(plain[key])) is not None:
                return plain | {key: changed}
    elif isinstance(plain, list):
        for place in reversed(range(len(plain))):
            if (changed := other_number(plain[place])) is not None:
                return [*plain[:place], changed, *plain[place + 1 :]]
    elif isinstance(plain, float) and plain:
        return plain * 1.01
    return None


@pytest.mark.parametrize("suffix", [".json", ".calibration.json", ".trust.json"])
def test_one_changed_figure_in_any_of_the_papers_is_noticed(copied, suffix):
    registry.load_model(copied)
    file = copied.with_suffix(suffix)
    file.write_text(json.dumps(other_number(json.loads(file.read_text()))))
    with pytest.raises(ModelError, match=r"says id [0-9a-f]{16}, its content is"):
        registry.load_model(copied)


@pytest.mark.parametrize("suffix", [".json", ".trust.json"])
def test_papers_of_before_there_were_checksums_are_read_with_a_warning(copied, suffix, caplog):
    file = copied.with_suffix(suffix)
    plain = json.loads(file.read_text())
    del plain["id"]
    file.write_text(json.dumps(plain))
    registry.load_model(copied)
    assert f"{file.name}: has no checksum" in caplog.text


@pytest.mark.parametrize("suffix", [".json", ".calibration.json", ".trust.json"])
@pytest.mark.parametrize("content", ["[1]", "7", "null", "{", '{"id": 1}', "[" * 10**5, "\xff"])
def test_papers_that_are_something_else_are_refused(copied, suffix, content):
    copied.with_suffix(suffix).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=re.escape(suffix)):
        registry.load_model(copied)


def test_every_shipped_file_has_a_checksum():
    for file in registry.WEIGHTS.glob("*.json"):
        assert "id" in json.loads(file.read_text()), file


@pytest.mark.parametrize("suffix", [".json", ".calibration.json"])
def test_a_model_without_its_papers_is_refused(copied, suffix):
    copied.with_suffix(suffix).unlink()
    with pytest.raises(ModelError, match="can't be read"):
        registry.load_model(copied)


def test_a_huge_file_is_not_read_into_memory(copied, monkeypatch):
    monkeypatch.setattr(model_files, "LARGEST_FILE", 1000)
    with pytest.raises(ModelError, match="larger"):
        registry.load_network(copied, _card(copied))


def _card(path: Path) -> registry.ModelCard:
    plain = json.loads(path.with_suffix(".json").read_bytes())
    del plain["id"]
    return registry.ModelCard.model_validate(plain)


def test_identity_needs_neither_torch_nor_the_network():
    code = (
        "import sys; from xrf_sr_plans.sr.predict import model_identity;"
        "assert set(model_identity(None, 4)) == {'name', 'sha256', 'calibration'};"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_torch_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None; import numpy, xrf_sr_plans\n"
        "from xrf_sr_plans.errors import MissingExtraError\n"
        "try:\n"
        "    xrf_sr_plans.enhance(numpy.ones((1, 8, 8)), elements=['Fe'], factor=2, step_um=1)\n"
        "except MissingExtraError as error:\n"
        "    sys.exit('[sr]' not in str(error))\n"
        "sys.exit(2)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_peers_run_through_the_same_interface():
    from xrf_sr_plans.measurement import Measurement
    from xrf_sr_plans.physics.counting import unstabilise
    from xrf_sr_plans.sr.estimate import run_network
    from xrf_sr_plans.sr.scale import Scale

    torch.set_num_threads(1)
    counts = np.random.default_rng(0).poisson(30, (3, 12, 14)).astype(float)
    for kind in ("notes", "srcnn"):
        size = registry.Architecture(kind=kind, filters=8, blocks=2, elements=3, scale=2)
        network = registry.build(size).eval()
        made, _ = run_network(counts, Scale.of(counts), Measurement(2), network, "cpu")
        assert unstabilise(made).shape == (3, 24, 28)
        with pytest.raises(ModelError, match="factor 2"):
            run_network(counts, Scale.of(counts), Measurement(4), network, "cpu")


def test_the_network_of_the_notes_takes_other_numbers_of_elements_in_groups():
    from xrf_sr_plans.sr.peer_networks import NotesNetwork

    torch.manual_seed(0)
    network = NotesNetwork(3, 2, blocks=1, filters=8).eval()
    torch.nn.init.normal_(network.out.weight, std=0.1)
    maps = torch.rand(1, 4, 12, 12)
    with torch.inference_mode():
        whole, first = network.maps(maps), network.maps(maps[:, :3])
        last = network.maps(maps[:, [3, 3, 3]])
    assert torch.equal(whole[:, :3], first)
    assert torch.equal(whole[:, 3], last[:, 0])


def test_a_card_from_before_sigma_looked_further_around_still_loads(tmp_path):
    from safetensors.torch import save_file

    from xrf_sr_plans.sr.network import SetNetwork, SetNetworkConfig

    network = SetNetwork(SetNetworkConfig(8, 2, mix_width=4, sigma_dilations=()))
    path = tmp_path / "old.safetensors"
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    size = {"kind": "set", "filters": 8, "blocks": 2, "mix_width": 4}
    path.with_suffix(".json").write_text(
        json.dumps({"name": "old", "sha256": sha256, "architecture": size})
    )
    loaded = registry.load_network(path, registry.read_card(path))
    assert loaded.reach == network.reach < SetNetwork(SetNetworkConfig(8, 2)).reach


def test_a_card_of_a_network_out_of_all_proportion_is_refused():
    for dilations in ((0,), (17,), (1, 1, 1, 1, 1)):
        with pytest.raises(ValueError, match="sigma_dilations"):
            registry.Architecture(kind="set", sigma_dilations=dilations)


def test_weights_in_half_precision_load_into_a_network_in_single(tmp_path):
    from safetensors.torch import save_file

    size = registry.Architecture(kind="srcnn", scale=2)
    state = {name: value.half() for name, value in registry.build(size).state_dict().items()}
    path = tmp_path / "half.safetensors"
    save_file(state, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    network = registry.load_network(
        path, registry.ModelCard(name="half", sha256=sha256, architecture=size)
    )
    assert {value.dtype for value in network.state_dict().values()} == {torch.float32}
