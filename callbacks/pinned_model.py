"""`PinnedModel`: which model a survey has, from its first map to its last."""

from __future__ import annotations

import json
import logging
import uuid
from pathlib import Path

from xrf_sr_plans.sr.model_versions import registry_of

logger = logging.getLogger(__name__)

MAX_SURVEYS = 64
"""Surveys whose model is remembered."""
_FILE = "models-of-surveys.json"


class PinnedModel:
    """Say which model a map is enhanced with.

    Where the setting is a folder of versions, the model in use there may change at any time. All
    maps of one survey have the one that was in use at its first.

    Parameters
    ----------
    model
        The setting.
    folder
        Folder in which this is remembered, for a process that takes over in the middle of a survey.
        With None it is remembered in memory.
    """

    def __init__(self, model: str | None, folder: str | Path | None = None) -> None:
        self._model = model
        self._versions = registry_of(model)
        self._file = None if folder is None else Path(folder) / _FILE
        self._pinned: dict[str, str] = {}

    def __call__(self, survey_uid: str = "") -> str | None:
        """Return the name or file of the model for a survey; "": for a map on its own.

        Raises
        ------
        ModelError
            The folder has no models.
        """
        if self._versions is None:
            return self._model
        if not survey_uid:
            return str(self._versions.path())
        if survey_uid not in self._pinned:
            self._pinned |= self._remembered()
        if survey_uid not in self._pinned:
            self._pinned[survey_uid] = str(self._versions.path())
            self._remember()
        return self._pinned[survey_uid]

    def _remembered(self) -> dict[str, str]:
        if self._file is None or not self._file.exists():
            return {}
        try:
            known = json.loads(self._file.read_text())
            return {str(uid): str(path) for uid, path in known.items()}
        except (OSError, ValueError, AttributeError) as error:
            logger.warning("%s: which models surveys have is not known: %s", self._file, error)
            return {}

    def _remember(self) -> None:
        self._pinned = dict(list(self._pinned.items())[-MAX_SURVEYS:])
        if self._file is None:
            return
        part = self._file.with_name(f".{_FILE}.{uuid.uuid4().hex[:12]}.part")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._pinned))
            part.replace(self._file)
        except OSError as error:  # the survey goes on; only a process that takes over could err
            logger.warning("%s: can't be written: %s", self._file, error)
