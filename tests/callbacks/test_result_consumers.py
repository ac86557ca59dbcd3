"""A result run is an ordinary Bluesky run: Tiled and databroker store it and give it back."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.result import enhanced_from_documents
from xrf_sr_plans.review.growing import GrowingSurvey
from xrf_sr_plans.store.documents import documents

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]

GRID = small_grid(12, 16)
COUNTS = truth(GRID)


def test_tiled_gives_the_maps_back_from_documents_and_from_files(
    bicubic_model, tmp_path, monkeypatch
):
    pytest.importorskip("tiled.server.app")
    writing = pytest.importorskip("bluesky_tiled_plugins")
    from xrf_sr_plans.store.tiled import embedded_catalog

    monkeypatch.setattr("xrf_sr_plans.callbacks.hdf5_assets.MAX_IN_DOCUMENT", 100)
    settings = AnalysisSettings(result_dir=str(tmp_path / "data" / "results"))
    inside = replay(map_run(GRID, COUNTS, "inside"))
    outside = replay(map_run(GRID, COUNTS, "outside"), settings=settings)
    assert any(name == "stream_resource" for name, _ in outside.documents)
    plain = enhanced_from_documents(inside.documents)
    with embedded_catalog(tmp_path) as client:
        for source, result in (("inside", inside), ("outside", outside)):
            writer = writing.TiledWriter(client, batch_size=1000, max_array_size=0)
            for name, doc in result.documents:
                writer(name, doc)
            stored = client[result.summary.result_uid]
            assert stored.start["original_run_uid"] == source
            for name in ("estimate", "trusted"):
                found = np.asarray(stored["enhanced"][name].read())
                np.testing.assert_array_equal(found, plain.dataset[name].values)
            assert list(stored["enhanced"]["element"].read()) == ["Fe", "Zn", "Ca"]
            scores = [float(score) for score in stored["regions"]["score"].read()]
            assert scores == [region.score for region in result.summary.regions]


def outside(folder, monkeypatch):
    """Return the documents of a result whose maps lie in a file, and those of the same inside."""
    monkeypatch.setattr("xrf_sr_plans.callbacks.hdf5_assets.MAX_IN_DOCUMENT", 100)
    settings = AnalysisSettings(result_dir=str(folder / "results"))
    documents = replay(map_run(GRID, COUNTS, "run"), settings=settings).documents
    assert any(name == "stream_resource" for name, _ in documents)
    return documents, replay(map_run(GRID, COUNTS, "run")).documents


def test_maps_in_a_file_are_read_where_results_are(bicubic_model, tmp_path, monkeypatch):
    documents, inside = outside(tmp_path, monkeypatch)
    found, plain = enhanced_from_documents(documents), enhanced_from_documents(inside)
    assert found.dataset.identical(plain.dataset)
    survey = GrowingSurvey()
    survey.take([*map_run(GRID, COUNTS, "run"), *documents])
    assert list(survey.record.enhanced) == ["run"]


def test_no_other_file_is_read_than_that_of_the_run(bicubic_model, tmp_path, monkeypatch):
    documents, _ = outside(tmp_path, monkeypatch)
    (file,) = (tmp_path / "results").iterdir()

    def named(path):
        return [
            (name, {**doc, "uri": f"file://localhost{path}"} if name == "stream_resource" else doc)
            for name, doc in documents
        ]

    other = tmp_path / "other.h5"
    other.write_bytes(file.read_bytes())
    with pytest.raises(AssemblyError, match=r"\.h5 is read"):
        enhanced_from_documents(named(other))
    monkeypatch.setenv("XRF_SR_READ_ROOTS", str(tmp_path / "elsewhere"))
    with pytest.raises(AssemblyError, match="XRF_SR_READ_ROOTS"):
        enhanced_from_documents(documents)
    monkeypatch.delenv("XRF_SR_READ_ROOTS")
    with h5py.File(file, "a") as opened:
        del opened["estimate"]
        opened["estimate"] = h5py.ExternalLink(str(other), "estimate")
    with pytest.raises(AssemblyError, match="link to elsewhere"):
        enhanced_from_documents(documents)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(AssemblyError, match=file.name):
        enhanced_from_documents(documents)
    file.unlink()
    with pytest.raises(AssemblyError, match=file.name):
        enhanced_from_documents(documents)


def test_databroker_gives_the_documents_back(bicubic_model):
    databroker = pytest.importorskip("databroker")
    result = replay(map_run(GRID, COUNTS))
    catalog = databroker.temp()
    insert = catalog.v1.insert
    for name, doc in result.documents:
        insert(name, doc)
    back = list(documents(catalog[result.summary.result_uid]))
    assert digest(back) == result.digest
