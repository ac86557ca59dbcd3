"""`Settling`: which files of a folder somebody has finished writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MOST_WAIT_S = 300.0


@dataclass
class _Seen:
    state: tuple[int, int]
    """Size in bytes and time of the last change in ns."""
    since: float
    """When that state was first seen, in s of any clock."""
    tries: int = 0
    done: bool = False


class Settling:
    """Follow sizes and times of files, and tell which haven't changed for a while.

    A file that could not be read, although it hadn't changed, is told of again after ever longer
    times: programs keep files open that they write to now and then.

    Parameters
    ----------
    settle_s
        Seconds without a change after which a file counts as finished.
    tries
        How often a file that can't be read is tried before it counts as damaged. It is tried again
        where it changes after all.
    """

    def __init__(self, settle_s: float, tries: int = 5) -> None:
        self._settle_s = settle_s
        self._tries = tries
        self._files: dict[Path, _Seen] = {}

    def update(self, files: Mapping[Path, tuple[int, int]], now: float) -> list[Path]:
        """Take the files that are there, and return those that are to be read now.

        Parameters
        ----------
        files
            Size in bytes and time of the last change in ns of each.
        now
            Time in s, of a clock that never goes back.
        """
        for path in set(self._files) - set(files):
            del self._files[path]
        ready = []
        for path, state in files.items():
            seen = self._files.get(path)
            if seen is None or seen.state != state:
                self._files[path] = _Seen(state, now)
            elif not seen.done and now - seen.since >= self._wait_s(seen) and state[0] > 0:
                ready.append(path)
        return ready

    def read(self, path: Path) -> None:
        """Note that a file was read; it is told of again only if it changes."""
        if path in self._files:
            self._files[path].done = True

    def unreadable(self, path: Path) -> bool:
        """Note that a file could not be read; return whether that was the last try."""
        seen = self._files.get(path)
        if seen is None:
            return False
        seen.tries += 1
        seen.done = seen.tries >= self._tries
        return seen.done

    def _wait_s(self, seen: _Seen) -> float:
        wait_s: float = self._settle_s * 2**seen.tries
        return min(wait_s, max(_MOST_WAIT_S, self._settle_s))
