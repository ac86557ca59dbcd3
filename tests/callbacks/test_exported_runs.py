"""The runs of a survey as files: each map, the composite one, and what the fine maps verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from support.row_documents import ELEMENTS, map_run, small_grid
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.callbacks.list_documents import as_lists
from xrf_sr_plans.cli import app
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.schema import AnalysisRequest, Documents
from xrf_sr_plans.store.exports import comparisons, export_runs, write_verification
from xrf_sr_plans.store.jsonl import JsonlWriter

COARSE = small_grid(16, 20)
FINE = replace(
    COARSE.refined(2), slow=replace(COARSE.refined(2).slow, num=16)
)  # the lower half of the area


def flown() -> Iterator[Documents]:
    """Yield the runs of a survey with one rescan, as plans emit them."""
    y, x = np.mgrid[:32, :40]
    waves = 85 + 40 * np.sin(x / 2.1) * np.cos(y / 2.9) + 30 * np.sin(x / 5 + y / 7)
    scene = np.stack([waves, 2 * waves, 0.5 * waves])
    counts = scene.reshape(3, 16, 2, 20, 2).mean((2, 4)).round()
    yield list(map_run(COARSE, counts, "coarse-run", purpose="coarse", survey_uid="s"))
    measured = np.random.default_rng(1).poisson(scene[:, :16]).astype(float)
    fine = {"purpose": "fine", "parent_uid": "coarse-run", "survey_uid": "s"}
    request = AnalysisRequest(enhance=False)
    yield list(map_run(FINE, measured, "fine-run", analysis=request, **fine))
    metadata = {"schema": 1, "purpose": "outcomes", "survey_uid": "s", "tiles": ["coarse-run"]}
    start = {"uid": "outcomes", "time": 2.0e9, "plan_name": "xrf_survey_outcomes"}
    stop = {"uid": "stop", "run_start": "outcomes", "time": 2.0e9, "exit_status": "success"}
    yield [("start", {**start, "xrf_sr": metadata}), ("stop", stop)]


@pytest.fixture
def survey(bicubic_model) -> Documents:
    """The documents of the plans and of the analysis."""
    documents: Documents = []
    chain = AnalysisChain(None, emit=lambda name, doc: documents.append((name, as_lists(doc))))
    for run in flown():
        for name, doc in run:
            chain(name, doc)
        documents += run
    return documents


def test_each_run_of_a_survey_that_has_a_map_is_a_file(survey: Documents, tmp_path: Path) -> None:
    written = {path.name.partition("-")[0]: path for path in export_runs(survey, tmp_path)}
    assert set(written) == {"measured", "enhanced", "composite", "verification"}
    assert len(list(tmp_path.iterdir())) == 5  # two measured maps
    with h5py.File(written["composite"]) as file:
        image = file["entry/maps"][ELEMENTS[0]]
        assert image.shape == (32, 40)
        assert file["entry/composite/measured"][:].any()
    with h5py.File(written["verification"]) as file:
        table = file["entry"][file["entry"].attrs["default"]]
        assert table.attrs["signal"] == "coverage_90"
        assert [name.decode() for name in table["element"]] == list(ELEMENTS)
        assert {uid.decode() for uid in table["fine_uid"]} == {"fine-run"}
        expected = [row["coverage_90"] for row in comparisons(survey)]
        np.testing.assert_array_equal(table["coverage_90"][:], expected)
        assert table["psnr_enhanced_db"].attrs["units"] == "dB"
        assert b'"original_run_uid": "fine-run"' in file["entry/verification_run/data"][()]


@pytest.mark.parametrize(
    ("format_name", "suffix"), [("maps", ".maps.h5"), ("ome-tiff", ".ome.tif")]
)
def test_stored_runs_are_exported_at_the_prompt(
    format_name: str, suffix: str, survey: Documents, tmp_path: Path
) -> None:
    writer = JsonlWriter(tmp_path / "runs")
    for name, doc in survey:
        writer(name, doc)
    runs = [str(tmp_path / "runs" / f"{uid}.jsonl") for uid in ("coarse-run", "fine-run")]
    out = tmp_path / "maps"
    done = CliRunner().invoke(app, ["export", *runs, "--format", format_name, "--out", str(out)])
    assert done.exit_code == 0, done.output
    names = {"measured-coarse-r" + suffix, "measured-fine-run" + suffix}
    assert {path.name for path in out.iterdir()} == names
    assert set(done.output.split()) == {str(out / name) for name in names}


def test_a_file_without_a_map_is_refused(survey: Documents, tmp_path: Path) -> None:
    writer = JsonlWriter(tmp_path)
    for name, doc in [*flown()][-1]:
        writer(name, doc)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "outcomes.jsonl")])
    assert done.exit_code != 0
    assert "holds no run with a map" in str(done.exception)
    done = CliRunner().invoke(app, ["export", str(tmp_path / "outcomes.jsonl"), "--format", "png"])
    assert "format is 'png'; one of 'nexus', 'maps', 'pyxrf' or 'ome-tiff'" in str(done.exception)


def test_without_a_comparison_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AssemblyError, match="nothing was compared"):
        write_verification([], tmp_path / "verification.h5")
    assert not list(tmp_path.iterdir())
