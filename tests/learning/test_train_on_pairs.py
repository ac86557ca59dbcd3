"""Learning from pairs: it helps where pairs show something, is honest about noise, and resumes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from support.made_pairs import made_maps, made_store, pair_counts  # noqa: E402
from support.models import FOLDED, made_model  # noqa: E402
from xrf_sr_plans.errors import ConfigError, ModelError  # noqa: E402
from xrf_sr_plans.learning import calibrate_on_areas as calibrate_on_areas_module  # noqa: E402
from xrf_sr_plans.learning.calibrate_on_areas import calibrate_on_areas  # noqa: E402
from xrf_sr_plans.learning.map_figures import of_area  # noqa: E402
from xrf_sr_plans.learning.stored_areas import (  # noqa: E402
    _split,
    areas_of,
    lessons_from,
    lessons_of,
)
from xrf_sr_plans.learning.train_on_pairs import LearningSettings, train_on_pairs  # noqa: E402
from xrf_sr_plans.registration.pair_registration import PairRegistration  # noqa: E402
from xrf_sr_plans.sr.network import Prediction  # noqa: E402
from xrf_sr_plans.sr.registry import build, load_model  # noqa: E402
from xrf_sr_plans.store.pairs import PairStore, StoredMap, StoredPair  # noqa: E402
from xrf_sr_plans.training import paired_training  # noqa: E402
from xrf_sr_plans.training.paired_areas import PairedBatches, in_halves, stacked  # noqa: E402
from xrf_sr_plans.training.paired_loss import (  # noqa: E402
    excess_error,
    paired_loss,
    paired_tensors,
)
from xrf_sr_plans.training.paired_settings import PairedSettings  # noqa: E402
from xrf_sr_plans.training.paired_training import learn_from_pairs  # noqa: E402

QUICK = {
    "steps": 6,
    "check_every": 2,
    "maps_per_batch": 2,
    "coarse_px": 16,
    "n_phantoms": 3,
    "phantom_px": 64,
    "n_judged": 2,
}


def pair(seed: int, **how) -> StoredPair:
    coarse, fine, _ = pair_counts(seed, **how)
    factor = how.get("factor", 2)
    kept = {name: how[name] for name in ("dwell_ratio", "sampling") if name in how}
    maps = made_maps(coarse, fine, factor, **kept)
    first, second = (StoredMap(i, (factor, 1)[i], one) for i, one in enumerate(maps))
    registration = {0: PairRegistration(factor, 0.0, 0.0)}
    return StoredPair(f"pair-{seed}", second, (first,), registration, sample=f"sample {seed}")


@pytest.mark.parametrize("sampling", ["fly", "rows"])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 4.0])
def test_targets_are_in_photons_of_a_coarse_step_and_say_their_noise(sampling, ratio):
    how = {"side": 64, "peak": 60.0, "dwell_ratio": ratio, "sampling": sampling, "factor": 2}
    _, _, truth = pair_counts(2, **how)
    (area,) = areas_of(pair(2, **how))
    error = area.target - truth
    assert error.mean() == pytest.approx(0.0, abs=5 * np.sqrt(truth.mean() / ratio / error.size))
    assert np.square(error).mean() == pytest.approx(area.variance.mean(), rel=0.1)
    per_step = area.counts.mean() * area.measurement.fast_pixels
    assert per_step == pytest.approx(truth.mean(), rel=0.05)


def test_a_displaced_fine_map_is_moved_to_where_the_coarse_map_shows_it():
    moved = pair(2, side=64, peak=200.0)
    fine = np.roll(moved.fine.maps.counts.values, (0, -3), axis=(1, 2))
    maps = made_maps(moved.coarse[0].maps.counts.values, fine)
    other = StoredPair(
        "moved",
        StoredMap(1, 1, maps[1]),
        (StoredMap(0, 2, maps[0]),),
        {0: PairRegistration(2, 3.0, 0.0)},
    )
    straight, back = (lessons_from([one]).learn[0] for one in (moved, other))
    shared = straight.measured & back.measured
    assert shared.mean() > 0.85
    assert np.allclose(straight.target[:, shared], back.target[:, shared], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"problem": "another sample"}, "another sample"),
        ({"registration": {}}, "wasn't registered"),
        (
            {"registration": {0: PairRegistration(2, np.nan, np.nan, problem="no match")}},
            "no match",
        ),
    ],
)
def test_pairs_with_a_problem_are_left_out_and_say_why(change, word):
    found = lessons_from([replace(pair(3, side=64), **change)])
    assert not found.learn
    assert word in found.left_out[0].reason


def test_rescans_are_learnt_from_but_intervals_do_not_follow_them(tmp_path, monkeypatch):
    # The model that is made has a calibration.
    monkeypatch.setattr(calibrate_on_areas_module, "calibrate_model", lambda *_, **__: None)
    areas = list(areas_of(replace(pair(3, side=64), source="rescan")))
    assert [area.was_chosen for area in areas] == [True]
    assert not in_halves(areas_of_pair(3), 0.25)[0].was_chosen
    model = made_model(tmp_path)
    assert not calibrate_on_areas(model, areas, n_per_family=1)


def areas_of_pair(seed: int):
    (area,) = areas_of(pair(seed, side=64))
    return area


def test_a_store_without_usable_pairs_is_refused_in_words(tmp_path):
    made_store(tmp_path / "pairs", range(1), side=64, peak=0.5)
    with pytest.raises(ConfigError, match=r"no pair to learn from.*4 photons"):
        train_on_pairs(LearningSettings(pairs=tmp_path / "pairs", out=tmp_path / "out"))
    with pytest.raises(ModelError, match="srcnn"):
        train_on_pairs(
            LearningSettings(pairs=tmp_path / "pairs", out=tmp_path / "out", start="srcnn-x2")
        )


def test_a_damaged_pair_costs_only_itself(tmp_path):
    folder = made_store(tmp_path / "pairs", range(2), side=64)
    file = sorted((folder / "maps").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-100])
    found = lessons_of(PairStore(folder))
    assert len({area.sample for area in (*found.learn, *found.held_out)}) == 1
    assert any("damaged" in one.reason for one in found.left_out)


def test_the_loss_has_its_minimum_at_the_truth_however_noisy_the_fine_map_is():
    losses = {}
    for shift in (-2.0, 0.0, 2.0):
        parts = []
        for seed in range(4):
            area = lessons_from([pair(seed, side=64, peak=40.0, dwell_ratio=0.5)]).learn[0]
            batch = paired_tensors(stacked([area]))
            truth = pair_counts(seed, side=64, peak=40.0, dwell_ratio=0.5)[2]
            rows, columns = area.target.shape[1:]
            made = torch.tensor(truth[None, :, :rows, :columns] + shift, dtype=torch.float32)
            stabilised = 2 * torch.sqrt(made.clamp(min=0) + 0.375)
            prediction = Prediction(made, stabilised, torch.ones_like(made))
            parts.append(paired_loss(prediction, batch))
        losses[shift] = float(torch.stack(parts).mean())
    assert losses[0.0] < min(losses[-2.0], losses[2.0])


def test_what_is_left_of_an_error_is_freed_of_the_noise_of_the_fine_map():
    how = {"side": 96, "peak": 100.0, "dwell_ratio": 1.0}
    area = lessons_from([pair(4, **how)]).learn[0]
    truth = pair_counts(4, **how)[2]
    rows, columns = area.target.shape[1:]
    made = torch.tensor(truth[None, :, :rows, :columns] + 6.0, dtype=torch.float32)
    found = excess_error(made, paired_tensors(stacked([area])))
    assert found.numpy() == pytest.approx(36.0, rel=0.15)


def test_a_crop_without_a_measured_pixel_teaches_nothing_and_breaks_nothing():
    (area,) = areas_of(pair(4, side=64))
    hidden = replace(area, measured=np.zeros_like(area.measured))
    made = torch.ones((1, *area.target.shape), requires_grad=True)
    prediction = Prediction(made, 2 * torch.sqrt(made + 0.375), torch.ones_like(made))
    loss = paired_loss(prediction, paired_tensors(stacked([hidden])))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert not made.grad.any()
    assert list(of_area(hidden, None, None)) == []
    rows = np.arange(area.measured.shape[0])[:, None] < 48
    half = replace(area, measured=area.measured & rows)
    assert not _split([half])[0]


def test_crops_are_thinned_mirrored_and_keep_their_scale():
    area = lessons_from([pair(5, side=96, peak=80.0)]).learn[0]
    batches = PairedBatches([area], 8, 16)
    totals = []
    for seed in range(40):
        drawn = batches.draw(np.random.default_rng(seed), (2, 1))
        totals.append(drawn.batch.truth.mean() / max(drawn.batch.counts.mean(), 1e-9))
        assert drawn.variance.shape == drawn.batch.truth.shape == drawn.measured.shape
    assert np.mean(totals) == pytest.approx(1.0, abs=0.08)


def test_rows_are_learnt_from_as_rows_and_as_squares():
    area = lessons_from([pair(6, side=96, sampling="rows", factor=4)]).learn[0]
    batches = PairedBatches([area], 4, 8)
    assert batches.readings() == [(4, 1), (4, 4)]
    for reading in batches.readings():
        drawn = batches.draw(np.random.default_rng(0), reading)
        assert {one.reading for one in drawn.batch.measurements} == {reading}


def test_an_area_is_split_so_that_no_pixel_is_in_both_parts():
    (area,) = areas_of(pair(7, side=96))
    learn, held = in_halves(area, 0.25)
    assert (learn.steps, held.steps) == ((34, 48), (12, 48))
    assert np.array_equal(learn.target, area.target[:, :68])
    assert np.array_equal(held.counts, area.counts[:, 36:])
    with pytest.raises(ValueError, match="too few"):
        in_halves(held.part(slice(0, 8), slice(0, 8)), 0.25)


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path, monkeypatch):
    areas = lessons_from([pair(seed, side=64) for seed in range(2)])
    settings = PairedSettings.model_validate(QUICK)

    def trained(folder):
        torch.manual_seed(0)
        network = build(FOLDED)
        state = learn_from_pairs(
            network, areas.learn, areas.held_out, settings, folder / "state.safetensors"
        )
        return state, network.state_dict()

    state, whole = trained(tmp_path / "whole")
    loss, calls = paired_training._loss, []

    def dies(*args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*args)

    monkeypatch.setattr(paired_training, "_loss", dies)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut")
    monkeypatch.undo()
    again, resumed = trained(tmp_path / "cut")
    assert [one.step for one in state.judged] == [2, 4, 6]
    assert again.judged == state.judged
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_damaged_or_foreign_state_begins_anew(tmp_path, caplog):
    areas = lessons_from([pair(0, side=64)])
    file = tmp_path / "state.safetensors"
    settings = PairedSettings.model_validate(QUICK | {"steps": 2})
    learn_from_pairs(build(FOLDED), areas.learn, areas.held_out, settings, file)
    file.write_bytes(file.read_bytes()[:500])
    state = learn_from_pairs(build(FOLDED), areas.learn, areas.held_out, settings, file)
    assert "begins anew" in caplog.text
    assert state.step == 2


def test_training_stops_where_nothing_held_out_gets_better(tmp_path):
    areas = lessons_from([pair(0, side=64)])
    settings = PairedSettings.model_validate(
        QUICK | {"steps": 40, "check_every": 1, "patience": 3, "learning_rate": 0.5}
    )
    state = learn_from_pairs(
        build(FOLDED), areas.learn, areas.held_out, settings, tmp_path / "state"
    )
    assert state.step < 40
    assert state.waited() == 3


def test_the_candidate_has_a_card_that_says_what_it_learnt_from(tmp_path, quick_calibration):
    start = made_model(tmp_path)
    folder = made_store(tmp_path / "pairs", range(4), side=64)
    settings = LearningSettings(
        pairs=folder,
        out=tmp_path / "out",
        start=str(start),
        calibrate_per_family=1,
        **QUICK,  # type: ignore[arg-type]
    )
    path = train_on_pairs(settings)
    card, calibration, _ = load_model(str(path))
    assert card.name == path.stem == "made-paired"
    pairs = card.training["pairs"]
    assert pairs["version"] == PairStore(folder).version
    assert len(pairs["learnt from"]) + len(pairs["held out"]) == 4
    assert pairs["held out are"] == "other samples"
    assert card.training["start"]["name"] == "made"
    assert "own pairs" in calibration.source
    assert json.loads(path.with_suffix(".json").read_text())["id"]


@pytest.mark.slow
def test_two_processes_learn_together_and_agree(tmp_path):
    program = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from support.models import FOLDED
from test_train_on_pairs import QUICK, pair
from xrf_sr_plans.learning.stored_areas import lessons_from
from xrf_sr_plans.sr.registry import build
from xrf_sr_plans.training.paired_training import PairedSettings, learn_from_pairs
from xrf_sr_plans.training.team import Team
torch.manual_seed(0)
network, areas = build(FOLDED), lessons_from([pair(s, side=64) for s in range(2)])
team = Team.from_environment("cpu")
settings = PairedSettings.model_validate(QUICK)
state = learn_from_pairs(network, areas.learn, areas.held_out, settings, Path(sys.argv[1]), team)
total = sum(float(p.double().sum()) for p in network.parameters())
Path(f"{sys.argv[1]}.{team.rank}").write_text(f"{total!r} {state.best_judgement}")
team.leave()
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), *sys.path]),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / "state"), str(here.parent)],
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [one.wait(timeout=100) for one in started] == [0, 0]
    said = [(tmp_path / f"state.{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1]
