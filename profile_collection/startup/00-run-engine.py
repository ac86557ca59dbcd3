"""The RunEngine: the profile's own, unless the session already has one (queue server, BITS)."""

import sys

from bluesky import RunEngine

from xrf_sr_plans.plans.timing import RowProgress

if "RE" not in globals():
    RE = RunEngine({})


def _show_progress(line: str) -> None:
    sys.stdout.write(f"\r{line}\x1b[K")
    sys.stdout.flush()


progress = RowProgress(show=_show_progress)
RE.subscribe(progress)
if RE.waiting_hook is None:
    RE.waiting_hook = progress.waiting_hook
