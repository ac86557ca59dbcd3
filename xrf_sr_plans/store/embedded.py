"""A Tiled catalog in a folder, without a server or a port; it needs the extra `tiled-server`.

The folder holds ``catalog.db`` with the runs, ``maps.db`` with the measured maps put together from
their rows, ``tables.db`` and ``data`` with what both refer to, and ``tiled.yml``, with which
``tiled serve config`` shows all of it in a web browser.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import MissingExtraError

logger = logging.getLogger(__name__)

RUNS_FILE = "catalog.db"
"""File by which a folder is known to be an embedded catalog."""
MAPS_FILE = "maps.db"
SERVER_FILE = "tiled.yml"
_EXPORTER = "bluesky_tiled_plugins.exporters:json_seq_exporter"


@dataclass(frozen=True)
class EmbeddedCatalog:
    """Clients of an embedded catalog."""

    runs: Any
    """The runs. Look-ups such as ``runs[uid]`` and ``runs[-1]``, and searches, work as with a
    server."""
    maps: Any
    """The measured maps, by the uid of their run."""


@contextmanager
def embedded(folder: str | Path) -> Iterator[EmbeddedCatalog]:
    """Open the runs and the maps in a folder.

    Parameters
    ----------
    folder
        Folder of the catalog. A new catalog is made where there is none.

    Yields
    ------
    EmbeddedCatalog
        The clients, which may be used in several threads.

    Raises
    ------
    MissingExtraError
        The server part of Tiled is not installed.
    OSError
        The databases can't be made.
    """
    try:
        from tiled.client import Context, from_context
        from tiled.server.app import build_app_from_config
    except ImportError as error:
        raise MissingExtraError("the embedded Tiled catalog", "tiled-server") from error
    folder = Path(folder).absolute()
    (folder / "data").mkdir(parents=True, exist_ok=True)
    _make_databases(folder)
    config = _config(folder)
    _write_server_file(folder, config)
    with Context.from_app(build_app_from_config(config)) as context:
        root = from_context(context)
        yield EmbeddedCatalog(root["runs"], root["maps"])


@contextmanager
def embedded_catalog(folder: str | Path) -> Iterator[Any]:
    """Open the runs in a folder; see `embedded`.

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
    with embedded(folder) as catalog:
        yield catalog.runs


def _make_databases(folder: Path) -> None:
    """Make the databases that are missing, as a whole, whoever else is about to do the same.

    Raises
    ------
    OSError
        They can't be made.
    """
    missing = [name for name in (RUNS_FILE, MAPS_FILE) if not (folder / name).exists()]
    if not missing:
        return
    empty = folder / f".{os.getpid()}-{threading.get_ident()}.db"
    # Tiled itself makes a database in a process, which takes seconds; one is enough for both.
    command = [sys.executable, "-m", "tiled", "catalog", "init", f"sqlite:///{empty}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"no catalog can be made in {folder}: {done.stderr.strip()[-500:]}")
        for name in missing:
            with contextlib.suppress(FileExistsError):
                os.link(shutil.copy(empty, f"{empty}.{name}"), folder / name)
    finally:
        for part in folder.glob(f"{empty.name}*"):
            part.unlink(missing_ok=True)


def _config(folder: Path) -> dict[str, Any]:
    """Return what the server is told, be it embedded or one that `tiled serve config` starts."""
    storage = [str(folder / "data"), f"sqlite:///{folder / 'tables.db'}"]
    specs = [{"name": "CatalogOfBlueskyRuns", "version": "3.0"}]
    trees = [
        {
            "path": path,
            "tree": "catalog",
            "args": {
                "uri": f"sqlite:///{folder / file}",
                "writable_storage": list(storage),
                **more,
            },
        }
        for path, file, more in (("/runs", RUNS_FILE, {"specs": specs}), ("/maps", MAPS_FILE, {}))
    ]
    config: dict[str, Any] = {"trees": trees}
    try:
        import bluesky_tiled_plugins.exporters  # noqa: F401
    except ImportError:
        return config
    # Makes `run.documents()` work for other programs; `store.documents` doesn't need it.
    return {**config, "media_types": {"BlueskyRun": {"application/json-seq": _EXPORTER}}}


def _write_server_file(folder: Path, config: dict[str, Any]) -> None:
    path = folder / SERVER_FILE
    if path.exists():
        return
    import yaml

    try:
        path.write_text(
            "# tiled serve config --public tiled.yml\n" + yaml.safe_dump(config, sort_keys=False)
        )
    except OSError as error:
        # Whoever only reads a catalog may have no right to write to its folder.
        logger.info("%s is not written: %s", path, error)
