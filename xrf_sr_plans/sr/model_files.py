"""The JSON files beside weights: bounded in size, and with a checksum of their content.

The checksum is the key ``id``. It shows a file that was damaged or edited by hand, as the sha256 in
the card does for the weights. It is no signature: whoever means to can write another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import ModelError

logger = logging.getLogger(__name__)

LARGEST_FILE = 64 * 2**20
"""Largest size of a file of a model in bytes."""


def content_id(content: Mapping[str, Any]) -> str:
    """Return the checksum of a file's content, apart from the key ``id`` itself."""
    plain = {key: value for key, value in content.items() if key != "id"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def write_sealed(file: Path, content: Mapping[str, Any], *, indent: int | None = 1) -> None:
    """Write JSON types with their checksum; the file appears as a whole or not at all.

    Raises
    ------
    OSError
        The disk is full, or writing is not permitted.
    """
    # As it will be read, since JSON makes lists of tuples and texts of keys.
    plain = json.loads(json.dumps(content))
    temporary = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        sealed = {"id": content_id(plain), **{k: v for k, v in plain.items() if k != "id"}}
        temporary.write_text(json.dumps(sealed, indent=indent) + "\n")
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def read_sealed(file: Path, what: str) -> dict[str, Any]:
    """Return the content of a JSON file without its checksum, which must be right.

    A file without one was made by a version that wrote none. It is read with a warning.

    Parameters
    ----------
    file
        The file.
    what
        What it should be, for messages.

    Raises
    ------
    ModelError
        It can't be read, is too large, is no JSON object, or is not as it was written.
    """
    plain = read_object(file, what)
    stated = plain.pop("id", None)
    if stated is None:
        logger.warning(
            "%s: has no checksum, so a change in it is not noticed; it is of an older version", file
        )
    elif stated != (found := content_id(plain)):
        raise ModelError(f"{file}: says id {stated}, its content is {found}: it was changed")
    return plain


def read_object(file: Path, what: str) -> dict[str, Any]:
    """Return the object in a JSON file, whatever is in it.

    Raises
    ------
    ModelError
        It can't be read, is too large, or is no JSON object.
    """
    try:
        plain = json.loads(bounded(file))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{file}: not a {what}: {error}") from error
    if not isinstance(plain, dict):
        raise ModelError(f"{file}: not a {what}: a {type(plain).__name__}; an object is needed")
    return plain


def bounded(file: Path) -> bytes:
    """Return the bytes of a file of a model.

    Raises
    ------
    ModelError
        It can't be read, or it is larger than `LARGEST_FILE`.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ModelError(f"{file}: can't be read: {error.strerror}") from error
    if len(data) > LARGEST_FILE:
        raise ModelError(f"{file}: larger than the {LARGEST_FILE} bytes a model may have")
    return data
