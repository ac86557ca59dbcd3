"""A model that is promoted comes into use between surveys, never within one."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from support.models import made_model
from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.chain import AnalysisChain
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.sr.model_versions import ModelVersions

GRID = small_grid(16, 20)
COUNTS = truth(GRID)


@pytest.fixture
def versions(tmp_path):
    (tmp_path / "models").mkdir()
    first, second = (
        made_model(tmp_path / "models", name=f"made-{number}", stir=0.001 * number)
        for number in range(2)
    )
    made = ModelVersions(tmp_path / "own")
    made.begin(first)
    made.add(second, {})
    return made


class Session:
    """An analysis whose result documents are kept."""

    def __init__(self, folder, scratch=None):
        self.documents = []
        self.chain = AnalysisChain(
            AnalysisSettings(model=f"registry:{folder}"),
            lambda name, doc: self.documents.append((name, doc)),
            scratch_dir=scratch,
        )

    def model_of(self, uid, survey_uid=None):
        for name, doc in map_run(GRID, COUNTS, uid, survey_uid=survey_uid):
            self.chain(name, doc)
        starts = [doc for name, doc in self.documents if name == "start"]
        (start,) = [doc for doc in starts if doc["original_run_uid"] == uid]
        assert start["fallback"] == ""
        return start["model"]["name"]


def test_a_survey_keeps_the_model_that_it_began_with(versions):
    session = Session(versions.folder)
    assert session.model_of("tile-1", "survey-1") == "made-0"
    assert session.model_of("alone-1") == "made-0"
    versions.promote("0002")
    assert session.model_of("tile-2", "survey-1") == "made-0"
    assert session.model_of("alone-2") == "made-1-0002"
    assert session.model_of("other-tile", "survey-2") == "made-1-0002"
    assert session.model_of("tile-3", "survey-1") == "made-0"
    versions.rollback()
    assert session.model_of("other-tile-2", "survey-2") == "made-1-0002"
    assert session.model_of("third-survey", "survey-3") == "made-0"


def test_a_process_that_takes_over_goes_on_with_the_model_of_the_survey(versions, tmp_path):
    scratch = str(tmp_path / "scratch")
    assert Session(versions.folder, scratch).model_of("tile-1", "survey-1") == "made-0"
    versions.promote("0002")
    after = Session(versions.folder, scratch)
    assert after.model_of("tile-2", "survey-1") == "made-0"
    assert after.model_of("tile-1b", "survey-2") == "made-1-0002"


def test_without_a_model_maps_are_bicubic_and_say_why(tmp_path):
    documents = []
    settings = AnalysisSettings(model=f"registry:{tmp_path / 'nothing'}")
    chain = AnalysisChain(settings, lambda name, doc: documents.append((name, doc)))
    for name, doc in map_run(GRID, COUNTS):
        chain(name, doc)
    assert "has no models" in documents[0][1]["fallback"]
