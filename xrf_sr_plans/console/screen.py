"""`Screen`: one line of progress, and whatever else is to be told above it."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable

_WIPE = "\x1b[K"
"""Wipes the rest of the line."""


class Screen:
    """Write lines to the terminal, from any thread, beside a line that changes in place.

    Parameters
    ----------
    write
        Takes text; None: the standard output, as it is at that time.
    """

    def __init__(self, write: Callable[[str], object] | None = None) -> None:
        self._write = write or _to_stdout
        self._lock = threading.Lock()

    def progress(self, line: str) -> None:
        """Show a line in place of the last one of progress."""
        with self._lock:
            self._write(f"\r{line}{_WIPE}")

    def tell(self, text: str) -> None:
        """Write lines that stay."""
        with self._lock:
            for line in text.splitlines():
                self._write(f"\r{line}{_WIPE}\n")


def _to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


class ScreenHandler(logging.Handler):
    """Log records as lines of the screen: what plans decide, and whatever goes wrong."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self._screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        """Show the message; the traceback of an error stays in log files."""
        try:
            self._screen.tell(record.getMessage())
        except Exception:  # noqa: BLE001 - as every handler does
            self.handleError(record)
