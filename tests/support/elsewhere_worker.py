"""`xrf-sr-worker` with a quick stand-in for the model, as it would be started on another host.

It logs which variables numpy found when it was loaded. The variable ``TEST_WORKER_VERSION`` stands
for another version of the package.
"""

from __future__ import annotations

import os
import sys

from xrf_sr_plans.callbacks.service import greeting, worker_entry

_log = worker_entry._log


def log_and_replace_the_model() -> None:
    loaded = "numpy" in sys.modules
    _log()
    import logging

    told = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "LRU_CACHE_CAPACITY")}
    logging.getLogger("elsewhere").info("numpy loaded: %s, variables %s", loaded, told)
    argv, sys.argv = sys.argv, ["odd_worker.py", "nothing", "0", ""]
    from support.odd_worker import stand_in_model

    sys.argv = argv
    stand_in_model()


if __name__ == "__main__":
    worker_entry._log = log_and_replace_the_model
    if version := os.environ.get("TEST_WORKER_VERSION"):
        greeting._installed = lambda name: version
    worker_entry.main_elsewhere()
