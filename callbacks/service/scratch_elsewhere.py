"""The scratch folder of a worker on another host: it outlives the worker, not the session.

The session gives the folder a name, and each of its workers finds it there by that name, among
the temporary files of its host. One worker at a time has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time
import uuid
from pathlib import Path

from xrf_sr_plans.callbacks.service.guard import LOOK_S, OWNER, Tell
from xrf_sr_plans.errors import WorkerError

logger = logging.getLogger(__name__)

PREFIX = "xrf-sr-worker-"
_LOCK = "lock"
_PATIENCE_S = 15.0
"""Longest wait for a predecessor to end, which notices within `LOOK_S` that it has to."""
_LEFT_S = 7 * 86_400.0
"""Age from which a folder without a worker counts as left behind."""


def new_name() -> str:
    """Return a name for the folder of a session."""
    return f"{PREFIX}{uuid.uuid4().hex}"


def take_scratch(name: str, tell_guard: Tell | None) -> str:
    """Make or find the folder, end a predecessor that still has it, and return its path.

    The folder is held until this process ends. Folders that other sessions of the same user left
    behind are deleted.

    Parameters
    ----------
    name
        What `new_name` returned in the session.
    tell_guard
        Told which folder it is, so that it ends this process for a successor, and deletes the
        folder after the session. None: nobody does.

    Raises
    ------
    WorkerError
        The name is no name of such a folder, the folder is somebody else's, or a predecessor
        doesn't end.
    OSError
        The folder can't be made or written to.
    """
    identity = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not identity.isalnum():
        raise WorkerError(f"{name!r:.80} is no name of a scratch folder")
    folder = Path(tempfile.gettempdir(), name)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_ours(folder)
    token = uuid.uuid4().hex
    part = folder / f".{OWNER}.{token}"
    part.write_text(token)
    part.replace(folder / OWNER)
    _hold(folder)
    if tell_guard is not None:
        tell_guard("owner", token)
        tell_guard("scratch", str(folder))
    _delete_left(folder)
    return str(folder)


def _check_ours(folder: Path) -> None:
    """Refuse what somebody else has put there, as anybody may among temporary files."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise WorkerError(f"scratch folder {folder} is not ours alone")


def _hold(folder: Path) -> None:
    """Lock the folder for as long as this process lives."""
    # Never closed: the lock ends with the process.
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                raise WorkerError(
                    f"another worker of this session has {folder} and did not end "
                    f"within {_PATIENCE_S:g} s"
                ) from None
            time.sleep(LOOK_S / 10)


def _delete_left(own: Path) -> None:
    """Delete folders of sessions that ended without a word."""
    for folder in own.parent.glob(f"{PREFIX}*"):
        try:
            if folder == own or time.time() - (folder / OWNER).stat().st_mtime < _LEFT_S:
                continue
            _check_ours(folder)
            with open(folder / _LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            logger.info("deleted %s, which a session had left behind", folder)
        except (OSError, WorkerError) as error:
            logger.debug("%s stays: %s", folder, error)
