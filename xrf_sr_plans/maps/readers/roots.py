"""The folders below which files are read that a document or another file names."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from xrf_sr_plans.maps.files.roots import ROOTS_VARIABLE, configured_roots, inside_roots

__all__ = ["ROOTS_VARIABLE", "configured_roots", "inside_roots", "roots_of"]


def roots_of(run: Any) -> tuple[Path, ...] | None:
    """Return the folders in which documents of a source may name files; None: they may name any.

    A file of documents can come from anywhere, and what it names is read only beside it and in the
    configured folders. Catalogs and live documents are those of the beamline.

    Parameters
    ----------
    run
        A path, or what documents come from otherwise.
    """
    if not isinstance(run, str | PathLike):
        return None
    return (Path(run).resolve().parent, *configured_roots())
