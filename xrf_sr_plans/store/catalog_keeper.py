"""The process that puts finished runs into an embedded catalog, as `CatalogProcess` starts it.

It reads the uid of a run from each line of its standard input, stores the run's file, and writes a
line of JSON with what became of it. At the end of its input, which comes when its session is over
or has died, it stores what it was asked for before and ends.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from xrf_sr_plans.errors import FileBusyError, XrfSrError, in_words
from xrf_sr_plans.store.embedded import EmbeddedCatalog, embedded
from xrf_sr_plans.store.run_file import left_alone
from xrf_sr_plans.store.tiled import reingest, stored_file
from xrf_sr_plans.store.tiled_maps import MapsWriter

logger = logging.getLogger(__name__)

CATCH_UP_S = 20.0
"""Longest time at the start in which runs are stored that earlier sessions left behind."""
_NICE = 10
"""How much lower in priority than the session."""
_TRIES = 5
_BUSY_S = 1.0
"""Pause before a file that another session is storing is looked at again."""


def serve(catalog: EmbeddedCatalog, backup: Path, asked: TextIO, answers: TextIO) -> None:
    """Store what earlier sessions left behind, then each run that is asked for."""
    maps = MapsWriter(catalog.maps)
    done = reingest(catalog.runs, backup, unfinished=True, within_s=CATCH_UP_S, beside=maps)
    # Sessions that are at work will see to the files that they are writing.
    stay = {name: why for name, why in done.failed.items() if name not in done.busy}
    _say(answers, {"open": True, "stored": len(done.stored), "stay": stay})
    for line in asked:
        uid = json.loads(line)
        _say(answers, {"run": uid, "error": _problem(catalog.runs, backup, uid, maps)})


def _say(answers: TextIO, what: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(what) + "\n")
        answers.flush()
    except BrokenPipeError:
        # The session is gone; its runs are stored all the same.
        logger.info("nobody hears of %s", what)


def _problem(runs: Any, backup: Path, uid: str, maps: MapsWriter) -> str:
    """Store the run in a file; return in words why it isn't in the catalog, or "" where it is."""
    path = backup / f"{uid}.jsonl"
    for left in reversed(range(_TRIES)):
        try:
            with left_alone(path):
                stored_file(runs, path, beside=maps)
                path.unlink()
        except FileNotFoundError:
            # Another session that was opening the catalog may have stored it just now.
            return "" if uid in runs else f"{path} is gone"
        except FileBusyError as error:
            if not left:
                return in_words(error)
            time.sleep(_BUSY_S)
        except Exception as error:
            # One bad run must not keep the others.
            logger.exception("%s is not stored", path)
            return in_words(error)
        else:
            return ""
    return ""


def main() -> None:
    """Serve the catalog in a folder, which is the first argument; the second is that of files."""
    folder, backup = sys.argv[1:]
    # The scan comes first, and nobody waits for the catalog.
    os.nice(_NICE)
    logging.basicConfig(level=logging.WARNING)
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        with embedded(folder) as catalog:
            serve(catalog, Path(backup), sys.stdin, answers)
    except (XrfSrError, OSError) as error:
        _say(answers, {"error": in_words(error)})
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
