"""npz: ``maps`` [element, y, x], ``elements``, and where known ``pixel_size_um``, ``units``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.files.model import MapsFile, build


def read_npz(path: Path, step_um: float | None = None) -> MapsFile:
    """Return the maps of an npz archive; objects inside are refused, never unpickled.

    Parameters
    ----------
    path
        The archive.
    step_um
        Step that counts instead of the archive's ``pixel_size_um``; None: that counts.

    Raises
    ------
    FileFormatError
        It is no npz archive, or one without ``maps``.
    """
    try:
        # Opened here: numpy leaves the file open where the archive is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if "maps" not in archive.files:
                raise FileFormatError(
                    f"{path}: npz has {archive.files}; 'maps' [element, y, x] is needed"
                )
            maps = np.asarray(archive["maps"])
            names = archive["elements"] if "elements" in archive.files else None
            pixel = archive["pixel_size_um"] if "pixel_size_um" in archive.files else np.nan
            texts = {
                key: str(archive[key]) for key in ("units", "source", "license") if key in archive
            }
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(f"{path}: not a readable npz archive ({error})") from error
    if maps.dtype.kind not in "fiu":
        raise FileFormatError(f"{path}: 'maps' has the type {maps.dtype}; numbers are needed")
    if maps.ndim == 2:
        maps = maps[None]
    elements = [f"channel {n}" for n in range(len(maps))] if names is None else np.ravel(names)
    # One size, or those along y and x.
    sizes_um = np.ravel(np.asarray(pixel, dtype=float))
    if step_um is None and sizes_um.size:
        step_um = float(sizes_um[-1])
    return build(
        maps,
        [str(name) for name in elements],
        layout="npz",
        path=str(path),
        step_um=step_um,
        keep_all=True,
        meta=texts,
    )
