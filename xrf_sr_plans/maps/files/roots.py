"""`inside_roots`: which files may be opened because a document or a file says so.

A document names files (the ``root`` of a resource, the ``uri`` of a stream), and so does an HDF5
file by its links. Whoever wrote it must not decide what is read on the machine where it is read:
such names lead to files below configured folders only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from xrf_sr_plans.errors import FileFormatError

ROOTS_VARIABLE = "XRF_SR_READ_ROOTS"
"""Environment variable with the folders, separated as those of PATH are."""


def configured_roots(environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Return the folders below which files may be read that others name.

    Parameters
    ----------
    environment
        Environment variables; None: those of this process.
    """
    text = (os.environ if environment is None else environment).get(ROOTS_VARIABLE, "")
    return tuple(Path(part) for part in text.split(os.pathsep) if part)


def inside_roots(path: str | Path, owner: str, roots: Iterable[str | Path] | None = None) -> Path:
    """Return the path of a file that somebody else named, where it may be read.

    Parameters
    ----------
    path
        The file; symbolic links are followed before it is judged.
    owner
        Who named it, for the message, such as "run 1a2b, resource 3c4d".
    roots
        Folders in or below which it must lie; None: the configured ones.

    Raises
    ------
    FileFormatError
        It lies elsewhere, or no folder is configured.
    """
    allowed = configured_roots() if roots is None else tuple(map(Path, roots))
    try:
        real = Path(path).resolve()
        inside = any(real.is_relative_to(root.resolve()) for root in allowed)
    except (ValueError, OSError, RuntimeError) as error:
        raise FileFormatError(f"{owner}: names the file {str(path)!r:.200}: {error}") from error
    if not inside:
        shown = ", ".join(str(root) for root in allowed) or "none"
        raise FileFormatError(
            f"{owner}: names the file {str(path)!r:.200}; files that documents name are read only"
            f" below configured folders ({shown}): add its folder to {ROOTS_VARIABLE}"
        )
    return real
