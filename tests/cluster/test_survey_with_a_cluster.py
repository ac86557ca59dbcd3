"""A survey flown by a RunEngine whose maps are enhanced on a cluster, encrypted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bluesky import RunEngine

from xrf_sr_plans.callbacks.digest import digest
from xrf_sr_plans.callbacks.replay import analyse
from xrf_sr_plans.callbacks.service.bicubic_fallback import whole_runs
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.session import start_session

pytest.importorskip("torch")
pytest.importorskip("distributed")
pytest.importorskip("cryptography")
from support.dask_clusters import DaskCluster
from xrf_sr_plans.cluster.connection import CA_FILE, CERTIFICATE_FILE, KEY_FILE
from xrf_sr_plans.cluster.keys import make_keys

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(240)]
SURVEY = {
    "width_um": 24,
    "height_um": 16,
    "step_um": 2,
    "dwell_ms": 10,
    "x_center_um": 0,
    "y_center_um": 0,
    "find": "Fe > p95",
    "max_regions": 2,
    "rescan": "propose",
    "analysis_timeout_s": 120.0,
}


def test_a_survey_is_as_without_a_cluster_and_its_maps_come_from_there(
    tmp_path: Path, one_thread: None
) -> None:
    make_keys(tmp_path / "keys", hosts=["127.0.0.1"], beamlines=["2idd"])
    host, own = tmp_path / "keys" / "127.0.0.1", tmp_path / "keys" / "2idd"
    names = {"--tls-ca-file": CA_FILE, "--tls-cert": CERTIFICATE_FILE, "--tls-key": KEY_FILE}
    tls = [part for option, name in names.items() for part in (option, str(host / name))]
    cluster = DaskCluster(tmp_path, tuple(tls))
    log = tmp_path / "analysis.log"
    settings = AnalysisSettings(
        dask=cluster.address, dask_keys=str(own), dask_timeout_s=60.0, log_file=str(log)
    )
    run_engine = RunEngine({}, call_returns_result=True)
    flown, results = [], []
    run_engine.subscribe(lambda name, doc: flown.append((name, doc)))
    try:
        cluster.start_worker("--resources", "xrf-sr-live=1")
        with start_session(
            run_engine,
            make_beamline(),
            settings=settings,
            result_sinks=[lambda name, doc: results.append((name, doc))],
        ) as session:
            outcome = run_engine(session.plans["coarse_survey_with_sr"](**SURVEY)).plan_result
            assert session.link.flush(60)
    finally:
        cluster.close()
    assert [one.status for one in outcome.analyses] == ["done"]
    assert [one.reason for one in outcome.analyses] == [""]
    assert "enhanced on the cluster" in log.read_text()
    made = analyse(flown, AnalysisSettings())
    assert digest(whole_runs(results)[0]) == made.summaries[0].digest


def test_a_session_with_a_cluster_that_is_not_encrypted_is_refused_before_it_starts() -> None:
    settings = AnalysisSettings(dask="tcp://gpu.example.org:8786")
    with pytest.raises(ValueError, match="only tls://host:port is encrypted"):
        start_session(RunEngine({}), make_beamline(), settings=settings)


def test_a_process_that_has_asked_a_cluster_ends_at_once(tmp_path: Path) -> None:
    cluster = DaskCluster(tmp_path)
    code = (
        "import sys\n"
        "from xrf_sr_plans.cluster.connection import ClusterAddress\n"
        "from xrf_sr_plans.cluster.remote_enhancing import enhancing_on\n"
        "from xrf_sr_plans.errors import ClusterError\n"
        "from xrf_sr_plans.maps.elemental import ElementalMaps\n"
        "from xrf_sr_plans.maps.grid import ScanGrid\n"
        "from xrf_sr_plans.sr.registry import model_path\n"
        "import numpy as np\n"
        "grid = ScanGrid.from_start_stop(0, 7, 8, 0, 7, 8)\n"
        "maps = ElementalMaps.from_arrays(np.ones((1, 8, 8)), grid, ['Fe'])\n"
        "there = enhancing_on(ClusterAddress(sys.argv[1]), 'live', 1, 5.0)\n"
        "try:\n"
        "    there(maps, 2, model_path(None))\n"
        "except ClusterError as error:\n"
        "    print(error)\n"
    )
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, cluster.address],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    finally:
        cluster.close()
    assert "no answer of the cluster within 5 s, which has no workers" in ended.stdout
