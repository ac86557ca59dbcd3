"""What crosses to a cluster and back, what a worker keeps, and one map on a device at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from xrf_sr_plans.callbacks.super_resolution import half_the_patience_s
from xrf_sr_plans.cluster import device_lock
from xrf_sr_plans.cluster.check_workers import VERSIONS
from xrf_sr_plans.cluster.cluster_connection import ClusterConnection, fitting
from xrf_sr_plans.cluster.connection import ClusterAddress, connect, inside_a_task
from xrf_sr_plans.cluster.device_lock import device_of_worker, one_map_at_a_time
from xrf_sr_plans.cluster.model_delivery import MOST_MODELS, ModelFiles, ModelFolder
from xrf_sr_plans.cluster.packed_maps import maps_of_plain, plain_of_maps
from xrf_sr_plans.cluster.task import enhance_packed, request_of
from xrf_sr_plans.cluster.versions import versions_here
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.errors import ClusterError, ConfigError, ModelError
from xrf_sr_plans.evaluation.own_map import evaluate_file
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.packing import pack, unpack
from xrf_sr_plans.sr.bicubic import enhance_bicubic
from xrf_sr_plans.sr.model_files import LARGEST_FILE
from xrf_sr_plans.sr.registry import model_path

HOLDS = """
import sys, time
from xrf_sr_plans.cluster.device_lock import one_map_at_a_time
with one_map_at_a_time(sys.argv[1], "bulk", 5.0):
    print("held", flush=True)
    time.sleep(60)
