"""Runs of other programs are replayed from their files as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.foreign_runs import ELEMENTS, FIELD, ROI_CHANNELS, Document, hxn_run, srx_run
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import AnalysisError
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.schema import AnalysisRequest

BICUBIC = AnalysisSettings(model="none-of-that-name")


def written(path: Path, docs: list[Document]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in docs))
    return path


def assert_is_enhanced(documents: Any) -> None:
    enhanced = enhanced_from_documents(documents)
    assert enhanced.elements == list(ELEMENTS)
    ny, nx, factor = FIELD.ny, FIELD.nx, enhanced.factor
    means = enhanced.estimate.values.reshape(3, ny, factor, nx, factor).mean(axis=(2, 4))
    assert (np.abs(means - FIELD.counts) < 5 * np.sqrt(FIELD.counts + 1)).mean() > 0.95
    x = enhanced.dataset["x"].values
    step_um = FIELD.dx_um / factor
    np.testing.assert_allclose(x[0], FIELD.x[0] - FIELD.dx_um / 2 + step_um / 2)


def test_a_file_of_hxn_is_replayed(tmp_path: Path) -> None:
    path = written(tmp_path / "run.jsonl", hxn_run())
    result = replay(path, settings=BICUBIC)
    assert result.summary.status != "failed"
    assert_is_enhanced(result.documents)
    again = replay(path, settings=BICUBIC, request=AnalysisRequest(factor=4))
    assert enhanced_from_documents(again.documents).factor == 4
    assert again.digest != result.digest


def test_a_file_names_files_beside_it_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    docs = srx_run(tmp_path / "a")
    path = written(tmp_path / "a" / "run.jsonl", docs)
    assert_is_enhanced(replay(path, settings=BICUBIC, channels=ROI_CHANNELS).documents)
    path = written(tmp_path / "b" / "run.jsonl", docs)
    with pytest.raises(AnalysisError, match="only below configured folders"):
        replay(path, settings=BICUBIC, channels=ROI_CHANNELS)


def test_a_run_of_no_known_kind_says_which_kinds_there_are(tmp_path: Path) -> None:
    docs: list[Document] = [("start", {"uid": "c", "time": 1.0, "plan_name": "tune"}),
                            ("stop", {"uid": "t", "run_start": "c", "time": 2.0})]  # fmt: skip
    with pytest.raises(AnalysisError, match=r"run c: plan 'tune' .* is no map of a known kind"):
        replay(written(tmp_path / "run.jsonl", docs))
