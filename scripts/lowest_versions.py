"""Print the lowest versions that pyproject.toml allows, as a constraints file for pip.

Usage: ``python scripts/lowest_versions.py [EXTRA ...]``

Every requirement of the project and of the extras named is pinned to its lower bound. Torch is
pinned to the version of constraints.txt: older builds aren't to be had for every machine.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<extras>[\w, -]+)\])?(?P<specifier>.*)")
LOWER_BOUND = re.compile(r">=\s*([\w.]+)")


def lowest_versions(extras: list[str]) -> dict[str, str]:
    """Return the lower bound of each direct requirement, and torch as it is tested.

    Raises
    ------
    SystemExit
        A requirement has no lower bound, or there is no such extra.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    bounds: dict[str, str] = {}
    waiting, seen = list(extras), set[str]()
    requirements = list(project["dependencies"])
    while waiting:
        extra = waiting.pop()
        if extra not in optional:
            raise SystemExit(f"no extra {extra!r}; there are {sorted(optional)}")
        if extra not in seen:
            seen.add(extra)
            requirements += optional[extra]
            waiting += [
                name
                for requirement in optional[extra]
                if requirement.startswith(f"{project['name']}[")
                for name in REQUIREMENT.match(requirement)["extras"].replace(" ", "").split(",")
            ]
    for requirement in requirements:
        match = REQUIREMENT.match(requirement)
        if match["name"] == project["name"]:
            continue
        bound = LOWER_BOUND.search(match["specifier"])
        if bound is None:
            raise SystemExit(f"{requirement!r} in pyproject.toml has no lower bound")
        bounds[match["name"]] = bound[1]
    if "torch" in bounds:
        pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
        bounds["torch"] = pin[1]
    return bounds


if __name__ == "__main__":
    for name, version in sorted(lowest_versions(sys.argv[1:]).items()):
        print(f"{name}=={version}")