"""


def measured() -> ElementalMaps:
    counts = np.random.default_rng(3).poisson(9.0, (2, 6, 8)).astype(float)
    counts[:, 2, 3:5] = np.nan
    return ElementalMaps.from_arrays(
        counts,
        ScanGrid.from_start_stop(0.1, 2.2, 8, 5, 4, 6),
        ["Fe", "Zn"],
        i0=np.full((6, 8), 1e5 / 3),
        step_um=0.3,
        dwell_ms=None,
        probe_fwhm_um=0.25,
        sampling="fly",
        source_uid="a-run",
        notes=["odd", "é"],
    )


def test_maps_cross_with_their_gaps_types_and_attributes() -> None:
    for maps in (measured(), enhance_bicubic(measured(), 2, "")):
        back = maps_of_plain(unpack(pack(plain_of_maps(maps))), type(maps))
        assert back.grid == maps.grid
        assert back.dataset.identical(maps.dataset)
        for name in maps.dataset.variables:
            assert back.dataset[name].dtype == maps.dataset[name].dtype
    back.dataset["estimate"].values[:] = 0.0  # can be written to


@pytest.mark.parametrize("damage", [{}, {"grid": 3}, {"fields": {"counts": [["y"], [1, 2], {}]}}])
def test_what_are_no_maps_is_told(damage: dict) -> None:
    plain = {**plain_of_maps(measured()), **damage} if damage else {}
    with pytest.raises(ClusterError, match="no maps"):
        maps_of_plain(plain, EnhancedMaps)


def test_a_worker_keeps_the_models_used_last_and_checks_what_it_is_sent(tmp_path: Path) -> None:
    folder = ModelFolder(tmp_path / "models")
    first = ModelFiles({".safetensors": b"0", ".json": b"{}", ".calibration.json": b"{}"})
    assert folder.find(first.checksum) is None
    kept = folder.add(first.checksum, first.contents)
    assert kept.read_bytes() == b"0"
    for number in range(1, MOST_MODELS + 1):
        other = ModelFiles({**first.contents, ".safetensors": b"%d" % number})
        time.sleep(0.01)
        folder.add(other.checksum, other.contents)
        assert folder.find(first.checksum) == kept  # and so is used last
    assert len(list((tmp_path / "models").iterdir())) == MOST_MODELS
    with pytest.raises(ModelError, match="not those of the checksum"):
        folder.add(first.checksum, {**first.contents, ".json": b"[]"})
    with pytest.raises(ModelError, match="not those of the checksum"):
        folder.add(first.checksum, {**first.contents, "/../../odd": b""})


def test_a_shipped_model_is_not_sent(tmp_path: Path) -> None:
    weights = model_path(None)
    assert ModelFolder(tmp_path / "none").find(ModelFiles.of(weights).checksum) == weights
    assert sum(map(len, ModelFiles.of(weights).contents.values())) < LARGEST_FILE


def test_a_worker_says_in_words_what_it_can_not_do() -> None:
    pytest.importorskip("torch")
    told = {"lane": "live", "threads": 1, "within_s": 5.0}
    assert unpack(enhance_packed(request_of(measured(), 2, "0" * 64, **told))) == {
        "state": "needed"
    }
    checksum = ModelFiles.of(model_path(None)).checksum
    odd = unpack(enhance_packed(request_of(measured(), 3, checksum, **told)))
    assert odd["state"] == "failed"
    assert "factor" in odd["why"]


def test_a_worker_without_torch_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    checksum = ModelFiles.of(model_path(None)).checksum
    request = request_of(measured(), 2, checksum, lane="live", threads=1, within_s=5.0)
    monkeypatch.setitem(sys.modules, "torch", None)
    reply = unpack(enhance_packed(request))
    assert reply["state"] == "refused"
    assert "needs the extra 'sr'" in reply["why"]


def test_workers_of_other_versions_are_left_out_while_a_cluster_is_upgraded() -> None:
    same, other = {VERSIONS: versions_here()}, {VERSIONS: {"numpy": "0.1"}}
    assert fitting({"a": same, "b": {}}) == {}
    assert fitting({"a": same, "b": other, "c": {}}) == {"workers": ["a", "c"]}
    assert fitting({}) == {}
    with pytest.raises(ClusterError, match=r"differ: numpy .* here and 0\.1 there"):
        fitting({"b": other})


def test_results_come_by_the_scheduler_where_one_worker_can_not_be_reached() -> None:
    connection = ClusterConnection(ClusterAddress("tcp://localhost:8786"), "live")
    with socket.socket() as listening, socket.socket() as closed:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        closed.bind(("127.0.0.2", 0))
        reached = f"tls://127.0.0.1:{listening.getsockname()[1]}"
        unreached = f"tls://127.0.0.2:{closed.getsockname()[1]}"
        assert connection.reaches([reached])
        assert connection.reaches([reached, "tls://127.0.0.1:1"])  # the same host
        assert not connection.reaches([reached, unreached])
        assert not connection.reaches([reached])


def test_a_cluster_that_is_gone_for_days_takes_one_thread() -> None:
    pytest.importorskip("distributed")
    before = [thread.name for thread in threading.enumerate()].count("IO loop")
    for _ in range(3):
        with pytest.raises(ConfigError, match="no Dask scheduler at"):
            connect(ClusterAddress("tcp://127.0.0.1:1"), timeout_s=0.2)
    names = [thread.name for thread in threading.enumerate()]
    assert names.count("IO loop") <= 1 + before


@pytest.mark.timeout(30)
def test_what_takes_a_connection_and_says_nothing_is_told_in_time_and_let_go() -> None:
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(
                ConfigError, match=r"no Dask scheduler at .*: nothing is said there"
            ):
                connect(ClusterAddress(address), timeout_s=0.3)
            accepted, _ = silent.accept()
            with accepted:
                accepted.settimeout(10.0)
                while accepted.recv(65_536):
                    """What a client says; then it has hung up."""
        assert threading.active_count() <= 1 + before


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "first_words", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", bytes(64)]
)
def test_a_port_of_something_else_is_told(first_words: bytes) -> None:
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            accepted, _ = other.accept()
            accepted.sendall(first_words)
            accepted.recv(1)
            accepted.close()

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"no Dask scheduler at .*: what answers there is"):
            connect(ClusterAddress(address), timeout_s=5.0)
        thread.join(10.0)


def test_a_package_that_another_thread_is_importing_makes_no_task_of_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", ModuleType("distributed"))
    assert not inside_a_task()


def test_a_device_has_one_map_at_a_time_of_all_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "maps.npz"
    maps = np.random.default_rng(1).poisson(40.0, (1, 40, 44)).astype(float)
    np.savez(file, maps=maps, elements=["Fe"], pixel_size_um=1.0)
    device = f"test-{tmp_path.name}"
    other = subprocess.Popen([sys.executable, "-c", HOLDS, device], stdout=subprocess.PIPE)
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with (
            pytest.raises(ClusterError, match="was not free for"),
            one_map_at_a_time(device, "live", 0.1),
        ):
            pass
        with monkeypatch.context() as patched, device_of_worker("bulk"):
            # Nothing is held outside a task, and what a task does in bulk waits like any other.
            patched.setattr(device_lock, "inside_a_task", lambda: True)
            patched.setattr(device_lock, "device_name", lambda: device)
            patched.setattr(device_lock, "_WAIT_S", 0.1)
            with pytest.raises(ClusterError, match="was not free for"):
                evaluate_file(file, factor=2, counts=50.0, methods=["xrf-sr"])
        other.kill()
        with one_map_at_a_time(device, "live", 30.0):
            pass
    finally:
        other.kill()
        other.wait(30)
        other.stdout.close()


def test_the_cluster_is_waited_for_half_as_long_as_the_survey_waits() -> None:
    assert half_the_patience_s({"xrf_sr": {"user_input": {"analysis_timeout_s": 20}}}) == 10
    for odd in ({}, {"xrf_sr": 3}, {"xrf_sr": {"user_input": {"analysis_timeout_s": "long"}}}):
        assert half_the_patience_s(odd) is None


def test_a_wait_in_which_the_process_is_taken_to_hang_is_refused() -> None:
    with pytest.raises(ValueError, match="dask_timeout_s is 30; at most half of hang_timeout_s"):
        AnalysisSettings(dask="tcp://localhost:8786", hang_timeout_s=20.0)
    AnalysisSettings(hang_timeout_s=20.0)
