"""Folders that settings name: whether they can be written to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

Place = Annotated[str, AfterValidator(os.path.expanduser)]
"""A file or a folder, where ``~`` stands for the home folder."""


def folder_flaw(what: str, folder: str | Path) -> str:
    """Return the sentence that refuses a folder that can't be made or written to, or "".

    Nothing is made or written.

    Parameters
    ----------
    what
        What names the folder, for the message.
    folder
        The folder, which need not exist.
    """
    path = Path(folder).absolute()
    try:
        there = next(place for place in (path, *path.parents) if place.exists())
        if not there.is_dir():
            return f"{what} is {str(folder)!r}; {there} is a file, where a folder is needed"
        if not os.access(there, os.W_OK | os.X_OK):
            return f"{what} is {str(folder)!r}; {there} can't be written to"
    except (OSError, ValueError) as error:
        return f"{what} is {str(folder)!r:.80}; {error}"
    return ""
