"""Documents in files: each file holds one run, each line one JSON object with `name` and `doc`.

This is the form that bluesky's own JSON-lines writers use. NaN is written as ``NaN``, which Python
reads back although strict JSON readers refuse it, because a pixel that was not measured must not
become 0.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.run_index import RunIndex
from xrf_sr_plans.maps.well_formed import flaw
from xrf_sr_plans.ranges import check
from xrf_sr_plans.schema import Document

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 2**31
"""Longest line that is read; the enhanced map of one element in the largest scan takes less."""

_DEEPEST = 50


class JsonlWriter:
    """A document sink that writes each run into ``<folder>/<run uid>.jsonl``.

    Every line is flushed, so that a killed process loses at most the document it was writing.
    Documents of several runs may be interleaved. A call raises `OSError` where the disk does, so
    wrap the writer in a `BackgroundSink` before you subscribe it to a RunEngine.

    Parameters
    ----------
    folder
        Folder of the files, which is made when the first run starts.

    Raises
    ------
    ConfigError
        The folder can't be made or written to.
    """

    def __init__(self, folder: str | Path) -> None:
        check("JsonlWriter", folder_flaw("folder", folder))
        self.folder = Path(folder)
        self._files: dict[str, TextIO] = {}
        self._index = RunIndex()

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
        OSError
            The disk is full, or writing is not permitted.
        """
        uid = self._index.run_of(name, doc)
        if uid is None:
            raise FileFormatError(f"{name} document of a run that was never started: {doc!r:.200}")
        if name == "start":
            self.folder.mkdir(parents=True, exist_ok=True)
            self._files[uid] = self.path(uid).open("w", encoding="utf-8")
        file = self._files[uid]
        file.write(_line(name, doc) + "\n")
        file.flush()
        if name == "stop":
            self._files.pop(uid).close()

    def close(self) -> None:
        """Close the files of runs that have not stopped."""
        for file in self._files.values():
            file.close()
        self._files.clear()


def read_jsonl(path: str | Path) -> Iterator[Document]:
    """Yield the documents of a file; a last line that was cut off is left out with a warning.

    Parameters
    ----------
    path
        A file as `JsonlWriter` writes it, or with the form ``[name, doc]`` on each line.

    Yields
    ------
    tuple of str and dict
        The name of a document and the document.

    Raises
    ------
    FileFormatError
        The file can't be read, or any other line is not a document, lacks a key without which it
        belongs nowhere, or is longer than `MAX_LINE_BYTES`. The message names the file and the
        line.
    """
    try:
        with Path(path).open("rb") as file:
            # One byte more than allowed, so that a longer line is recognised without reading it.
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            for number, line in enumerate(lines, start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise FileFormatError(
                        f"{path}: line {number} is longer than {MAX_LINE_BYTES} bytes"
                    )
                if not line.strip():
                    continue
                try:
                    document = _document(line)
                except (ValueError, RecursionError) as error:
                    if not line.endswith(b"\n"):
                        logger.warning("%s: line %d was cut off and is left out", path, number)
                        return
                    raise FileFormatError(
                        f"{path}: line {number} is no document: {in_words(error)}"
                    ) from error
                if problem := flaw(document):
                    raise FileFormatError(f"{path}: line {number} is no document: {problem}")
                yield document
    except OSError as error:
        raise FileFormatError(f"{path}: can't be read: {error.strerror}") from error


def _document(line: bytes) -> Any:
    item = json.loads(line.decode())
    return (item.get("name"), item.get("doc")) if isinstance(item, dict) else item


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
