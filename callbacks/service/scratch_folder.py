"""`ScratchFolder`: what one worker knew and the next one must know, for as long as a session."""

from __future__ import annotations

import logging
import shutil
import tempfile

logger = logging.getLogger(__name__)


class ScratchFolder:
    """A temporary folder of a session, made when it is needed and deleted at the end.

    Without it, a worker that takes over would not know what its predecessor had predicted, and a
    fine map would not be verified.
    """

    def __init__(self) -> None:
        self._folder: str | None = None

    @property
    def folder(self) -> str:
        """Path of the folder; empty where none can be made, as on a full disk."""
        if self._folder is None:
            try:
                self._folder = tempfile.mkdtemp(prefix="xrf-sr-")
            except OSError as error:
                logger.warning("predictions are forgotten where a worker dies: %s", error)
                return ""
        return self._folder

    def delete(self) -> None:
        """Delete the folder and what is in it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
