"""Runs in Tiled: a writer that can't harm a scan, and what stores later what Tiled missed.

Tiled is imported inside the functions, because it belongs to the extra `tiled`.
"""

from __future__ import annotations

import logging
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xrf_sr_plans.errors import FileBusyError, FileFormatError, MissingExtraError, in_words
from xrf_sr_plans.schema import Documents, DocumentSink
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.documents import documents
from xrf_sr_plans.store.embedded import embedded_catalog as embedded_catalog
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.run_file import left_alone
from xrf_sr_plans.store.unfinished import with_stops

logger = logging.getLogger(__name__)

BATCH_ROWS = 1000
"""Rows per write. The same data take far longer to write in small batches."""
_LOOK_S = 0.5
"""Interval in seconds at which a writer that is being closed checks that its server is there."""
_KNOCK_S = 1.0
"""Longest time in seconds that such a check may take."""


def tiled_writer(client: Any) -> DocumentSink:
    """Return a `TiledWriter` with the settings that row events need.

    Its errors reach whoever calls it. Use `safe_writer` for a RunEngine.

    Raises
    ------
    MissingExtraError
        bluesky-tiled-plugins is not installed.
    """
    try:
        from bluesky_tiled_plugins import TiledWriter
    except ImportError as error:
        raise MissingExtraError("writing to Tiled", "tiled") from error
    # Short arrays would otherwise go into SQL columns, from where they come back as strings or not
    # at all.
    return TiledWriter(client, batch_size=BATCH_ROWS, max_array_size=0)


