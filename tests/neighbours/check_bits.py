"""A survey in an instrument made by `bits-create`, with SPEC and NeXus files and a baseline."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from types import SimpleNamespace

from neighbours.company import fly_and_replay, typed


def main(folder: Path) -> None:
    (folder / "scripts").mkdir(parents=True)
    os.chdir(folder)
    subprocess.run([Path(sys.executable).with_name("bits-create"), "instr"], check=True)
    instrument = folder / "src" / "instr"
    config = instrument / "configs" / "iconfig.yml"
    off = "NEXUS_DATA_FILES:\n    ENABLE: false"
    assert off in config.read_text()
    config.write_text(config.read_text().replace(off, off.replace("false", "true")))
    appended, at_the_prompt = typed("bits", "check_bits.py")
    startup = instrument / "startup.py"
    startup.write_text(f"{startup.read_text()}\n\n{appended}")
    sys.path.insert(0, str(folder / "src"))
    failed_writers = note_failed_threads()
    names = vars(importlib.import_module("instr.startup"))
    catalog = names["cat"]
    # apstools' writers log each event page, which is what every flyer's rows are, and drop it.
    runs = fly_and_replay(
        names["RE"], names["xrf_session"], lambda uid: catalog[uid], but="event_page"
    )
    for start in runs.starts:
        assert "baseline" in runs.streams[start["uid"]], start["plan_name"]
    spec = names["specwriter"].spec_filename.read_text()
    for start in runs.starts:
        assert ("primary" in runs.streams[start["uid"]]) == (start["uid"] in spec)
    exec(compile(at_the_prompt, "docs/how-to/bits.md", "exec"), names)  # noqa: S102 - our page
    names["nxwriter"].wait_writer()
    names["xrf_session"].close()
    # Its thread writes one run while the next one clears what it writes from, in any plan whose
    # runs follow each other at once. It costs the file and nothing else.
    assert all("nexus_writer" in one for one in failed_writers), failed_writers
    sys.stdout.write(f"NeXus files that NXWriter could not write: {len(failed_writers)}\n")


def note_failed_threads() -> list[str]:
    """Return a list that the tracebacks of threads that fail go to."""
    failed: list[str] = []

    def note(failure: threading.ExceptHookArgs | SimpleNamespace) -> None:
        failed.append("".join(traceback.format_tb(failure.exc_traceback)))

    threading.excepthook = note
    return failed


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
