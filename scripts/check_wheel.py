"""Check what a built wheel would install: one top-level name, every module, data, no strays.

Usage: ``python scripts/check_wheel.py dist/xrf_sr_plans-*.whl``
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

MAX_BYTES = 14_000_000


def problems(wheel: Path, root: Path) -> list[str]:
    """Return what is wrong with the wheel, compared with the source tree."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    found = [] if tops == {"xrf_sr_plans"} else [f"top-level names {sorted(tops)}"]
    sources = [(path, path.relative_to(root)) for path in (root / "xrf_sr_plans").rglob("*")]
    sources += [
        (path, Path("xrf_sr_plans") / path.relative_to(root))
        for path in (root / "callbacks").rglob("*")
    ]
    wanted = {".py", ".npz", ".json", ".safetensors", ".typed", ".toml"}
    wanted |= {".html", ".css", ".js"}
    found += [
        f"{target} is missing"
        for path, target in sources
        if path.suffix in wanted and target.as_posix() not in names
    ]
    if wheel.stat().st_size > MAX_BYTES:
        found.append(f"{wheel.stat().st_size} bytes; at most {MAX_BYTES}")
    return found


if __name__ == "__main__":
    wrong = problems(Path(sys.argv[1]), Path(__file__).resolve().parent.parent)
    print("\n".join(wrong) or f"{sys.argv[1]}: content as it should be")
    sys.exit(bool(wrong))
