"""`RunStore`: everything that a session measures and finds, kept where one setting says."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import threading
from pathlib import Path
from typing import Any

from xrf_sr_plans.config import folder_flaw
from xrf_sr_plans.errors import ConfigError, MissingExtraError, in_words
from xrf_sr_plans.ranges import check
from xrf_sr_plans.schema import DocumentSink
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.catalog_process import CatalogProcess, FolderWriter
from xrf_sr_plans.store.embedded import embedded_catalog
from xrf_sr_plans.store.jsonl import JsonlWriter
from xrf_sr_plans.store.sources import BROKER, SERVERS, TILED, Place, opened
from xrf_sr_plans.store.tiled import SafeWriter, catalog_is_down, reingest, tiled_writer

logger = logging.getLogger(__name__)

OFF = "off"
"""The setting that keeps nothing."""
DEFAULT = "default"
"""The setting that keeps runs in `default_place`."""
JSONL = "jsonl:"
_OPEN_S = 300.0
"""Longest wait of somebody who asks for the catalog, until its process has opened it."""
_CATCH_UP_S = 20.0
"""Longest time at the start of a session in which runs are stored that Tiled had missed."""


def default_place() -> str:
    """Return the folder in which runs are kept unless somebody says otherwise."""
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return str(Path(home) / "xrf_sr_plans" / "runs")


class RunStore:
    """A document sink that keeps runs in Tiled, in databroker or in files.

    Subscribe it to a RunEngine and give it to the analysis as a sink, as `start_session` does with
    its argument `store`. It never raises and never blocks: an embedded catalog is written to by a
    process of its own (`store.catalog_process`), any other by a thread, which opens it when the
    first run comes. What the catalog doesn't take stays in files, which are stored when a session
    opens the catalog the next time.

    Parameters
    ----------
    where
        A folder, which becomes an embedded Tiled catalog, or, without the extra `tiled-server`,
        holds a file for each run; ``jsonl:FOLDER`` for such files in any case; the address of a
        Tiled server or ``tiled:PROFILE``; or ``databroker:CATALOG``.
    backup
        Folder of the files of runs that a catalog doesn't take. None: in the folder of an embedded
        catalog, else beside the default place.

    Raises
    ------
    ConfigError
        A folder can't be made or written to.
    """

    def __init__(self, where: str, backup: str | Path | None = None) -> None:
        self.where = where
        self._place, folder = _place(where)
        if self._place is None:
            self.backup = Path(folder)
        else:
            inside = self._place.kind == "folder"
            home = folder if inside else str(Path(default_place()).parent)
            self.backup = Path(home) / "backup" if backup is None else Path(backup)
        check("store", folder_flaw("folder", folder) if folder else "")
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._runs: Any = None
        self._sinks: list[DocumentSink] = []
        self._process: CatalogProcess | None = None
        self._writer = self._new_writer()

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of any run."""
        self._writer(name, doc)

    @property
    def catalog(self) -> Any:
        """The client of the catalog; None where there are only files. It waits until it is open.

        A run is in an embedded catalog a moment after it is over.

        Raises
        ------
        FileFormatError
            The catalog doesn't answer.
        MissingExtraError
            What opens it is not installed.
        """
        if self._place is None:
            return None
        self._open()
        return self._runs

    @property
    def is_local(self) -> bool:
        """Whether runs are kept in a folder, and no server is needed for it."""
        return self._place is None or self._place.kind == "folder"

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far is kept; return whether that took less than `timeout_s`."""
        return self._writer.flush(timeout_s)

    def close(self, timeout_s: float = 10.0) -> bool:
        """Keep what is waiting, then close the catalog. It never raises.

        Returns
        -------
        bool
            False where something did not get to its place within `timeout_s` seconds. It is in
            the files of `backup` then, unless the log says otherwise.
        """
        done = self._writer.close(timeout_s)
        if not done:
            logger.warning("not everything is in %s; see %s", self.where, self.backup)
        try:
            # A thread that still writes holds the catalog open until the process ends.
            if done:
                self._stack.close()
        except Exception as error:  # noqa: BLE001 - a session that ends must not fail at this
            logger.warning("closing %s: %s", self.where, in_words(error))
        return done

    def _new_writer(self) -> Any:
        if self._place is None:
            self._sinks = [JsonlWriter(self.backup)]
            return BackgroundSink(self._sinks[0], name="run-files")
        if self._place.kind == "folder":
            self._process = CatalogProcess(self._place.where, self.backup)
            return FolderWriter(self.backup, self._process)
        return SafeWriter(self._write, self.backup, is_down=self._is_down, store=self._place.label)

    def _write(self, name: str, doc: dict[str, Any]) -> None:
        self._open()
        for sink in self._sinks:
            sink(name, doc)

    def _is_down(self) -> bool:
        if self._place is None or self._place.kind != "tiled" or self._runs is None:
            return False
        return catalog_is_down(self._runs)

    def _open(self) -> None:
        with self._lock:
            if self._runs is not None:
                return
            assert self._place is not None
            if self._place.kind == "databroker":
                self._runs = opened(self._place)
                self._sinks = [self._runs.v1.insert]
                return
            if self._process is not None:
                if not self._process.wait_until_open(_OPEN_S):
                    logger.warning("%s: runs are still missing; see the log", self.where)
                self._runs = self._stack.enter_context(embedded_catalog(self._place.where))
                return
            runs, maps = self._tiled(self._place)
            self._catch_up(runs, maps)
            self._sinks = [tiled_writer(runs), *([] if maps is None else [maps])]
            self._runs = runs

    def _tiled(self, place: Place) -> tuple[Any, DocumentSink | None]:
        """Return the client of the runs, and what writes maps."""
        from xrf_sr_plans.store.tiled_maps import MapsWriter, container_beside

        runs = opened(place)
        try:
            return runs, MapsWriter(container_beside(runs))
        except Exception as error:  # noqa: BLE001 - the runs are what counts
            logger.warning("%s: no maps beside the runs: %s", place.label, in_words(error))
            return runs, None

    def _catch_up(self, runs: Any, maps: DocumentSink | None) -> None:
        done = reingest(runs, self.backup, unfinished=True, within_s=_CATCH_UP_S, beside=maps)
        if done.stored:
            logger.info("%s: %d runs of before are stored now", self.where, len(done.stored))
        # This session's own first run is being written while the catalog is opened for it.
        stay = [why for name, why in done.failed.items() if name not in done.busy]
        if stay:
            logger.warning(
                "%s: %d files stay in %s: %s", self.where, len(stay), self.backup, stay[0]
            )


def open_store(where: str | None) -> RunStore | None:
    """Return a store, or None where nothing is to be kept.

    Parameters
    ----------
    where
        As of `RunStore`; ``default`` stands for `default_place`, and ``off``, "" and None stand
        for nothing.

    Raises
    ------
    ConfigError
        A folder can't be made or written to, or a server was named and Tiled is not installed.
    """
    if not where or where.strip().lower() == OFF:
        return None
    return RunStore(default_place() if where.strip().lower() == DEFAULT else where)


def _place(where: str) -> tuple[Place | None, str]:
    """Return the catalog that is meant, None for files, and the folder, "" where there is none."""
    if where.startswith(JSONL):
        return None, where.removeprefix(JSONL)
    for start, kind, modules in (
        *((server, "tiled", "bluesky_tiled_plugins") for server in (*SERVERS, TILED)),
        (BROKER, "databroker", "databroker"),
    ):
        if where.startswith(start):
            if importlib.util.find_spec(modules) is None:
                raise MissingExtraError(f"the store {where!r}", kind)
            name = where.removeprefix(BROKER)
            return Place(kind, name), ""  # type: ignore[arg-type]
    if "://" in where:
        raise ConfigError(f"store is {where!r}; a folder, http(s)://…, {TILED}…, {BROKER}… or off")
    if _has_embedded():
        return Place("folder", where), where
    logger.info("%s: files, as the extra `tiled-server` is not installed", where)
    return None, where


def _has_embedded() -> bool:
    try:
        needed = ("tiled.server", "sqlalchemy", "uvicorn", "bluesky_tiled_plugins")
        return all(importlib.util.find_spec(name) is not None for name in needed)
    except ImportError:
        return False
