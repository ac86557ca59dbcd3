"""Units and options as workers of a cluster, in other folders, need them."""

from __future__ import annotations

import os
from dataclasses import replace

from xrf_sr_plans.bulk.on_workers import model_there, run_there
from xrf_sr_plans.replays.options import ReplayOptions
from xrf_sr_plans.replays.units import Unit


def unit_there(unit: Unit) -> Unit:
    """Return a unit whose files and folders are named from the root; its key stays."""
    return replace(unit, runs=tuple(run_there(run) for run in unit.runs))


def options_there(options: ReplayOptions) -> ReplayOptions:
    """Return options whose files and folders are named from the root."""
    settings = options.settings
    results = settings.result_dir
    changed = {
        "model": model_there(settings.model),
        "result_dir": None if results is None else os.path.abspath(results),
    }
    return replace(
        options,
        settings=settings.model_copy(update=changed),
        known=options.known.there,
        pairs=None if options.pairs is None else os.path.abspath(options.pairs),
    )
