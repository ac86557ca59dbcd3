"""Catalogs that the workers of an encrypted cluster open for themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine

from support.stored_runs import Document
from xrf_sr_plans.cluster.connection import CA_FILE, CERTIFICATE_FILE, KEY_FILE, ClusterAddress
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.evaluation.many_maps import EvaluationOptions, evaluate_all
from xrf_sr_plans.plans.xrf_map import xrf_map
from xrf_sr_plans.replays.batch import replay_all
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.store.embedded import embedded_catalog
from xrf_sr_plans.store.tiled import tiled_writer

pytest.importorskip("distributed")
pytest.importorskip("cryptography")
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def flown(number: int) -> list[list[Document]]:
    """Fly maps that are large enough to be evaluated; return the documents of each."""
    beamline, engine = make_beamline("zagami", clock="instant"), RunEngine({})
    runs: list[list[Document]] = []
    for _ in range(number):
        runs.append([])
        token = engine.subscribe(lambda name, doc: runs[-1].append((name, doc)))
        engine(xrf_map(beamline, width_um=28, height_um=24, step_um=1, dwell_ms=20))
        engine.unsubscribe(token)
    return runs


def write(catalog: Any, runs: list[list[Document]]) -> None:
    writer = tiled_writer(catalog)
    for run in runs:
        for name, doc in run:
            writer(name, doc)


def test_each_way_to_name_a_catalog_gives_the_same_on_a_cluster_as_here(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.dask_clusters import DaskCluster
    from xrf_sr_plans.cluster.keys import make_keys

    _, client = server
    address = str(client.context.api_uri).removesuffix("/api/v1/")
    runs = flown(2)
    write(client, runs)
    with embedded_catalog(tmp_path / "kept") as kept:
        write(kept, runs)
    # Profiles and the key are found by the environment, which workers share with who asks.
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "lab.yml").write_text(f"lab:\n  uri: {address}\n")
    monkeypatch.setenv("TILED_PROFILES", str(profiles))
    monkeypatch.setenv("TILED_API_KEY", "secret")
    make_keys(tmp_path / "keys", hosts=["127.0.0.1"], beamlines=["2idd"])
    host = tmp_path / "keys" / "127.0.0.1"
    names = {"--tls-ca-file": CA_FILE, "--tls-cert": CERTIFICATE_FILE, "--tls-key": KEY_FILE}
    tls = [part for option, name in names.items() for part in (option, str(host / name))]
    (tmp_path / "cluster").mkdir()
    cluster = DaskCluster(tmp_path / "cluster", tuple(tls))
    sources = [address, "tiled:lab", "databroker:lab", str(tmp_path / "kept")]
    asked = ReplayOptions(AnalysisSettings(), factor=2, pictures=False)
    judged = EvaluationOptions(counts=100.0, methods=("bilinear", "xrf-sr"))
    monkeypatch.chdir(tmp_path)
    try:
        cluster.start_worker()
        where = ClusterAddress(cluster.address, str(tmp_path / "keys" / "2idd"))
        there = {one: replay_all([one], options=asked, dask=where) for one in sources}
        tables = evaluate_all(["tiled:lab"], options=judged, dask=where)
        with pytest.raises(ConfigError, match="can't use this client"):
            replay_all([client], options=asked, dask=where)
    finally:
        cluster.close()
    here = replay_all([address], options=asked).digests
    assert here.keys() == {run[0][1]["uid"] for run in runs}
    for source, report in there.items():
        assert not report.failures, source
        assert report.digests == here, source
    assert not tables.failures
    assert len(tables.figures) == len(runs)
