"""`Journal`: which units were replayed, so that a replay that was stopped goes on where it was."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from xrf_sr_plans.replays.task import UnitReport
from xrf_sr_plans.replays.units import Unit

logger = logging.getLogger(__name__)

NAME = "replay.jsonl"
"""Name of the journal in the output folder."""


class Journal:
    """Reports by unit, one JSON object per line, appended as they come.

    Parameters
    ----------
    folder
        The output folder, which exists.
    options
        Checksum of the options. What was replayed with other options counts as not replayed.
    """

    def __init__(self, folder: Path, options: str) -> None:
        self.folder = folder
        self._options = options
        self._done = self._read()

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def done(self, unit: Unit) -> UnitReport | None:
        """Return the report on a unit that needs not be replayed again, or None.

        A unit that failed is replayed again, as is one whose files have changed, or of whose
        results one is gone.
        """
        version, report = self._done.get(unit.key, ("", None))
        if report is None or report.failures or version != unit.version:
            return None
        files = [name for run in report.runs for name in run.files]
        return report if all((self.folder / name).exists() for name in files) else None

    def add(self, unit: Unit, report: UnitReport) -> None:
        """Write down what became of a unit.

        Raises
        ------
        OSError
            The disk is full, or writing is not permitted.
        """
        version = unit.version
        line = {"options": self._options, "version": version, "report": report.to_dict()}
        self._done[unit.key] = version, report
        with self.path.open("ab") as file:
            # A line that was cut off, when the computer was, must not spoil the next one.
            if file.tell() and not _ends_a_line(self.path):
                file.write(b"\n")
            file.write((json.dumps(line) + "\n").encode())

    def _read(self) -> dict[str, tuple[str, UnitReport]]:
        done: dict[str, tuple[str, UnitReport]] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return done
        for number, line in enumerate(lines, start=1):
            try:
                facts = json.loads(line)
                report = UnitReport.from_dict(facts["report"])
                if facts["options"] == self._options:
                    done[report.key] = str(facts["version"]), report
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                logger.warning("%s: line %d is left out", self.path, number)
        return done


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
