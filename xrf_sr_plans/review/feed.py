"""`SurveyFeed`: the documents of surveys in files, from which pages, windows and reports are made.

On disk these are, in ``<folder>/<survey uid>/``, a file ``documents-*.frames`` of each process that
measured or analyzed something of the survey, and ``preview-*.frames``, the latest enhanced map of a
tile that is still being flown. Whoever watches a survey reads these files. So it costs the scan
nothing, and both sides may be restarted at any time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from xrf_sr_plans import schema
from xrf_sr_plans.callbacks.service.frames import pack, read_frame
from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import WorkerError
from xrf_sr_plans.maps.run_index import MAX_FOLLOWED_RUNS, RunIndex
from xrf_sr_plans.ranges import check
from xrf_sr_plans.schema import Document, Documents
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.ledger import file_name
from xrf_sr_plans.store.run_store import default_place

logger = logging.getLogger(__name__)

MOST_BYTES = 4 * 2**30
"""Size of the files of all surveys together, beyond which those of the oldest are deleted."""
_HEAD_BYTES = 8
_DOCUMENTS = "documents-*.frames"


def default_feed_dir() -> str:
    """Return the folder of the surveys unless somebody says otherwise."""
    return str(Path(default_place()).parent / "surveys")


def survey_of(start: Mapping[str, Any]) -> str:
    """Return the uid of the survey that a run belongs to, or "" where it belongs to none.

    Measured runs have it in the metadata `xrf_sr`, result runs at the top of their start document.

    Parameters
    ----------
    start
        The start document of any run.
    """
    kind = schema.kind_of_run(start)
    if not kind:
        return ""
    metadata = start.get("xrf_sr")
    facts = metadata if isinstance(metadata, Mapping) and "purpose" in metadata else start
    return str(facts.get("survey_uid") or "")


class SurveyFeed:
    """A document sink that writes what belongs to surveys into files, in a thread of its own.

    Subscribe it to a RunEngine and give it to the analysis as a sink, as `start_session` does. A
    call takes microseconds, never raises and never blocks.

    Parameters
    ----------
    folder
        The folder, which is made with the first survey.
    most_bytes
        Size of all files together beyond which those of the oldest surveys are deleted. Their
        reports stay.
    ended
        Called in the thread with the folder of a survey whose outcomes or composite map came, or
        which ended early.

    Raises
    ------
    ConfigError
        The folder can't be made or written to.
    """

    wants_preview = True
    takes_arrays = True

    def __init__(
        self,
        folder: str | Path,
        *,
        most_bytes: int = MOST_BYTES,
        ended: Callable[[Path], None] | None = None,
    ) -> None:
        check("surveys", folder_flaw("folder", folder))
        self.folder = Path(folder)
        self._most_bytes = most_bytes
        self._ended = ended
        self._index = RunIndex(lambda start: bool(survey_of(start)), MAX_FOLLOWED_RUNS)
        self._starts: dict[str, Mapping[str, Any]] = {}
        self._previews: dict[str, list[bytes]] = {}
        self._files: dict[str, BinaryIO] = {}
        self._name = f"{time.time_ns():020d}-{os.getpid()}"
        self._sink = BackgroundSink(self._write, name="xrf-sr-surveys", limit=20_000)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of any run."""
        self._sink(name, doc)

    @property
    def latest(self) -> Path:
        """Folder of the survey that was written to last; that of all surveys before the first."""
        return self.folder / next(reversed(self._files), "")

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far is written; return whether that took less than that."""
        return self._sink.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Write what is waiting, then close all files; return whether all of it was written."""
        done = self._sink.close(timeout_s)
        for survey in list(self._files):
            self._files.pop(survey).close()
        return done

    def _write(self, name: str, doc: dict[str, Any]) -> None:
        run = self._index.run_of(name, doc)
        if run is None:
            return
        if name == "start":
            self._starts[run] = doc
        start = self._starts[run]
        kind, home = schema.kind_of_run(start), self._home(survey_of(start))
        frame = pack([name, _smaller(doc)])
        if kind == "preview":
            self._previews.setdefault(run, []).append(frame)
        else:
            _append(self._file(home), frame)
        if name == "stop":
            del self._starts[run]
            if kind == "preview":
                self._show_preview(home, start, self._previews.pop(run))
            if self._ended and (
                kind in ("outcomes", "composite", "approvals")
                or doc.get("exit_status") != "success"
            ):
                self._ended(home)

    def _home(self, survey_uid: str) -> Path:
        return self.folder / file_name(survey_uid)

    def _file(self, home: Path) -> BinaryIO:
        file = self._files.get(home.name)
        if file is None:
            # Of surveys before, only those whose rescans are still to be flown get more.
            while len(self._files) >= 4:
                self._files.pop(next(iter(self._files))).close()
            home.mkdir(parents=True, exist_ok=True)
            self._delete_oldest(home)
            file = (home / f"documents-{self._name}.frames").open("ab", buffering=0)
            self._files[home.name] = file
        return file

    def _show_preview(self, home: Path, start: Mapping[str, Any], frames: list[bytes]) -> None:
        path = home / f"preview-{file_name(str(start['original_run_uid']))}.frames"
        part = path.with_suffix(".part")
        part.write_bytes(b"".join(frames))
        part.replace(path)

    def _delete_oldest(self, current: Path) -> None:
        homes = [home for home in self.folder.iterdir() if home.is_dir() and home != current]
        size = _size(current)
        for home in sorted(homes, key=_age, reverse=True):
            size += _size(home)
            if size > self._most_bytes:
                for path in home.glob("*.frames"):
                    path.unlink(missing_ok=True)
                if not any(home.iterdir()):
                    shutil.rmtree(home, ignore_errors=True)


