"""Which processes a machine contributes to a cluster, and on which GPU each is."""

import pytest

from xrf_sr_plans.cluster.processes import WorkerProcess, gpus_here, worker_processes
from xrf_sr_plans.errors import ConfigError


def test_each_pair_has_a_live_and_a_bulk_process_on_one_gpu() -> None:
    found = worker_processes(3, ["0", "1"], "gpu1")
    assert [(one.name, one.gpu) for one in found] == [
        ("gpu1-live-0", "0"),
        ("gpu1-bulk-0", "0"),
        ("gpu1-live-1", "1"),
        ("gpu1-bulk-1", "1"),
        ("gpu1-live-2", "0"),
        ("gpu1-bulk-2", "0"),
    ]
    assert found[2].environment == {"CUDA_VISIBLE_DEVICES": "1"}


def test_without_a_gpu_a_process_sees_none() -> None:
    assert WorkerProcess("w", "live", None).environment == {"CUDA_VISIBLE_DEVICES": ""}
    assert gpus_here("cpu") == []


@pytest.mark.parametrize(
    ("visible", "number", "found"),
    [("", 2, ["0", "1"]), ("3", 1, ["3"]), ("GPU-a, GPU-b", 2, ["GPU-a", "GPU-b"]), ("7", 0, [])],
)
def test_gpus_are_those_that_the_environment_leaves(
    visible: str, number: int, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    assert gpus_here("auto", {"CUDA_VISIBLE_DEVICES": visible}) == found


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="torch finds no GPU"):
        gpus_here("cuda")
