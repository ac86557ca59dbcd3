"""`RunFile`: the file that a run is being written to, locked as long as it is.

The lock is the kernel's (``flock``), so it ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from xrf_sr_plans.errors import FileBusyError

logger = logging.getLogger(__name__)

_UNLOCKED_FOR_S = 600.0
"""Where locks don't work: seconds without a change after which a file counts as left alone."""
_PATIENCE_S = 0.5
"""Longest wait for a write that is under way when a file is closed."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class RunFile:
    """Append whole lines to a file that nobody else writes.

    A file that is there already, such as that of the same result run, stays until the new one is
    complete. Until then the new one has the ending ``.part``.

    Parameters
    ----------
    path
        The file.

    Raises
    ------
    FileBusyError
        Somebody else is writing it.
    OSError
        The file can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = self._written_to = path
        self._length = 0
        self._descriptor: int | None = None
        # A descriptor that is closed in the midst of a write may be another file's by then.
        self._busy = threading.Lock()
        while not self._begun():
            self.close()
        os.ftruncate(self._opened(), 0)

    @property
    def is_open(self) -> bool:
        """Whether the file is open, and locked."""
        return self._descriptor is not None

    def append(self, line: bytes) -> None:
        """Write a line, or nothing of it.

        Raises
        ------
        FileBusyError
            Somebody else has taken the file over while it was closed.
        OSError
            The disk is full, writing is not permitted, or the file was deleted meanwhile.
        """
        with self._busy:
            descriptor = self._opened()
            view = memoryview(line)
            try:
                while view:
                    view = view[os.write(descriptor, view) :]
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._length)
                    os.lseek(descriptor, self._length, os.SEEK_SET)
                raise
            self._length += len(line)

    def finish(self) -> None:
        """Make sure that the run is in its file. The file stays locked until it is closed.

        Raises
        ------
        OSError
            The disk didn't take it, or the file was deleted meanwhile.
        """
        with self._busy:
            descriptor = self._opened()
            os.fsync(descriptor)
            if not _is_same(descriptor, self._written_to):
                raise FileNotFoundError(errno.ENOENT, "deleted while it was written", self.path)
            if self._written_to != self.path:
                self._written_to.replace(self.path)
                self._written_to = self.path

    def close(self) -> None:
        """Close the file and let go of the lock; `append` opens it again. It never raises."""
        if not self._busy.acquire(timeout=_PATIENCE_S):
            logger.error("%s stays open: the disk does not answer", self._written_to)
            return
        try:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                # A process that was forked meanwhile would keep the lock otherwise.
                with contextlib.suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)
        except OSError as error:
            logger.error("closing %s: %s", self._written_to, error)
        finally:
            self._busy.release()

    def _begun(self) -> bool:
        """Open the file; return whether nobody else has finished it before it was locked."""
        exists = self.path.exists() and self.path.stat().st_size > 0
        if exists:
            _refuse_busy(self.path)
        self._written_to = self.path.with_name(self.path.name + ".part") if exists else self.path
        self._open(os.O_CREAT)
        descriptor = self._opened()
        is_new = self._written_to != self.path or os.fstat(descriptor).st_size == 0
        return is_new and _is_same(descriptor, self._written_to)

    def _opened(self) -> int:
        if self._descriptor is None:
            self._open(0)
            os.lseek(self._opened(), self._length, os.SEEK_SET)
        assert self._descriptor is not None
        return self._descriptor

    def _open(self, flags: int) -> None:
        descriptor = os.open(self._written_to, os.O_RDWR | flags, 0o666)
        try:
            _lock(descriptor, self._written_to)
        except (OSError, FileBusyError):
            os.close(descriptor)
            raise
        self._descriptor = descriptor


@contextlib.contextmanager
def left_alone(path: Path) -> Iterator[None]:
    """Hold a file that nobody is writing, so that nobody begins to.

    Raises
    ------
    FileBusyError
        A process is writing it, or may be: where locks don't work, for ten minutes after its last
        change.
    OSError
        The file can't be opened.
    """
    # For writing too, without which NFS gives no lock.
    descriptor = os.open(path, os.O_RDWR)
    try:
        if not _lock(descriptor, path) and time.time() - path.stat().st_mtime < _UNLOCKED_FOR_S:
            raise FileBusyError(f"{path} was changed less than {_UNLOCKED_FOR_S:g} s ago")
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Lock an open file; return False where its file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileBusyError(f"{path} is being written at the moment") from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _refuse_busy(path: Path) -> None:
    """Refuse a file that its first writer has not finished.

    Raises
    ------
    FileBusyError
        Somebody has locked it.
    """
    try:
        # For writing too, without which NFS gives no lock.
        descriptor = os.open(path, os.O_RDWR)
    except OSError:  # it may be readable only, or gone meanwhile
        return
    try:
        _lock(descriptor, path)
    finally:
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
