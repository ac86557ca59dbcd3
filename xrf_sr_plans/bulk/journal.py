"""`Journal`: which units are done, so that a job that was stopped goes on where it was."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from xrf_sr_plans.errors import AnalysisError, in_words

logger = logging.getLogger(__name__)


class VersionedUnit(Protocol):
    """A unit that can tell whether it is what it was."""

    @property
    def key(self) -> str:
        """Its name, which no other unit has."""
        ...

    @property
    def version(self) -> str:
        """Checksum that changes where what it is made of has changed."""
        ...


class Storable(Protocol):
    """A report that can be written down."""

    @property
    def key(self) -> str:
        """The name of its unit."""
        ...

    @property
    def failures(self) -> Sequence[str]:
        """What failed, in words; nothing where all is well."""
        ...

    @property
    def files(self) -> Sequence[str]:
        """Names of the files that were written, in the folder of the journal."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        ...


Report = TypeVar("Report", bound=Storable)


class Journal(Generic[Report]):
    """Reports by unit, one JSON object per line, appended as they come.

    Parameters
    ----------
    path
        The file, in the folder of the results, which exists.
    options
        Checksum of the options. What was done with other options counts as not done.
    from_dict
        Returns the report of which these are the JSON types; raises TypeError, KeyError or
        ValueError where they are those of something else.
    """

    def __init__(
        self, path: Path, options: str, from_dict: Callable[[dict[str, Any]], Report]
    ) -> None:
        self.path = path
        self._options = options
        self._done = self._read(from_dict)

    def done(self, unit: VersionedUnit) -> Report | None:
        """Return the report on a unit that needs not be done again, or None.

        A unit that failed is done again, as is one whose files have changed, or of whose results
        one is gone.
        """
        version, report = self._done.get(unit.key, ("", None))
        if report is None or report.failures or version != unit.version:
            return None
        there = all((self.path.parent / name).exists() for name in report.files)
        return report if there else None

    def add(self, version: str, report: Report) -> None:
        """Write down what became of a unit.

        Parameters
        ----------
        version
            What the unit's version was before it was read. A file that is written meanwhile has
            another one by now.
        report
            What became of it.

        Raises
        ------
        AnalysisError
            The disk is full, or writing is not permitted.
        """
        line = {"options": self._options, "version": version, "report": report.to_dict()}
        try:
            with self.path.open("ab") as file:
                # A line that was cut off, when the computer was, must not spoil the next one.
                if file.tell() and not _ends_a_line(self.path):
                    file.write(b"\n")
                file.write((json.dumps(line) + "\n").encode())
        except OSError as error:
            raise AnalysisError(
                f"the journal {self.path} can't be written, so what is done can't be remembered:"
                f" {in_words(error)}"
            ) from error
        self._done[report.key] = version, report

    def _read(self, from_dict: Callable[[dict[str, Any]], Report]) -> dict[str, tuple[str, Report]]:
        done: dict[str, tuple[str, Report]] = {}
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            return done
        for number, line in enumerate(lines, start=1):
            try:
                facts = json.loads(line)
                report = from_dict(facts["report"])
                if facts["options"] == self._options:
                    done[report.key] = str(facts["version"]), report
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                logger.warning("%s: line %d is left out", self.path, number)
        return done


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
