"""A factor that nobody can enhance by is refused in one sentence, wherever it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bluesky import RunEngine

from support.plan_support import small_beamline
from xrf_sr_plans import cli
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.calibrate_from_pairs import calibrate_from_pairs
from xrf_sr_plans.evaluation.own_map import evaluate_file
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.measurement import (
    FACTORS,
    SAMPLINGS,
    Measurement,
    alternatives,
    checked_sampling,
    factor_not_allowed,
)
from xrf_sr_plans.plans.binding import bind_plans
from xrf_sr_plans.plans.collect import collect_pairs
from xrf_sr_plans.plans.pair import acquire_pair
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.plans.survey import coarse_survey_with_sr
from xrf_sr_plans.sr.predict import enhance
from xrf_sr_plans.store.pairs import PairStore

SENTENCE = "factor is 3; it should be 1, 2 or 4"
OF_PAIRS = "factor is 3; it should be 2 or 4"
"""The coarse map of a pair is coarser than the fine one."""
SURVEY = {"width_um": 8, "height_um": 3, "step_um": 1, "dwell_ms": 10, "factor": 3}
PAIR = {"fine_step_um": 0.5, "dwell_ms": 10, "factors": [3]}
AREA = {"width_um": 8, "height_um": 4}
REGION = {"x_low_um": 0, "x_high_um": 4, "y_low_um": 0, "y_high_um": 4}


def raised(call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """Return what a call is refused with."""
    with pytest.raises(ConfigError) as refused:
        call(*args, **kwargs)
    return str(refused.value)


def flown(plan: Any, *args: Any, **kwargs: Any) -> str:
    """Return what a plan is refused with before its first message."""
    return raised(lambda: RunEngine({})(plan(*args, **kwargs)))


def plans_say() -> dict[str, str]:
    beamline = small_beamline()
    bound = bind_plans(beamline)
    return {
        "plan": flown(coarse_survey_with_sr, beamline, **SURVEY),
        "bound plan": flown(bound["coarse_survey_with_sr"], **SURVEY),
        "preview": "; ".join(preview(coarse_survey_with_sr, beamline, **SURVEY).problems),
        "preview of a bound plan": raised(preview, bound["coarse_survey_with_sr"], **SURVEY),
        "pair": flown(acquire_pair, beamline, **AREA, **PAIR),
        "bound pair": flown(bound["acquire_pair"], **AREA, **PAIR),
        "pairs": flown(collect_pairs, beamline, [REGION], **PAIR),
        "bound pairs": flown(bound["collect_pairs"], [REGION], **PAIR),
    }


def files_say(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> dict[str, str]:
    counts = np.random.default_rng(0).poisson(30.0, (1, 48, 48)).astype(float)
    path = folder / "m.npz"
    np.savez(path, maps=counts, elements=["Fe"], pixel_size_um=1.0)
    store = PairStore(folder / "pairs")
    for position, factor in enumerate((3, 1)):
        grid = ScanGrid(AxisGrid("x", 0.0, factor, 48), AxisGrid("y", 0.0, factor, 48))
        maps = ElementalMaps.from_arrays(
            counts, grid, ["Fe"], coverage=np.ones((48, 48), dtype=int), step_um=float(factor)
        )
        store.save_map("pair", position, factor, maps)
    store.finish("pair", {})
    said = {
        "description": raised(Measurement, 3),
        "enhance": raised(enhance, counts, elements=["Fe"], factor=3, step_um=1.0),
        "evaluate": raised(evaluate_file, path, factor=3),
        "calibrate": raised(calibrate_from_pairs, folder / "pairs", None, folder / "out"),
    }
    for command in ("enhance", "evaluate"):
        arguments = [command, str(path), "--factor", "3"]
        arguments += ["--step-um", "1"] if command == "enhance" else []
        monkeypatch.setattr("sys.argv", ["xrf-sr", *arguments])
        with pytest.raises(SystemExit) as left:
            cli.main()
        assert left.value.code == 2
        said[f"xrf-sr {command}"] = capsys.readouterr().err
    return said


def test_the_same_sentence_is_said_everywhere(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torch")
    said = plans_say() | files_say(tmp_path, monkeypatch, capsys)
    sentences = {where: re.findall(r"factor is .+ or \d+", text) for where, text in said.items()}
    assert sentences == {where: [OF_PAIRS if "pair" in where else SENTENCE] for where in said}
    assert factor_not_allowed(3) == SENTENCE


def test_the_queue_server_refuses_it_with_the_same_name_value_and_alternatives():
    profile_ops = pytest.importorskip("bluesky_queueserver.manager.profile_ops")
    described = {
        name: profile_ops._process_plan(plan, existing_devices={}, existing_plans={})
        for name, plan in bind_plans(small_beamline()).items()
    }
    calls = {
        "coarse_survey_with_sr": SURVEY,
        "acquire_pair": {**AREA, **PAIR},
        "collect_pairs": {"regions": [REGION], **PAIR},
    }
    for name, kwargs in calls.items():
        _, end = (OF_PAIRS if "pair" in name else SENTENCE).split("; it ")
        item = {"item_type": "plan", "name": name, "kwargs": kwargs}
        allowed, words = profile_ops.validate_plan(
            item, allowed_plans=described, allowed_devices={}
        )
        assert not allowed
        assert re.search(rf"factor.*\n\s+Input {end} \[.*input_value=3,", words), words
        wished = {key: value if key != "factors" else [2, 4] for key, value in kwargs.items()}
        wished |= {"factor": 4} if "factor" in wished else {}
        item = {**item, "kwargs": wished}
        assert profile_ops.validate_plan(item, allowed_plans=described, allowed_devices={})[0]


def test_every_allowed_value_is_allowed():
    for factor in FACTORS:
        for sampling in SAMPLINGS:
            assert Measurement(factor, checked_sampling(sampling)).factor == factor


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (
            {"sampling": "spiral"},
            "sampling is 'spiral'; it should be 'fly', 'area', 'point' or 'rows'",
        ),
        ({"probe_steps": -1.0}, "probe FWHM is -1.0 coarse steps; it should be 0 or more"),
        ({"probe_steps": float("nan")}, "probe FWHM is nan coarse steps; it should be 0 or more"),
    ],
)
def test_what_cannot_be_measured_is_refused(wrong, says):
    assert raised(Measurement, 2, **wrong) == says


def test_a_kept_blur_is_not_removed():
    freed, kept = (Measurement(2, "fly", 0.8, deblur=deblur) for deblur in (True, False))
    assert (freed.removed_probe_steps, freed.kept_probe_steps) == (0.8, 0.0)
    assert (kept.removed_probe_steps, kept.kept_probe_steps) == (0.0, 0.8)
    assert (freed.sharpening_steps, kept.sharpening_steps) == (0.8, -0.8)


def test_alternatives_are_said_in_words():
    assert alternatives([1]) == "1"
    assert alternatives([1, 2, 4]) == "1, 2 or 4"
