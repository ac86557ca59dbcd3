"""Runs in Tiled: an embedded catalog in a folder, and a writer that can't harm a scan.

Tiled is imported inside the functions, because it belongs to the extra `tiled`. The embedded
catalog needs the extra `tiled-server`.
"""

from __future__ import annotations

import copy
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xrf_sr_plans.errors import MissingExtraError
from xrf_sr_plans.schema import Documents, DocumentSink
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.jsonl import JsonlWriter, read_jsonl
from xrf_sr_plans.store.unfinished import with_stops

logger = logging.getLogger(__name__)

BATCH_ROWS = 1000
"""Rows per write. The same data take far longer to write in small batches."""
_LOOK_S = 0.5
"""Interval in seconds at which a writer that is being closed checks that its server is there."""
_KNOCK_S = 1.0
"""Longest time in seconds that such a check may take."""


@contextmanager
def embedded_catalog(folder: str | Path) -> Iterator[Any]:
    """Open a Tiled catalog of bluesky runs in a folder, without a server or a port.

    Parameters
    ----------
    folder
        Folder of the catalog. A new catalog is made where there is none.

    Yields
    ------
    tiled.client.container.Container
        The client. Look-ups such as ``catalog[uid]`` and ``catalog[-1]``, and searches, work as
        with a server.

    Raises
    ------
    MissingExtraError
        The server part of Tiled is not installed.
    """
    try:
        from tiled.catalog import from_uri
        from tiled.client import Context, from_context
        from tiled.media_type_registration import default_serialization_registry
        from tiled.server.app import build_app
    except ImportError as error:
        raise MissingExtraError("the embedded Tiled catalog", "tiled-server") from error
    folder = Path(folder).absolute()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    registry = copy.copy(default_serialization_registry)
    _register_exporter(registry)
    tree = from_uri(
        f"sqlite:///{folder / 'catalog.db'}",
        init_if_not_exists=True,
        specs=[{"name": "CatalogOfBlueskyRuns", "version": "3.0"}],
        writable_storage=[str(folder / "data"), f"sqlite:///{folder / 'tables.db'}"],
    )
    with Context.from_app(build_app(tree, serialization_registry=registry)) as context:
        yield from_context(context)


def _register_exporter(registry: Any) -> None:
    """Make ``run.documents()`` work for other programs; `store.documents` doesn't need it."""
    try:
        from bluesky_tiled_plugins.exporters import json_seq_exporter
    except ImportError:
        return
    registry.register("BlueskyRun", "application/json-seq", json_seq_exporter)


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
    """

    def __init__(
        self,
        write: DocumentSink,
        folder: str | Path,
        *,
        limit: int = 2000,
        keep_files: bool = False,
        is_down: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_down = is_down
        self._files = JsonlWriter(folder)
        self._keep = keep_files
        self._lock = threading.Lock()
        self._outcomes: dict[str, list[bool]] = {}
        self._to_tiled = BackgroundSink(
            write, name="tiled-writer", limit=limit, finished=self._finished_tiled
        )
        self._to_file = BackgroundSink(
            self._files, name="tiled-backup", limit=limit, finished=self._finished_file
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
        """Write what is waiting, then end both threads.

        Returns
        -------
        bool
            False where Tiled, or the disk, didn't take everything within `timeout_s` seconds. The
            time is not used up where the server is known to be gone and the files are complete.
        """
        deadline = time.monotonic() + timeout_s
        backed_up = self._to_file.close(timeout_s)
        in_files = backed_up and not self._to_file.gave_up
        while (left_s := max(deadline - time.monotonic(), 0.0)) > 0:
            waiting = self._to_tiled.waiting
            if self._to_tiled.flush(min(left_s, _LOOK_S)):
                break
            stuck = self._to_tiled.waiting >= waiting
            if in_files and stuck and self._is_down():
                logger.error("Tiled's server is gone; what it didn't get is in %s", self.folder)
                left_s = 0.0
                break
        stored = self._to_tiled.close(left_s)
        self._files.close()
        return backed_up and stored

    @property
    def folder(self) -> Path:
        """Folder of the JSON-lines files."""
        return self._files.folder

    def _finished_tiled(self, uid: str, complete: bool) -> None:
        self._finished(uid, complete)

    def _finished_file(self, uid: str, complete: bool) -> None:
        # Whether the file is complete doesn't matter: it is kept wherever Tiled lacks the run. This
        # only says that the file isn't being written any more, so that it may be deleted.
        self._finished(uid, True)

    def _finished(self, uid: str, stored: bool) -> None:
        with self._lock:
            outcomes = self._outcomes.setdefault(uid, [])
            outcomes.append(stored)
            if len(outcomes) < 2:
                return
            del self._outcomes[uid]
        path = self._files.path(uid)
        if not all(outcomes):
            logger.error("run %s is not in Tiled; it is in %s", uid, path)
        elif not self._keep:
            path.unlink(missing_ok=True)


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
        tiled_writer(client), backup, **{"is_down": lambda: _is_down(client), **options}
    )


def _is_down(client: Any) -> bool:
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


def reingest(client: Any, backup: str | Path, *, unfinished: bool = False) -> Reingested:
    """Write the runs in a backup folder to Tiled, and delete their files.

    Whatever part of such a run is in Tiled already is replaced.

    Parameters
    ----------
    client
        The catalog's client.
    backup
        Folder of the JSON-lines files, as of `safe_writer`.
    unfinished
        Also store runs without a stop document, which may still be open. They get a stop document
        with the exit status "abort".

    Returns
    -------
    Reingested
        The runs that were stored, and the files that were not.
    """
    stored: list[str] = []
    failed: dict[str, str] = {}
    for path in sorted(Path(backup).glob("*.jsonl")):
        try:
            docs = list(read_jsonl(path))
            if not docs or docs[0][0] != "start":
                raise ValueError("it doesn't begin with a start document")
            if docs[-1][0] != "stop":
                if not unfinished:
                    raise ValueError("the run has no stop document (see `unfinished`)")
                docs = list(with_stops(docs))
            _replace(client, docs)
        except Exception as error:  # noqa: BLE001 - one bad file must not keep the others
            logger.warning("%s is not stored: %r", path, error)
            failed[path.name] = str(error)
        else:
            path.unlink()
            stored.append(docs[0][1]["uid"])
    return Reingested(tuple(stored), failed)


def _replace(client: Any, docs: Documents) -> None:
    uid = docs[0][1]["uid"]
    if uid in client:
        client.delete_contents([uid], recursive=True, external_only=False)
    write = tiled_writer(client)
    for name, doc in docs:
        write(name, doc)
