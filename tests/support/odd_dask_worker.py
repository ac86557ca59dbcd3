"""Preload of Dask workers: wait before a map is enhanced where a test asks for it.

A file ``slow`` in the test's folder is renamed to ``waits`` by the worker that finds it, which
then waits for a minute. So exactly one map waits, and the test knows when.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from xrf_sr_plans.sr import predict

FOLDER = Path(os.environ["XRF_SR_TEST_FOLDER"])
# Dask loads preloads more than once.
_enhance_maps = getattr(predict.enhance_maps, "replaced", predict.enhance_maps)


def enhance_maps(*arguments: Any, **how: Any) -> Any:
    with suppress(FileNotFoundError):
        (FOLDER / "slow").rename(FOLDER / "waits")
        time.sleep(60)
    return _enhance_maps(*arguments, **how)


enhance_maps.replaced = _enhance_maps  # type: ignore[attr-defined]
predict.enhance_maps = enhance_maps
