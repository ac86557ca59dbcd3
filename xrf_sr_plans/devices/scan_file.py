"""`ScanFile`: which file a scan leaves behind, and whether it is written to its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.errors import ConfigError, FileFormatError
from xrf_sr_plans.maps.readers import inside_roots
from xrf_sr_plans.ranges import ZERO_OR_MORE, check

Stamp = tuple[int, int]
"""Time of the last change in ns, and size in bytes."""


@dataclass(frozen=True)
class ScanFile:
    """Which file a scan leaves behind.

    It counts only if it has changed since the scan began: what lies there from earlier scans is
    never taken for the map.

    Parameters
    ----------
    folder
        The folder, as this computer sees it. Files elsewhere are not opened.
    pattern
        Which files in the folder may be the one (``"*.mda"``); ``"**/*.h5"`` looks in folders
        below, too. The newest one counts.
    name
        Names the file in the folder where several are written: a signal, such as that of a PV of
        saveData, or a function without arguments. None: the newest file counts.
    settle_s
        A file is complete once it hasn't changed for so many seconds. One that lacks rows of the
        map is waited for ten times as long.

    Raises
    ------
    ConfigError
        The folder doesn't exist, the pattern leads out of it, `name` is neither a signal nor a
        function, or `settle_s` is negative.
    """

    folder: str | Path
    pattern: str = "*"
    name: Any = None
    settle_s: float = 1.0

    def __post_init__(self) -> None:
        pattern, named = Path(self.pattern), self.name
        outside = not self.pattern or pattern.is_absolute() or ".." in pattern.parts
        can_name = named is None or callable(named) or hasattr(named, "get")
        check(
            "scan file",
            "" if Path(self.folder).is_dir() else f"folder {str(self.folder)!r} doesn't exist",
            f"pattern is {self.pattern!r}; it must lie in the folder" if outside else "",
            "" if can_name else f"name is {named!r:.80}; it must be a signal or a function",
            ZERO_OR_MORE.flaw("settle_s", self.settle_s),
        )

    def stamps(self) -> dict[Path, Stamp]:
        """Return the files that match now, and when each was changed."""
        found = {}
        for path in Path(self.folder).glob(self.pattern):
            stamp = stamp_of(path)
            if stamp is not None:
                found[path.resolve()] = stamp
        return found

    def written_since(self, before: Mapping[Path, Stamp]) -> tuple[Path, Stamp]:
        """Return the file that was written since `stamps` returned `before`, and its stamp.

        Raises
        ------
        FileFormatError
            There is none yet; the message says where it was looked for.
        """
        if self.name is not None:
            path = self._named()
            stamp = stamp_of(path)
            if stamp is None:
                raise FileFormatError(f"{path}: no such file")
            if before.get(path) == stamp:
                raise FileFormatError(f"{path}: not written since the scan began")
            return path, stamp
        changed = {p: stamp for p, stamp in self.stamps().items() if before.get(p) != stamp}
        if not changed:
            raise FileFormatError(
                f"{self.folder}: no file {self.pattern!r} was written since the scan began"
            )
        newest = max(changed, key=lambda path: (changed[path], path))
        return newest, changed[newest]

    def _named(self) -> Path:
        """Return the file whose name the signal or function says."""
        name = text_of(value_of(self.name))
        owner = f"the scan's file name ({getattr(self.name, 'name', 'a function')})"
        if not name:
            raise FileFormatError(f"{owner} is empty")
        return inside_roots(Path(self.folder) / name, owner, [self.folder])


class Settling:
    """Watches a file, and knows for how long it hasn't changed.

    Parameters
    ----------
    now_s
        The clock, in s.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._seen: tuple[Path, Stamp] | None = None
        self._since_s = 0.0

    def unchanged_s(self, path: Path, stamp: Stamp) -> float:
        """Return for how many seconds the file has looked like this."""
        if self._seen != (path, stamp):
            self._seen, self._since_s = (path, stamp), self._now_s()
        return self._now_s() - self._since_s


def stamp_of(path: Path) -> Stamp | None:
    """Return when a file was changed and its size; None where there is no such file."""
    try:
        known = path.stat()
    except OSError:
        return None
    return (known.st_mtime_ns, known.st_size) if path.is_file() else None


def value_of(source: Any) -> Any:
    """Return the value of a signal, or what a function returns."""
    return source.get() if hasattr(source, "get") else source()


def text_of(value: Any) -> str:
    """Return a PV's value as text, which may come as text, as bytes or as their numbers.

    Raises
    ------
    ConfigError
        It is no text.
    """
    if isinstance(value, np.ndarray | list | tuple):
        codes = np.asarray(value)
        if codes.size and not np.issubdtype(codes.dtype, np.integer):
            raise ConfigError(f"the name of a file was expected, not {value!r:.80}")
        value = bytes(int(code) & 0xFF for code in codes)
    if isinstance(value, bytes):
        value = value.split(b"\0")[0].decode("utf-8", errors="replace")
    if not isinstance(value, str | Path):
        raise ConfigError(f"the name of a file was expected, not {value!r:.80}")
    return str(value).strip()
