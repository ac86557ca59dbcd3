"""The RunEngine: the profile's own, unless the session already has one (queue server, BITS)."""

import logging
import sys

from bluesky import RunEngine

from xrf_sr_plans.errors import RefusedError
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

# What a plan decides and why, as it happens, and what went wrong anywhere: regions found and
# rescanned, rows that failed, analyses that fell back to bicubic. "\r" and "\x1b[K" wipe the
# line of progress.
_news = logging.StreamHandler(sys.stdout)
_news.setFormatter(logging.Formatter("\r%(message)s\x1b[K"))
logging.getLogger("xrf_sr_plans").addHandler(_news)
logging.getLogger("xrf_sr_plans.plans").setLevel(logging.INFO)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Let a refusal be one line: where in the code it was refused helps nobody at the prompt."""
    if record.exc_info and isinstance(record.exc_info[1], RefusedError):
        record.exc_info = None
    return True


def _show_refusal(shell, kind, error, traceback, tb_offset=None):
    sys.stderr.write(f"{kind.__name__}: {error}\n")


RE.log.logger.addFilter(_without_traceback)
if "get_ipython" in globals():
    get_ipython().set_custom_exc((RefusedError,), _show_refusal)