def _append(file: BinaryIO, frame: bytes) -> None:
    """Append a whole frame, or nothing of it."""
    before = file.tell()
    try:
        if file.write(frame) != len(frame):
            raise OSError("the disk is full")
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(before)
        raise


def _smaller(doc: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a document whose arrays have half the size; nobody sees the difference."""
    data = doc.get("data")
    if not isinstance(data, Mapping):
        return doc
    arrays = {
        key: value.astype(np.float32)
        for key, value in data.items()
        if isinstance(value, np.ndarray) and value.dtype == np.float64
    }
    return {**doc, "data": {**data, **arrays}} if arrays else doc


def _size(home: Path) -> int:
    return sum(path.stat().st_size for path in home.glob("*.frames"))


def _age(home: Path) -> int:
    return max((path.stat().st_mtime_ns for path in home.glob("*.frames")), default=0)


class FeedReader:
    """Read the documents of one survey as far as they are written, and go on from there.

    Parameters
    ----------
    home
        The folder of the survey.
    """

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home)
        self._offsets: dict[str, int] = {}
        self._previews: dict[str, int] = {}

    def new_documents(self) -> Iterator[Document]:
        """Yield the documents that came since the last call.

        A preview is yielded once more as a whole where there is a later one.
        """
        for path in sorted(self.home.glob(_DOCUMENTS)):
            yield from self._rest_of(path)
        for path in sorted(self.home.glob("preview-*.frames")):
            with contextlib.suppress(FileNotFoundError):
                changed = path.stat().st_mtime_ns
                if self._previews.get(path.name) != changed:
                    self._previews[path.name] = changed
                    yield from _documents(path, 0)[0]

    def _rest_of(self, path: Path) -> Documents:
        offset = self._offsets.get(path.name, 0)
        try:
            if path.stat().st_size <= offset:
                return []
            documents, self._offsets[path.name] = _documents(path, offset)
        except FileNotFoundError:  # an old survey, whose files were deleted just now
            return []
        return documents


def first_start(home: str | Path) -> Mapping[str, Any] | None:
    """Return the first start document of a survey, or None where there is none yet.

    Parameters
    ----------
    home
        The folder of the survey.
    """
    for path in sorted(Path(home).glob(_DOCUMENTS)):
        with contextlib.suppress(OSError, WorkerError), path.open("rb") as file:
            found = read_frame(file)
            if found and found[0] == "start":
                return found[1]
    return None


def _documents(path: Path, offset: int) -> tuple[Documents, int]:
    """Return the whole frames of a file from an offset on, and where the last of them ends."""
    documents: Documents = []
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while offset + _HEAD_BYTES <= size:
            file.seek(offset)
            length = int.from_bytes(file.read(_HEAD_BYTES), "little")
            if offset + _HEAD_BYTES + length > size:
                break
            file.seek(offset)
            try:
                name, doc = read_frame(file)
                documents.append((str(name), doc))
            except (WorkerError, TypeError, ValueError) as error:
                logger.warning("%s: a document at byte %d is left out: %s", path, offset, error)
            offset += _HEAD_BYTES + length
    return documents, offset
