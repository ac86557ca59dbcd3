"""Which share of their targets surveys find, by their share of the time of a fine map."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np

FILE_NAME = "typical_shares.json"
"""Written by ``python benchmarks/beam_time.py --real FOLDER --write``."""


class TypicalShare(NamedTuple):
    """Mean share of the targets found, on two sets of samples that no training saw."""

    phantoms: float
    real_maps: float


def typical_share(factor: int, share_of_time: float) -> TypicalShare | None:
    """Return which share of the targets surveys have found in such a time.

    Parameters
    ----------
    factor
        Factor of the survey.
    share_of_time
        Time of survey and rescans as a share of the time for a fine map of everything. Beyond the
        largest that was measured, the share is that of the largest.

    Returns
    -------
    TypicalShare or None
        None for a factor, or a share of time, for which nothing was measured.
    """
    measured = _measured().get(str(factor))
    if measured is None or share_of_time < measured["time"][0]:
        return None
    return TypicalShare(
        *(
            float(np.interp(share_of_time, measured["time"], measured[name]))
            for name in TypicalShare._fields
        )
    )


@cache
def _measured() -> dict[str, dict[str, list[float]]]:
    return json.loads(files("xrf_sr_plans.rois").joinpath(FILE_NAME).read_text(encoding="utf-8"))
