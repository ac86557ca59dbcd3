"""Documents in files: each file holds one run, each line one JSON object with `name` and `doc`.

This is the form that bluesky's own JSON-lines writers use. NaN is written as ``NaN``, which Python
reads back although strict JSON readers refuse it, because a pixel that was not measured must not
become 0.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import FileFormatError
from xrf_sr_plans.maps.readers.json_lines import read_jsonl as read_jsonl
from xrf_sr_plans.maps.run_index import MAX_FOLLOWED_RUNS, RunIndex
from xrf_sr_plans.ranges import check
from xrf_sr_plans.store.run_file import RunFile

logger = logging.getLogger(__name__)

MAX_OPEN_FILES = 16
"""Largest number of files that a writer keeps open; a process may have about a thousand."""

_DEEPEST = 50


class JsonlWriter:
    """A document sink that writes each run into ``<folder>/<run uid>.jsonl``.

    Every line is written at once and as a whole, so that a killed process loses at most the
    document it was writing, and a full disk leaves no torn line. Documents of several runs may be
    interleaved. A call raises `OSError` where the disk does, so wrap the writer in a
    `BackgroundSink` before you subscribe it to a RunEngine.

    A file is locked while it is written (see `run_file`). Runs that never stop leave at most
    `MAX_OPEN_FILES` files open; others are opened again if they go on after all.

    Parameters
    ----------
    folder
        Folder of the files, which is made when the first run starts.
    hold
        Keep the file of a run open and locked after its stop document, until `release`.

    Raises
    ------
    ConfigError
        The folder can't be made or written to.
    """

    def __init__(self, folder: str | Path, *, hold: bool = False) -> None:
        check("JsonlWriter", folder_flaw("folder", folder))
        self.folder = Path(folder)
        self._hold = hold
        # In the order of their latest documents.
        self._files: OrderedDict[str, RunFile] = OrderedDict()
        self._lock = threading.Lock()
        self._index = RunIndex(most_open=MAX_FOLLOWED_RUNS)

    def path(self, run_uid: str) -> Path:
        """Return the file that a run is, or would be, written to.

        Raises
        ------
        FileFormatError
            The uid can't be a file name.
        """
        # A uid is a name given by others, and it must not lead out of the folder.
        is_name = run_uid.isprintable() and Path(run_uid).name == run_uid != ""
        if not is_name or run_uid.startswith("."):
            raise FileFormatError(f"run uid {run_uid!r} can't be a file name")
        return self.folder / f"{run_uid}.jsonl"

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Write one document.

        Raises
        ------
        FileFormatError
            It is damaged, the start document of its run was never seen, or the run's uid can't be
            a file name.
        FileBusyError
            Somebody else is writing the run's file.
        OSError
            The disk is full, writing is not permitted, or the file was deleted meanwhile.
        """
        uid = self._index.run_of(name, doc)
        if uid is None:
            raise FileFormatError(f"{name} document of a run that was never started: {doc!r:.200}")
        file = self._start(uid) if name == "start" else self._file(uid)
        file.append((_line(name, doc) + "\n").encode())
        if name == "stop":
            try:
                file.finish()
            finally:
                if not self._hold:
                    self.release(uid)

    def release(self, run_uid: str) -> None:
        """Close the file of a run, if it is open; others may read, move or delete it now."""
        with self._lock:
            file = self._files.pop(run_uid, None)
        if file is not None:
            file.close()

    def delete(self, run_uid: str) -> None:
        """Delete the file of a run, if there is one.

        Raises
        ------
        OSError
            It is not permitted.
        """
        # There is none where the uid can't be a file name.
        with contextlib.suppress(FileFormatError):
            self.path(run_uid).unlink(missing_ok=True)

    def close(self) -> None:
        """Close all files, also those of runs that have not stopped. It never raises."""
        for uid in list(self._files):
            self.release(uid)

    def _start(self, uid: str) -> RunFile:
        self.release(uid)
        path = self.path(uid)
        self.folder.mkdir(parents=True, exist_ok=True)
        file = RunFile(path)
        with self._lock:
            self._files[uid] = file
            self._close_the_oldest()
        return file

    def _file(self, uid: str) -> RunFile:
        with self._lock:
            file = self._files.get(uid)
            if file is None:
                raise FileFormatError(f"the file of run {uid} could not be made")
            self._files.move_to_end(uid)
            self._close_the_oldest()
        return file

    def _close_the_oldest(self) -> None:
        while len(self._files) > MAX_FOLLOWED_RUNS:
            self._files.popitem(last=False)[1].close()
        opened = [file for file in self._files.values() if file.is_open]
        for file in opened[:-MAX_OPEN_FILES]:
            file.close()


def _line(name: str, doc: Mapping[str, Any]) -> str:
    try:
        return json.dumps({"name": name, "doc": doc}, default=_to_json)
    except (TypeError, ValueError, RecursionError):
        # Keys that JSON doesn't have, lists that hold themselves, and the like.
        return json.dumps({"name": name, "doc": _plain(doc, _DEEPEST)}, default=_to_json)


def _plain(value: Any, depth: int) -> Any:
    """Return a value with every key a text, and with what lies too deep as text."""
    if isinstance(value, Mapping) and depth:
        return {str(key): _plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth:
        return [_plain(item, depth - 1) for item in value]
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return f"<{type(value).__name__}: nested more than {_DEEPEST} levels deep>"
    return value


def _to_json(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    # A RunEngine accepts any object as metadata, and a run must not be lost because of one.
    return repr(value)
