"""A survey in a profile of IPython that calls `nslsii.configure_base`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from neighbours.company import fly_and_replay, typed


def main(folder: Path) -> None:
    """Make the profile that the page shows, and start IPython with it."""
    startup = folder / "profile" / "startup"
    startup.mkdir(parents=True)
    base, ours, _ = typed("nsls2", "check_nsls2.py")
    (startup / "00-base.py").write_text(base)
    (startup / "90-xrf-sr.py").write_text(ours)
    subprocess.run(
        [sys.executable, "-m", "IPython", "--profile-dir", str(folder / "profile"),
         "--no-banner", "--no-confirm-exit", "-c",
         "from neighbours.check_nsls2 import at_the_prompt; at_the_prompt(get_ipython().user_ns)"],
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython")}, check=True, cwd=folder,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (folder / "done").exists(), "IPython came to no end"


def at_the_prompt(names: dict) -> None:
    """Fly surveys with the names that the profile has left."""
    database, run_engine = names["db"], names["RE"]
    runs = fly_and_replay(run_engine, names["xrf_session"], lambda uid: database[uid])
    for start in runs.starts:
        assert "baseline" in runs.streams[start["uid"]], start["plan_name"]
    assert type(run_engine.waiting_hook).__name__ == "ProgressBarManager"
    page = typed("nsls2", "check_nsls2.py")[-1]
    exec(compile(page, "docs/how-to/nsls2.md", "exec"), names)  # noqa: S102 - our page
    names["xrf_session"].close()
    Path("done").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
