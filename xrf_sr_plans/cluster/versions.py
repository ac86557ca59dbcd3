"""`versions_here` and `mismatch`: whether both ends of a cluster run the same code."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

_OURS = "xrf-sr-plans"
_PACKAGES = (_OURS, "distributed", "msgpack", "numpy", "scipy", "torch")
"""What has to be the same, because it decides on results to the bit or on what is understood."""


def versions_here() -> dict[str, str]:
    """Return the versions of this process's Python and packages; those not installed are left out.

    Of Python only the first two numbers are told, and of others' packages not which build it is:
    which device computes is another matter.
    """
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in _PACKAGES:
        try:
            found[package] = (
                version(package).split("+")[0] if package == "torch" else version(package)
            )
        except PackageNotFoundError:
            continue
    return found


def mismatch(client: Mapping[str, str], worker: Mapping[str, str]) -> str:
    """Return the sentence that tells which versions differ, or "".

    A package that one of them doesn't have is not compared: a beamline's computer without torch
    may use a cluster.
    """
    differing = [
        f"{name} {client[name]} here and {worker[name]} there"
        for name in client
        if name in worker and client[name] != worker[name]
    ]
    return f"client and worker of the cluster differ: {', '.join(differing)}" if differing else ""
