"""`CatalogProcess` and `FolderWriter`: an embedded catalog that is written to by a process.

Opening a catalog takes seconds of imports, and each run after that takes Python code that holds
the interpreter's lock, for which the RunEngine would wait between two rows. So the session's
process only writes the file of each run, and another process stores it (`catalog_keeper`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from xrf_sr_plans.errors import in_words
from xrf_sr_plans.store.background import BackgroundSink
from xrf_sr_plans.store.jsonl import JsonlWriter

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "xrf_sr_plans.store.catalog_keeper")
_LOOK_S = 1.0
_SILENT_S = 600.0
"""How long the process may say nothing to what it was asked for, before it counts as hanging."""
_STARTS = 3
"""How often in a row the process is started without storing anything."""
_END_S = 5.0


class CatalogProcess:
    """Have finished runs put into an embedded catalog by a process of its own.

    The process is started when the first run is over or somebody waits for the catalog, and again
    where it dies or hangs. What it doesn't store stays in its file, is told in the log, and is
    stored when a session opens the catalog the next time.

    Parameters
    ----------
    folder
        Folder of the catalog.
    backup
        Folder of the files of runs.
    command
        What is started instead of `COMMAND`.
    """

    def __init__(
        self, folder: str | Path, backup: str | Path, command: tuple[str, ...] = COMMAND
    ) -> None:
        self._folder, self._backup = Path(folder).absolute(), Path(backup).absolute()
        self._command = (*command, str(self._folder), str(self._backup))
        self._changed = threading.Condition()
        # All that follows is changed with the condition held.
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._is_open = False
        self._waiting: dict[str, float] = {}
        """When each run was asked for that there is no answer about, by its uid."""
        self._unasked: set[str] = set()
        """Those among them of which the process doesn't know yet."""
        self._stay: set[str] = set()
        self._starts = 0
        self._broken = ""
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Process id; None where there is no process."""
        process = self._process
        return None if process is None else process.pid

    @property
    def stay(self) -> frozenset[str]:
        """Uids of the runs of this session that stay in their files."""
        return frozenset(self._stay)

    def start(self) -> None:
        """Open the catalog, unless it is open already. It does not wait for that."""
        with self._changed:
            if self._process is None and not self._closed and not self._broken:
                self._start()

    def keep(self, uid: str) -> None:
        """Have a run stored whose file is complete. It does not wait for that."""
        with self._changed:
            if self._closed or self._broken:
                why = self._broken or "the store was closed"
                self._stays(uid, why)
                return
            self._waiting[uid] = time.monotonic()
            if self._process is None:
                self._start()
            else:
                self._ask(uid)

    def wait(self, timeout_s: float) -> bool:
        """Wait until there is an answer about each run; return whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, max(timeout_s, 0.0))

    def wait_until_open(self, timeout_s: float) -> bool:
        """Wait until earlier sessions' runs are stored, too; return whether that is so."""
        self.start()
        with self._changed:
            self._changed.wait_for(
                lambda: (self._is_open and not self._waiting) or bool(self._broken), timeout_s
            )
            return self._is_open and not self._waiting

    def close(self, timeout_s: float) -> bool:
        """Let the process end; return whether every run is in the catalog now.

        What isn't after `timeout_s` seconds is stored by the process nevertheless, which outlives
        the session for as long as that takes.
        """
        done = self.wait(timeout_s)
        with self._changed:
            self._closed = True
            process = self._process
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            if done:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_END_S)
        return done and not self._stay

    def _start(self) -> None:
        self._starts += 1
        self._is_open = False
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it is read when the process ends
            # A session of its own: Ctrl-C in the terminal is for the plan, not for the catalog.
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._break(f"no process can be started: {in_words(error)}")
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        threading.Thread(
            target=self._listen, args=(self._process,), name="xrf-sr-catalog", daemon=True
        ).start()
        for uid in self._waiting:
            self._ask(uid)

    def _ask(self, uid: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), (json.dumps(uid) + "\n").encode())
            self._unasked.discard(uid)
        except (OSError, ValueError):
            # A thousand runs wait for it, or it has died and the next one will be asked.
            self._unasked.add(uid)

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take the answers of a process until it ends; what hangs is ended."""
        assert process.stdout is not None
        descriptor, text = process.stdout.fileno(), b""
        heard = time.monotonic()
        while True:
            if not select.select([descriptor], [], [], _LOOK_S)[0]:
                if self._is_silent(heard):
                    logger.error("%s: its process says nothing and is ended", self._folder)
                    process.kill()
                continue
            part = os.read(descriptor, 2**16)
            if not part:
                break
            heard = time.monotonic()
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                try:
                    self._take(json.loads(line))
                except (ValueError, TypeError, AttributeError, KeyError):
                    logger.exception("%s: what its process says", self._folder)
        process.stdout.close()
        self._ended(process)

    def _is_silent(self, heard: float) -> bool:
        with self._changed:
            asked = min(self._waiting.values(), default=None)
        return asked is not None and time.monotonic() - max(asked, heard) > _SILENT_S

    def _take(self, said: dict[str, Any]) -> None:
        with self._changed:
            if "run" in said:
                self._waiting.pop(said["run"], None)
                self._starts = 1
                for uid in list(self._unasked):
                    self._ask(uid)
                if said["error"]:
                    self._stays(said["run"], said["error"])
            elif "error" in said:
                self._break(said["error"])
            else:
                self._is_open = True
                if said["stored"]:
                    logger.info("%s: %d runs of before are stored", self._folder, said["stored"])
                if said["stay"]:
                    logger.warning("%s: files stay: %s", self._backup, said["stay"])
            self._changed.notify_all()

    def _ended(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        if process.returncode is None:
            # It has closed what it speaks through, and has nothing left to do but to end.
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
        code = process.returncode
        with self._changed:
            self._process, self._is_open = None, False
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            words = self._last_words()
            if self._closed and not self._waiting:
                return
            if self._broken:
                return
            logger.warning("%s: its process ended (exit code %s%s)", self._folder, code, words)
            if self._closed or self._starts >= _STARTS:
                self._break(f"its process ended {self._starts} times in a row{words}")
            elif self._waiting:
                self._start()
            self._changed.notify_all()

    def _break(self, why: str) -> None:
        self._broken = why
        logger.error("%s is not written to any more: %s", self._folder, why)
        for uid in list(self._waiting):
            del self._waiting[uid]
            self._stays(uid, why)
        self._changed.notify_all()

    def _stays(self, uid: str, why: str) -> None:
        self._stay.add(uid)
        logger.error(
            "run %s is not in %s; it is in %s: %s",
            *(uid, self._folder, self._backup / f"{uid}.jsonl", why),
        )

    def _last_words(self) -> str:
        try:
            with self._log as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except (OSError, ValueError, AttributeError):
            return ""
        return f": {lines[-1]}" if lines else ""


class FolderWriter:
    """Write each run to a file, and have the file stored in an embedded catalog when it is whole.

    It never raises and never blocks.

    Parameters
    ----------
    backup
        Folder of the files, which are deleted as soon as the catalog has their runs.
    catalog
        What stores them.
    """

    def __init__(self, backup: str | Path, catalog: CatalogProcess) -> None:
        self._catalog = catalog
        self._files = JsonlWriter(backup)
        self._lost: set[str] = set()
        self._to_file = BackgroundSink(self._files, name="run-files", finished=self._finished)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take one document of any run."""
        self._to_file(name, doc)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything so far is stored; return whether that took less time."""
        deadline = time.monotonic() + timeout_s
        return self._to_file.flush(timeout_s) and self._catalog.wait(deadline - time.monotonic())

    def close(self, timeout_s: float) -> bool:
        """Store what is waiting, then end thread and process. It never raises.

        Returns
        -------
        bool
            False where a run is not in the catalog after `timeout_s` seconds.
        """
        deadline = time.monotonic() + timeout_s
        written = self._to_file.close(timeout_s)
        self._files.close()
        stored = self._catalog.close(deadline - time.monotonic())
        return written and stored and not self._lost and not self._to_file.given_up_runs

    def _finished(self, uid: str, complete: bool) -> None:
        if complete:
            self._catalog.keep(uid)
        else:
            self._lost.add(uid)
            logger.error("run %s is not, as a whole, in %s", uid, self._files.folder)
