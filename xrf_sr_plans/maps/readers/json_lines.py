"""`read_jsonl`: documents in files of JSON, each line one of them, whoever wrote them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.maps.well_formed import flaw
from xrf_sr_plans.schema import Document

logger = logging.getLogger(__name__)

MAX_LINE_BYTES = 2**31
"""Longest line that is read; the enhanced map of one element in the largest scan takes less."""


def read_jsonl(path: str | Path) -> Iterator[Document]:
    """Yield the documents of a file; a last line that was cut off is left out with a warning.

    Parameters
    ----------
    path
        A file as `JsonlWriter` and bluesky's ``JSONLinesWriter`` write it, with the form ``[name,
        doc]`` on each line as suitcase-jsonl writes it, or one array of documents, each on a line
        of its own, as bluesky's ``JSONWriter`` writes it.

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
                if line.strip() in (b"", b"[", b"]"):
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
    # In an array of documents all lines but the last one end in a comma.
    item = json.loads(line.decode().rstrip().removesuffix(","))
    return (item.get("name"), item.get("doc")) if isinstance(item, dict) else item
