"""A result run is an ordinary Bluesky run: Tiled and databroker store it and give it back."""

from __future__ import annotations

import numpy as np
import pytest

from support.row_documents import map_run, small_grid, truth
from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.maps.result import enhanced_from_documents
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


def test_databroker_gives_the_documents_back(bicubic_model):
    databroker = pytest.importorskip("databroker")
    result = replay(map_run(GRID, COUNTS))
    catalog = databroker.temp()
    insert = catalog.v1.insert
    for name, doc in result.documents:
        insert(name, doc)
    back = list(documents(catalog[result.summary.result_uid]))
    assert digest(back) == result.digest