class SafeWriter:
    """Write runs to Tiled and to files at the same time, and delete a file once Tiled has its run.

    Subscribe it to a RunEngine, or use it as a sink of the analysis: it never raises and never
    blocks. Two threads with bounded queues do the work, so that neither a dead server (for which a
    plain `TiledWriter` waits for minutes) nor a full disk affects the scan or the other copy. Runs
    that Tiled didn't get as a whole stay in `folder` for `reingest`. Close the writer before the
    catalog that it writes to.

    Parameters
    ----------
    write
        Called as ``write(name, doc)`` in a thread, where it may raise and may hang.
    folder
        Folder of the JSON-lines files.
    limit
        Largest number of documents that may wait for Tiled, and for the disk.
    keep_files
        Keep the files of all runs, even of those that Tiled has.
    is_down
        Returns whether Tiled's server is known to be gone. It is asked only while closing.
    store
        What messages call the place that `write` writes to.
    """

    def __init__(
        self,
        write: DocumentSink,
        folder: str | Path,
        *,
        limit: int = 2000,
        keep_files: bool = False,
        is_down: Callable[[], bool] = lambda: False,
        store: str = "Tiled",
    ) -> None:
        self._is_down = is_down
        self._store = store
        # A file stays locked until Tiled has its run, or has refused it.
        self._files = JsonlWriter(folder, hold=True)
        self._keep = keep_files
        self._lock = threading.Lock()
        self._outcomes: dict[str, dict[str, bool]] = {}
        self._lost: set[str] = set()
        self._to_tiled = BackgroundSink(
            write,
            name="tiled-writer",
            limit=limit,
            finished=lambda uid, complete: self._finished(uid, "Tiled", complete),
        )
        self._to_file = BackgroundSink(
            self._files,
            name="tiled-backup",
            limit=limit,
            finished=lambda uid, complete: self._finished(uid, "file", complete),
        )

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Hand over one document to both threads."""
        self._to_file(name, doc)
        self._to_tiled(name, doc)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all documents so far are written.

        Returns
        -------
        bool
            False where that was not the case within `timeout_s` seconds.
        """
        return self._to_file.flush(timeout_s) and self._to_tiled.flush(timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what is waiting, then end both threads. It never raises.

        Returns
        -------
        bool
            False where Tiled, or the disk, didn't answer to everything within `timeout_s` seconds,
            or where a run is neither in Tiled nor, as a whole, in a file. The time is not used up
            where the server is known to be gone and the files are complete.
        """
        deadline = time.monotonic() + timeout_s
        backed_up = self._to_file.close(timeout_s)
        in_files = backed_up and not self._to_file.gave_up
        while (left_s := max(deadline - time.monotonic(), 0.0)) > 0:
            waiting = self._to_tiled.waiting
            if self._to_tiled.flush(min(left_s, _LOOK_S)):
                break
            stuck = self._to_tiled.waiting >= waiting
            if in_files and stuck and self._knows_it_is_down():
                logger.error(
                    "%s's server is gone; what it didn't get is in %s", self._store, self.folder
                )
                left_s = 0.0
                break
        stored = self._to_tiled.close(left_s)
        self._files.close()
        for uid in self._to_file.given_up_runs & self._to_tiled.given_up_runs:
            self._say_lost(uid)
        return backed_up and stored and not self._lost

    @property
    def folder(self) -> Path:
        """Folder of the JSON-lines files."""
        return self._files.folder

    def _finished(self, uid: str, where: str, complete: bool) -> None:
        with self._lock:
            outcomes = self._outcomes.setdefault(uid, {})
            outcomes[where] = complete
            if len(outcomes) < 2:
                return
            del self._outcomes[uid]
        try:
            self._conclude(uid, outcomes["Tiled"], outcomes["file"])
        finally:
            self._files.release(uid)

    def _conclude(self, uid: str, in_tiled: bool, in_file: bool) -> None:
        if not in_tiled and not in_file:
            self._say_lost(uid)
            return
        if not in_tiled:
            logger.error(
                "run %s is not in %s; it is in %s", uid, self._store, self._files.path(uid)
            )
        elif not self._keep:
            self._files.delete(uid)
        elif not in_file:
            logger.error(
                "run %s is in %s; its file in %s is not complete", uid, self._store, self.folder
            )

    def _say_lost(self, uid: str) -> None:
        self._lost.add(uid)
        logger.error(
            "run %s is neither in %s nor, as a whole, in %s", uid, self._store, self.folder
        )

    def _knows_it_is_down(self) -> bool:
        try:
            return self._is_down()
        except Exception:  # closing must not fail because of a question
            logger.exception("it isn't known whether %s's server is there", self._store)
            return False


def safe_writer(client: Any, backup: str | Path, **options: Any) -> SafeWriter:
    """Return a `SafeWriter` that writes to a Tiled client.

    Parameters
    ----------
    client
        The catalog's client, as from `embedded_catalog` or ``tiled.client.from_uri``.
    backup
        Folder of the JSON-lines files.
    options
        Further arguments of `SafeWriter`.

    Raises
    ------
    MissingExtraError
        bluesky-tiled-plugins is not installed.
    """
    return SafeWriter(
        tiled_writer(client), backup, **{"is_down": lambda: catalog_is_down(client), **options}
    )


def catalog_is_down(client: Any) -> bool:
    """Return whether connections to the client's server are refused; False where it isn't known."""
    context = client.context
    if hasattr(context.http_client, "app"):
        # The catalog is embedded in this process, so there is no address to connect to.
        return False
    address = urlsplit(str(context.api_uri))
    port = address.port or (443 if address.scheme == "https" else 80)
    try:
        socket.create_connection((address.hostname, port), timeout=_KNOCK_S).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        # Slow, unknown, or behind a proxy: only the time limit of `SafeWriter.close` decides.
        return False
    return False


@dataclass(frozen=True)
class Reingested:
    """What happened to the runs in a backup folder."""

    stored: tuple[str, ...] = ()
    """Uids of the runs that are in Tiled now."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """The reason by file name, for files that could not be stored and were left where they are."""
    busy: frozenset[str] = frozenset()
    """Names of those among them that somebody is writing."""


def reingest(
    client: Any,
    backup: str | Path,
    *,
    unfinished: bool = False,
    within_s: float = math.inf,
    beside: DocumentSink | None = None,
) -> Reingested:
    """Write the runs in a backup folder to Tiled, and delete their files.

    A part of such a run that is in Tiled already is replaced, unless it has rows that the file
    lacks. Files that are being written at the moment, in this process or another, are left alone.

    Parameters
    ----------
    client
        The catalog's client.
    backup
        Folder of the JSON-lines files, as of `safe_writer`.
    unfinished
        Also store runs without a stop document, whose session has died. They get a stop document
        with the exit status "abort".
    within_s
        No further file is begun after so many seconds.
    beside
        Also called with the documents of each run that is stored.

    Returns
    -------
    Reingested
        The runs that were stored, and the files that were not.
    """
    stored: list[str] = []
    failed: dict[str, str] = {}
    busy: set[str] = set()
    deadline = time.monotonic() + within_s
    for path in sorted(Path(backup).glob("*.jsonl")):
        if time.monotonic() > deadline:
            break
        try:
            with left_alone(path):
                uid = stored_file(client, path, unfinished=unfinished, beside=beside)
                path.unlink()
        except FileBusyError as error:
            logger.info("%s is not stored: %s", path, in_words(error))
            failed[path.name] = str(error)
            busy.add(path.name)
        except Exception as error:  # noqa: BLE001 - one bad file must not keep the others
            logger.warning("%s is not stored: %s", path, in_words(error))
            failed[path.name] = str(error)
        else:
            stored.append(uid)
    return Reingested(tuple(stored), failed, frozenset(busy))


def stored_file(
    client: Any, path: Path, *, unfinished: bool = False, beside: DocumentSink | None = None
) -> str:
    """See that the run in a file is in Tiled as a whole, and return its uid.

    Parameters
    ----------
    client
        The catalog's client.
    path
        The file, which nobody else may be writing.
    unfinished
        Whether the run may lack its stop document.
    beside
        Also called with its documents.

    Raises
    ------
    FileFormatError
        The file is damaged, holds no whole run, or lacks rows that Tiled has.
    """
    docs = list(documents(path))
    if not docs or docs[0][0] != "start":
        raise FileFormatError("it doesn't begin with a start document")
    if docs[-1][0] != "stop" and not unfinished:
        raise FileFormatError("the run has no stop document (see `unfinished`)")
    whole, uid = list(with_stops(docs)), docs[0][1]["uid"]
    if uid not in client or not _has_all(client[uid], docs):
        _replace(client, whole)
    if beside is not None:
        for name, doc in whole:
            beside(name, doc)
    return uid


def _has_all(run: Any, docs: Documents) -> bool:
    """Return whether a run in Tiled has a stop document and all rows of a file.

    Raises
    ------
    FileFormatError
        It has rows that the file lacks, or can't be read, so that it must not be replaced.
    """
    try:
        known = list(documents(run))
    except Exception as error:
        raise FileFormatError(
            f"what Tiled has of the run can't be read, so it isn't replaced: {in_words(error)}"
        ) from error
    in_tiled, in_file = _rows(known), _rows(docs)
    if known[-1][0] == "stop" and in_file <= in_tiled:
        return True
    if not in_tiled <= in_file:
        raise FileFormatError(
            f"Tiled has {in_tiled.total()} rows of the run and the file {in_file.total()}, so it "
            "isn't replaced"
        )
    return False


def _rows(docs: Documents) -> Counter[str]:
    """Return the number of rows in each stream; those of external data count as well."""
    streams: dict[str, str] = {}
    events: Counter[str] = Counter()
    external: Counter[str] = Counter()
    for name, doc in docs:
        if name == "descriptor":
            streams[doc["uid"]] = doc.get("name", "")
        elif name == "event":
            events[streams.get(doc["descriptor"], "")] += 1
        elif name == "stream_datum":
            stream = streams.get(doc["descriptor"], "")
            last = doc.get("seq_nums", {}).get("stop", 1) - 1
            external[stream] = max(external[stream], last)
    return events | external


def _replace(client: Any, docs: Documents) -> None:
    uid = docs[0][1]["uid"]
    if uid in client:
        client.delete_contents([uid], recursive=True, external_only=False)
    write = tiled_writer(client)
    for name, doc in docs:
        write(name, doc)
