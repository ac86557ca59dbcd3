"""`PairLog`: what happened to the pairs of a store, one JSON object a line, and only ever added to.

Each line carries a checksum of its record, so a line that was changed is found out. Lines are added
under a lock. A process that is killed while it adds some leaves a part of a line at most, which
nobody reads and the next one that writes takes away.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from xrf_sr_plans.errors import FileFormatError, in_words
from xrf_sr_plans.store.pairs.map_file import sync_folder
from xrf_sr_plans.store.pairs.stored_pair import PairSource, Split

logger = logging.getLogger(__name__)

NAME = "log.jsonl"
MAX_LINE_BYTES = 2**24
"""Longest line; a registration that knows the drift of a thousand rows has 50 kB."""

MAX_BYTES = 2**28
"""Largest log, which is held in memory: some ten thousands of pairs."""

_HEAD, _BETWEEN = b'{"check":"', b'","record":'
_CHECK_DIGITS = 16
_BODY = len(_HEAD) + _CHECK_DIGITS + len(_BETWEEN)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    time: float = 0.0
    """When it was added, in seconds since 1970."""


class StoreMade(_Record):
    """The first line of a log."""

    kind: Literal["store"] = "store"
    format: Literal[1] = 1
    salt: str
    """With the name of a sample, it decides whether that is held out."""


class MapAdded(_Record):
    """A map has come, of a pair that may not be complete yet."""

    kind: Literal["map"] = "map"
    pair_uid: str
    position: int = Field(ge=0, le=10_000)
    factor: int = Field(ge=1, le=1000)
    content: str
    """sha256 of what was measured (`map_file.content_of`)."""
    file: str = Field(pattern=r"^[0-9a-f]{64}\.h5$")
    shape: tuple[int, int]
    """Rows and pixels in a row."""
    step_um: tuple[float, float]
    """Step along the slow and the fast axis."""
    totals: dict[str, float]
    """Photons of each element in the whole map."""
    measured: int = Field(ge=0)
    """Pixels that were measured."""
    dwell_ms: float | None = None
    probe_fwhm_um: float | None = None
    sampling: str = "fly"
    origin: dict[str, Any] = Field(default_factory=dict)
    """A `MapOrigin`."""


class PairAdded(_Record):
    """A pair is complete; the latest such line of a uid counts."""

    kind: Literal["pair"] = "pair"
    pair_uid: str
    maps: dict[int, str]
    """Content of each map by its position."""
    registration: dict[int, dict[str, Any]]
    sample: str
    split: Split
    source: PairSource
    problem: str = ""
    package: str = ""


class PairKnown(_Record):
    """A pair was complete, but has the same maps as another one, and was not added."""

    kind: Literal["known"] = "known"
    pair_uid: str
    same_as: str


class PairRemoved(_Record):
    """A pair is left out, also where its maps come again, until it is restored; its maps stay."""

    kind: Literal["removed"] = "removed"
    pair_uid: str
    why: str = ""


class SampleRenamed(_Record):
    """What was one sample is another one."""

    kind: Literal["renamed"] = "renamed"
    sample: str
    to: str
    split: Split
    """That of all pairs of the sample from now on."""


Record = StoreMade | MapAdded | PairAdded | PairKnown | PairRemoved | SampleRenamed
_RECORDS: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


class PairLog:
    """The log of a store.

    Parameters
    ----------
    folder
        Folder of the store, which is made when the first record is added.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def read(self, begin: int = 0) -> Iterator[tuple[Record, int]]:
        """Yield the records from a byte on, each with the place of the byte behind its line.

        Raises
        ------
        FileFormatError
            A line is damaged. The message names it.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise FileFormatError(f"{self.path}: {in_words(error)}") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_BYTES:
                raise FileFormatError(f"{self.path}: {size} bytes; at most {MAX_BYTES} are read")
            file.seek(begin)
            end = begin
            while line := self._line(file, end):
                if not line.endswith(b"\n"):
                    logger.warning("%s: a line at its end was not completed", self.path)
                    return
                end += len(line)
                yield self._record(line, end), end

    @contextmanager
    def locked(self) -> Iterator[_Locked]:
        """Give what adds records; meanwhile nobody else can.

        Raises
        ------
        OSError
            The folder can't be made, or the log can't be written to.
        """
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()
            sync_folder(self.path.parent)
        with self.path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield _Locked(file, self.path)

    def _line(self, file: BinaryIO, begin: int) -> bytes:
        try:
            line = file.readline(MAX_LINE_BYTES + 1)
        except OSError as error:
            raise FileFormatError(f"{self.path}: {in_words(error)}") from error
        if len(line) > MAX_LINE_BYTES:
            raise FileFormatError(
                f"{self.path}: the line at byte {begin} is longer than {MAX_LINE_BYTES} bytes"
            )
        return line

    def _record(self, line: bytes, end: int) -> Record:
        body = line[_BODY:-2]
        try:
            if line != line_of(body):
                raise ValueError("it is not what was written")
            return _RECORDS.validate_python(json.loads(body))
        except (ValueError, RecursionError) as error:
            raise FileFormatError(
                f"{self.path}: the line of bytes {end - len(line)} to {end} is damaged"
                f" ({in_words(error)}); without it the rest can be read"
            ) from error


class _Locked:
    """The log while it is locked."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def append(self, *records: Record) -> None:
        """Add records, all of them or none, which are on the disk when this returns.

        Raises
        ------
        FileFormatError
            The log would become longer than what is read.
        OSError
            The disk is full.
        """
        text = b"".join(line_of(record.model_dump_json().encode()) for record in records)
        end = self._without_torn_line()
        if end + len(text) > MAX_BYTES:
            raise FileFormatError(f"{self._path}: full, it has {end} bytes; begin another store")
        try:
            self._file.write(text)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(end)
            raise

    def _without_torn_line(self) -> int:
        """Go to the end of the last whole line, take away what is behind it, and return it."""
        end = self._file.seek(0, os.SEEK_END)
        whole = end
        if end:
            self._file.seek(end - 1)
            if self._file.read(1) != b"\n":
                begin = max(0, end - MAX_LINE_BYTES - 1)
                self._file.seek(begin)
                whole = begin + self._file.read(end - begin).rfind(b"\n") + 1
        if whole != end:
            self._file.truncate(whole)
            torn = end - whole
            logger.warning("%s: %d bytes of a line torn off at its end are gone", self._path, torn)
        return self._file.seek(whole)


def line_of(body: bytes) -> bytes:
    """Return the line of a record, which is JSON, with its checksum."""
    check = hashlib.sha256(body).hexdigest()[:_CHECK_DIGITS].encode()
    return _HEAD + check + _BETWEEN + body + b"}\n"
