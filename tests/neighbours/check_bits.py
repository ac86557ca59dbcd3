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
from typing import Any

import h5py
import numpy as np

from neighbours.company import Runs, fly_and_replay, typed
from xrf_sr_plans.maps.assemble import MapBuilder
from xrf_sr_plans.store.documents import documents


def main(folder: Path) -> None:
    (folder / "scripts").mkdir(parents=True)
    os.chdir(folder)
    subprocess.run([Path(sys.executable).with_name("bits-create"), "instr"], check=True)
    instrument = folder / "src" / "instr"
    config = instrument / "configs" / "iconfig.yml"
    off = "NEXUS_DATA_FILES:\n    ENABLE: false"
    assert off in config.read_text()
    config.write_text(config.read_text().replace(off, off.replace("false", "true")))
    appended, at_the_prompt, nexus, spec, reading = typed("bits", "check_bits.py")
    for name, block in (("nexus", nexus), ("spec", spec)):
        replace_line(instrument / "callbacks" / f"demo_{name}_callback.py", block)
    startup = instrument / "startup.py"
    startup.write_text(f"{startup.read_text()}\n\n{appended}")
    sys.path.insert(0, str(folder / "src"))
    failed_threads = note_failed_threads()
    names = vars(importlib.import_module("instr.startup"))
    catalog = names["cat"]
    runs = fly_and_replay(names["RE"], names["xrf_session"], lambda uid: catalog[uid])
    for start in runs.starts:
        assert "baseline" in runs.streams[start["uid"]], start["plan_name"]
    names["nxwriter"].wait_writer()
    check_nexus_files(runs, names, reading)
    check_spec_file(runs, names["specwriter"].file_name.read_text())
    exec(compile(at_the_prompt, "docs/how-to/bits.md", "exec"), names)  # noqa: S102 - our page
    names["nxwriter"].wait_writer()
    names["xrf_session"].close()
    assert not failed_threads, failed_threads


def replace_line(module: Path, block: str) -> None:
    """Put a block of the page in the place of the line that subscribes a writer."""
    imported, subscribed = block.strip().split("\n\n")
    before = subscribed.replace("OneEventAtATime(", "").replace("ScanRows(", "")[:-1]
    text = module.read_text()
    assert text.count(before) == 1, f"{module}: {before}"
    text = text.replace("import logging\n", f"import logging\n\n{imported}\n", 1)
    module.write_text(text.replace(before, subscribed))


def check_nexus_files(runs: Runs, names: dict[str, Any], reading: str) -> None:
    """Check that there is a file of every run, and that the files of maps hold all rows."""
    files = {file.stem.split("-")[-1]: file for file in Path.cwd().glob("*.hdf")}
    assert set(files) == {start["uid"][:7] for start in runs.starts}
    for start in runs.starts:
        if start["plan_name"] != "xrf_fly_map":
            continue
        stored = [
            doc["data"]
            for name, doc in documents(names["cat"][start["uid"]])
            if name == "event" and "xrf_row" in doc["data"]
        ]
        with h5py.File(files[start["uid"][:7]]) as file:
            rows = file["entry/instrument/bluesky/streams/primary"]
            for key in stored[0]:
                expected = np.array([data[key] for data in stored])
                np.testing.assert_array_equal(rows[f"{key}/value"][()], expected)
        typed_names = {"nxwriter": SimpleNamespace(output_nexus_file=files[start["uid"][:7]])}
        exec(compile(reading, "docs/how-to/bits.md", "exec"), typed_names)  # noqa: S102 - our page
        again = assembled(names["cat"][start["uid"]])
        np.testing.assert_array_equal(typed_names["potassium"], again.sel(element="K"))


def assembled(run: Any) -> Any:
    """Return the counts of a stored map as this package assembles them."""
    builder: MapBuilder | None = None
    for name, doc in documents(run):
        if name == "start":
            builder = MapBuilder(doc)
        elif builder is not None and name in ("descriptor", "event"):
            getattr(builder, name)(doc)
    assert builder is not None
    return builder.maps().counts


def check_spec_file(runs: Runs, text: str) -> None:
    """Check that each map is a scan with its rows, and that no other run is said to be one."""
    scans = text.split("\n#S ")[1:]
    maps = [start for start in runs.starts if start["plan_name"] == "xrf_fly_map"]
    assert len(scans) == len(maps)
    for start, scan in zip(maps, scans, strict=True):
        assert start["uid"] in scan
        lines = scan.splitlines()
        labels = next(line for line in lines if line.startswith("#L "))[3:].split("  ")
        table = [line.split() for line in lines[1:] if line and not line.startswith("#")]
        rows = [int(line[labels.index("xrf_row")]) for line in table]
        assert rows == list(range(start["xrf_sr"]["grid"]["slow"]["num"])), rows
        assert "xrf_counts" not in labels
        assert "num_events_regions" not in scan


def note_failed_threads() -> list[str]:
    """Return a list that the tracebacks of threads that fail go to."""
    failed: list[str] = []

    def note(failure: threading.ExceptHookArgs | SimpleNamespace) -> None:
        failed.append("".join(traceback.format_tb(failure.exc_traceback)))

    threading.excepthook = note
    return failed


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
