"""Surveys as items of a RE Manager, in its plain worker and in one with an IPython kernel."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fakeredis
from bluesky_queueserver_api.zmq import REManagerAPI

from neighbours.company import SURVEY, Runs, check_survey
from support.docs_pages import REPOSITORY
from support.queue_servers import PERMISSIONS, free_ports, wait_for_manager
from xrf_sr_plans.callbacks.replay import replay
from xrf_sr_plans.store.documents import documents

STORE = """from xrf_sr_plans.store.jsonl import JsonlWriter

RE.subscribe(JsonlWriter({folder!r}))
"""


def main(folder: Path) -> None:
    for kernel in ("OFF", "ON"):
        with manager(folder / kernel, kernel) as client:
            client.item_add(
                {"item_type": "plan", "name": "coarse_survey_with_sr", "kwargs": SURVEY}
            )
            client.queue_start()
            client.wait_for_idle(timeout=180)
            (item,) = client.history_get(reload=True)["items"]
            assert item["result"]["exit_status"] == "completed", item["result"]
            check_stored(folder / kernel / "runs", item["result"]["run_uids"], kernel)


def check_stored(store: Path, uids: list[str], kernel: str) -> None:
    """Check the runs that the manager has flown, and replay the coarse map."""
    runs, live = Runs(), []
    for uid in uids:
        for name, doc in documents(store / f"{uid}.jsonl"):
            runs(name, doc)
            if name == "event" and "analysis_result_uid" in doc["data"]:
                live.append((doc["data"]["analysis_status"], doc["data"]["analysis_result_uid"]))
    coarse, fine = check_survey(runs)
    first, second = (replay(store / f"{coarse}.jsonl") for _ in range(2))
    assert live == [("done", first.summary.result_uid)]
    assert first.digest == second.digest
    sys.stdout.write(
        f"survey: 1 coarse and {len(fine)} fine maps in {len(uids)} runs, IPython kernel"
        f" {kernel}; replayed with digest {first.digest[:12]}\n"
    )


@contextlib.contextmanager
def manager(folder: Path, kernel: str) -> Iterator[Any]:
    """Run a manager with the shipped profile, and open its environment."""
    # In an IPython kernel, the folder must be that of a profile.
    startup = folder / "profile_collection" / "startup"
    shutil.copytree(REPOSITORY / "profile_collection" / "startup", startup)
    (startup / "30-store.py").write_text(STORE.format(folder=str(folder / "runs")))
    (folder / "permissions.yaml").write_text(PERMISSIONS)
    redis_port, *ports = free_ports(3)
    redis = fakeredis.TcpFakeServer(("127.0.0.1", redis_port), server_type="redis")
    redis.daemon_threads, redis.block_on_close = True, False
    threading.Thread(target=redis.serve_forever, daemon=True).start()
    control, info = (f"tcp://127.0.0.1:{port}" for port in ports)
    log = folder / "manager.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("start-re-manager")),
             "--startup-dir", str(startup), "--keep-re", "--use-ipython-kernel", kernel,
             "--redis-addr", f"127.0.0.1:{redis_port}", "--redis-name-prefix", "xrf_sr_check",
             "--zmq-control-addr", control, "--zmq-info-addr", info,
             "--user-group-permissions", str(folder / "permissions.yaml"),
             "--existing-plans-devices", str(folder)],
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "XRF_SIM_CLOCK": "instant"},
        )  # fmt: skip
    client = REManagerAPI(zmq_control_addr=control, zmq_info_addr=info)
    try:
        wait_for_manager(client, process, log)
        client.environment_open()
        client.wait_for_idle(timeout=120)
        assert client.status(reload=True)["worker_environment_exists"]
        plans = client.plans_allowed(reload=True)["plans_allowed"]
        assert {"coarse_survey_with_sr", "rescan_regions", "xrf_map"} <= set(plans)
        yield client
    finally:
        client.close()
        # The manager's children (watchdog, worker) are in its session.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
        redis.shutdown()
        redis.server_close()
        sys.stdout.write(log.read_text(errors="replace"))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
