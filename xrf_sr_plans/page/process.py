"""`PageProcess`: the page's server in a process of its own, which ends with the session."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xrf_sr_plans.config import QueueSettings

logger = logging.getLogger(__name__)

MOST_RESTARTS = 5
"""How often a server that died is started again."""
_QUIET_S = 60.0
"""A server that lived longer than this may be restarted as often as a new one."""


class PageProcess:
    """Start the page's server beside the session, and start it again if it dies.

    Nothing of it runs in the RunEngine's process but a thread that waits for it to end.

    Parameters
    ----------
    folder
        Folder of the surveys.
    approvals
        Folder of the approvals; None: the default one.
    host, port
        Where it listens; port 0: any that is free, None: the usual one.
    queue
        The queue server that regions are sent to; None: the one on this computer.

    Attributes
    ----------
    address
        Address of the page; "" until it can be opened.
    starts
        How many servers there have been.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        approvals: str | Path | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        queue: QueueSettings | None = None,
    ) -> None:
        self._options: dict[str, Any] = {
            "folder": str(folder),
            "approvals": None if approvals is None else str(approvals),
            "host": host,
            "port": port,
            "queue": None if queue is None else queue.model_dump(mode="json"),
        }
        self.address = ""
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = threading.Event()
        self._known = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="xrf-sr-page", daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Process id of the server; None while none is running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def wait_until_open(self, timeout_s: float) -> str:
        """Return the address, or "" if the page can't be opened within the time."""
        self._known.wait(timeout_s)
        return self.address

    def close(self, timeout_s: float = 5.0) -> None:
        """End the server."""
        self._closed.set()
        process = self._process
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(timeout_s)

    def _keep(self) -> None:
        died = 0
        while not self._closed.is_set() and died <= MOST_RESTARTS:
            began = time.monotonic()
            if not self._run_once():
                return
            died = 1 if time.monotonic() - began > _QUIET_S else died + 1
            if not self._closed.is_set():
                logger.warning("the page's server ended; it is started again")
                self._closed.wait(min(0.2 * 2**died, 5.0))
        if not self._closed.is_set():
            logger.error("the page's server ended %d times; it is not started again", died)

    def _run_once(self) -> bool:
        """Run one server to its end; return False where another one would fail as well."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "xrf_sr_plans.page.serve", json.dumps(self._options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C at the prompt is not for the page
            )
        except OSError as error:
            logger.warning("no page: %s", error)
            self._known.set()
            return False
        self._process = process
        self.starts += 1
        assert process.stdout is not None
        said = process.stdout.readline().decode(errors="replace").strip()
        if said.startswith("error: "):
            logger.warning("no page: %s", said.removeprefix("error: "))
            self._known.set()
            return False
        if said:
            if said != self.address:
                logger.info("surveys are watched and approved at %s", said)
            self.address = said
            # Where any port would do, open pages look for the next server at this one.
            self._options["port"] = urlsplit(said).port
            self._known.set()
        process.wait()
        process.stdout.close()
        return True
