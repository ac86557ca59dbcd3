"""`serve`: the page's server, in the foreground until somebody ends it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from xrf_sr_plans.approval.folder import ApprovalFolder
from xrf_sr_plans.config import QueueSettings
from xrf_sr_plans.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from xrf_sr_plans.approval.send import Queue

DEFAULT_PORT = 8321
_TOKEN_FILE = ".page-token"


def serve(
    folder: str | Path,
    *,
    approvals: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    queue: QueueSettings | None = None,
    tell: Callable[[str], None],
    end_with: IO[bytes] | None = None,
) -> None:
    """Serve the page until the process is interrupted.

    Parameters
    ----------
    folder
        Folder of the surveys.
    approvals
        Folder of the approvals; None: the default one.
    host
        Address to listen at. Anything but this machine's own needs the token that is in the
        address which is told.
    port
        Port to listen at; 0: any that is free; None: `DEFAULT_PORT`.
    queue
        The queue server that regions are sent to; None: the one on this computer.
    tell
        Called with the address once the page can be opened.
    end_with
        A pipe at whose end the server ends, too; None: it goes on.

    Raises
    ------
    MissingExtraError
        Starlette or Uvicorn are not installed.
    ConfigError
        The port is taken, or the address is not one of this machine.
    """
    try:
        import uvicorn

        from xrf_sr_plans.page.server import page_app
        from xrf_sr_plans.page.watched import WatchedSurveys
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the page ({error.name})", "page") from error

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    is_local = _is_loopback(host)
    token = "" if is_local else _token(folder)
    listening = _listen(host, DEFAULT_PORT if port is None else port)
    port = listening.getsockname()[1]
    surveys = WatchedSurveys(folder, ApprovalFolder(approvals))
    names = ("127.0.0.1", "localhost", "[::1]") if is_local else ("*",)
    app = page_app(surveys, lambda: _queue(queue or QueueSettings()), token=token, hosts=names)
    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    if end_with is not None:
        _end_at_the_end_of(end_with, server)
    tell(f"http://{_named(host)}:{port}/" + (f"?token={token}" if token else ""))
    server.run(sockets=[listening])


def _queue(settings: QueueSettings) -> Queue:
    # Imported when it is needed: with ophyd it takes longer than all the rest.
    from xrf_sr_plans.queueing.from_settings import rescan_queue

    return rescan_queue(settings)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _named(host: str) -> str:
    """Return the name under which others reach what listens at an address."""
    if host in ("0.0.0.0", "::", ""):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # A page that starts again takes the port over at once.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"page: {host}:{port} can't be listened at: {error}") from error
    return listening


def _token(folder: Path) -> str:
    """Return the token of a folder's page, which stays the same over restarts."""
    path = folder / _TOKEN_FILE
    with contextlib.suppress(OSError):
        if token := path.read_text().strip():
            return token
    token = secrets.token_urlsafe(24)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token)
    return token


def _end_at_the_end_of(pipe: IO[bytes], server: Any) -> None:
    def wait() -> None:
        while pipe.read(4096):
            pass
        server.should_exit = True
        # Browsers keep their connections open.
        server.force_exit = True

    threading.Thread(target=wait, name="xrf-sr-page-end", daemon=True).start()


def main() -> None:
    """Serve the page for the session that started this process (see `process.PageProcess`)."""
    import json

    os.nice(5)
    options = json.loads(sys.argv[1])
    if told := options.pop("queue", None):
        options["queue"] = QueueSettings(**told)

    def tell(address: str) -> None:
        sys.stdout.write(address + "\n")
        sys.stdout.flush()

    try:
        serve(**options, tell=tell, end_with=sys.stdin.buffer)
    except (ConfigError, MissingExtraError) as error:
        sys.stdout.write(f"error: {error}\n")
        sys.stdout.flush()
        raise SystemExit(2) from None
    # Threads that still read files or wait for the queue must not keep the process.
    os._exit(0)


if __name__ == "__main__":
    main()
