"""`xrf-sr listen` with a quick stand-in for the model, so that it needs neither torch nor time."""

from __future__ import annotations

import sys
from pathlib import Path

from xrf_sr_plans.callbacks.service import worker_process
from xrf_sr_plans.cli import main

if __name__ == "__main__":
    worker = str(Path(__file__).with_name("odd_worker.py"))
    worker_process.COMMAND = [sys.executable, worker, "nothing", "0", ""]
    main()
