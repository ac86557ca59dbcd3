"""Runs of other programs as row documents, so that the analysis can read them too.

`adapted` is a generator from documents to documents: ``replay(adapted(documents(run)))`` enhances
a run that knows nothing of this package, if one of the `RUN_KINDS` recognises it.
"""

from xrf_sr_plans.maps.adapters.adapted import (
    OURS,
    RUN_KINDS,
    RunKind,
    adapt_grid_scan,
    adapt_row_events,
    adapted,
    is_ours,
    read_run,
    run_kind,
)
from xrf_sr_plans.maps.adapters.adapted_map import AdaptedMap
from xrf_sr_plans.maps.adapters.assets import Assets
from xrf_sr_plans.maps.adapters.options import RunOptions

__all__ = [
    "OURS",
    "RUN_KINDS",
    "AdaptedMap",
    "Assets",
    "RunKind",
    "RunOptions",
    "adapt_grid_scan",
    "adapt_row_events",
    "adapted",
    "is_ours",
    "read_run",
    "run_kind",
]
