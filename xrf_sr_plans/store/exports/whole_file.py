"""Files that are complete or not there at all."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py


@contextmanager
def whole_hdf5(path: Path | str) -> Iterator[h5py.File]:
    """Give an HDF5 file in memory, which replaces `path` if all went well.

    Raises
    ------
    OSError
        The file can't be written.
    """
    import h5py

    # HDF5 can crash the interpreter when the disk fills up while it writes. Here it writes to
    # memory, so that a full disk is an ordinary OSError.
    with whole_bytes(path) as memory, h5py.File(memory, "w") as file:
        yield file


@contextmanager
def whole_bytes(path: Path | str) -> Iterator[io.BytesIO]:
    """Give a file in memory, which replaces `path` if all went well.

    Nobody ever sees a half-written file under that name.

    Raises
    ------
    OSError
        The file can't be written.
    """
    path = Path(path)
    memory = io.BytesIO()
    yield memory
    # Not the number of this process, which one on another host may have as well.
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        partial.write_bytes(memory.getbuffer())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
