"""In place of the analysis process: enhance maps of ever new shapes and write what memory it took.

The resident memory, in MB, after `WARM` and after `MAPS` maps goes to the file in the first
argument.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path

WARM, MAPS = 20, 140
SMALLEST, SIDES = 6, 12


def resident_mb():
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in x)
    return int(line.split()[1]) / 1024


def main():
    import numpy as np

    from xrf_sr_plans.sr.predict import enhance

    rng = np.random.default_rng(0)
    use_mb = []
    for number in range(MAPS):
        shape = (1, SMALLEST + number // SIDES, SMALLEST + number % SIDES)
        enhance(rng.poisson(20, shape), elements=["Fe"], factor=2, step_um=1.0, device="cpu")
        if number + 1 in (WARM, MAPS):
            gc.collect()
            use_mb.append(resident_mb())
    Path(sys.argv[1]).write_text(json.dumps(use_mb))


if __name__ == "__main__":
    main()
