"""Make a RunEngine unless the session has one (queue server, BITS), and set up what it shows."""

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

# Show at the prompt what plans decide and why, such as regions found and rescanned, and whatever
# goes wrong, such as rows that failed and analyses that fell back to bicubic. The characters
# "\r" and "\x1b[K" wipe the line of progress.
_prompt_handler = logging.StreamHandler(sys.stdout)
_prompt_handler.setFormatter(logging.Formatter("\r%(message)s\x1b[K"))
logging.getLogger("xrf_sr_plans").addHandler(_prompt_handler)
logging.getLogger("xrf_sr_plans.plans").setLevel(logging.INFO)
logging.getLogger("xrf_sr_plans.session").setLevel(logging.INFO)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Drop the traceback of a refusal: where in the code it was refused helps nobody."""
    if record.exc_info and isinstance(record.exc_info[1], RefusedError):
        record.exc_info = None
    return True


def _show_refusal(shell, kind, error, traceback, tb_offset=None):
    """Show a refusal as one line, in place of IPython's traceback."""
    sys.stderr.write(f"{kind.__name__}: {error}\n")


RE.log.logger.addFilter(_without_traceback)
# The queue server runs this file too, with a stand-in for IPython that can't be told.
if "get_ipython" in globals() and hasattr(get_ipython(), "set_custom_exc"):
    get_ipython().set_custom_exc((RefusedError,), _show_refusal)
