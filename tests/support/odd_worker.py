"""The analysis process with a quick stand-in for the model, and something wrong on demand.

``python odd_worker.py MODE AT ONCE``: at document AT of a run (0: start) do MODE; if ONCE names a
folder, only the first time for each run. MODE "speechless" ends the process in the midst of what
it says: after its first message of the kind that the run's uid ends with, as in
"odd RunSummary"; AT more messages of any kind are said before.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

MODE, AT, ONCE = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def misbehave(run: str) -> None:
    mark = Path(ONCE, run) if ONCE else None
    if mark is not None:
        if mark.exists():
            return
        mark.touch()
    if MODE == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif MODE == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif MODE == "hang":
        time.sleep(1000)
    elif MODE == "raise":
        raise MemoryError("no memory for this document")
    elif MODE == "exit":
        sys.stderr.write("out of luck\n")
        os._exit(3)


def stand_in_model() -> None:
    from xrf_sr_plans.sr import predict
    from xrf_sr_plans.sr.bicubic import enhance_bicubic

    def enhance_maps(maps, factor, *, model=None, device=None):
        sys.stdout.write("a stray print of a library\n")
        with contextlib.suppress(OSError):
            os.write(1, b"and one from C\n")
        enhanced = enhance_bicubic(maps, factor, "")
        identity = {"name": "stand-in", "sha256": "ab" * 32, "calibration": "none"}
        return type(enhanced)(enhanced.dataset.assign_attrs(model=identity), enhanced.grid)

    predict.enhance_maps = enhance_maps


def odd_chain() -> None:
    from xrf_sr_plans.callbacks import chain

    begun: dict[str, int] = {}

    class OddChain(chain.AnalysisChain):
        def take(self, run, name, doc):
            number = begun[run] = begun.get(run, -1) + 1
            if number == AT and run.startswith("odd"):
                misbehave(run)
            super().take(run, name, doc)

    chain.AnalysisChain = OddChain


def speechless_worker() -> None:
    from xrf_sr_plans.callbacks.service import worker

    class Speechless(worker.Worker):
        left: int | None = None

        def _say(self, message):
            super()._say(message)
            kind = self._run.rpartition(" ")[2]
            if self.left is None and type(message).__name__ == kind:
                self.left = AT
            if self.left is not None and not (ONCE and Path(ONCE, self._run).exists()):
                self.left -= 1
                if self.left < 0:
                    if ONCE:
                        Path(ONCE, self._run).touch()
                    os.kill(os.getpid(), signal.SIGKILL)

    worker.Worker = Speechless


if __name__ == "__main__":
    if MODE == "never":
        sys.stderr.write("no such library\n")
        sys.exit(1)
    stand_in_model()
    if MODE == "speechless":
        speechless_worker()
    else:
        odd_chain()
    from xrf_sr_plans.callbacks.service.worker_entry import main

    main()
