"""`ClusterAddress` and `connect`: how a Dask cluster is reached, encrypted beyond this machine."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from xrf_sr_plans.config.analysis import AnalysisSettings
from xrf_sr_plans.errors import ConfigError, MissingExtraError, in_words
from xrf_sr_plans.ranges import check

if TYPE_CHECKING:
    from distributed import Client, Security
    from distributed.utils import LoopRunner

CA_FILE = "ca.pem"
"""Certificate of the authority that signed all others, in a folder of keys."""
CERTIFICATE_FILE = "cert.pem"
"""Certificate of whoever the folder belongs to."""
KEY_FILE = "key.pem"
"""The secret key that goes with it."""

ENHANCED_HERE = "enhanced on this machine: "
"""What the reason of a summary begins with, or goes on with, where the cluster was not used; then
it says why."""
CONNECT_TIMEOUT_S = 20.0
"""Longest wait for the scheduler of a cluster."""


@dataclass(frozen=True)
class ClusterAddress:
    """Where the scheduler of a Dask cluster listens, and how to speak to it."""

    address: str
    """``tls://host:port``, or ``tcp://host:port`` on this machine."""
    keys: str | None = None
    """Folder with `CA_FILE`, `CERTIFICATE_FILE` and `KEY_FILE`; None: as Dask's own configuration
    says."""
    plain: bool = False
    """Whether ``tcp://`` is allowed beyond this machine. Whoever reaches such a cluster can run
    anything on it, and reads everything."""

    @property
    def flaw(self) -> str:
        """The sentence that refuses the address or its keys, or ""; nothing is connected."""
        scheme, host, port = _parts(self.address)
        if scheme not in ("tls", "tcp") or not host or port is None:
            return (
                f"the cluster is at {self.address!r}; tls://host:port is needed, or on this machine"
                " tcp://localhost:port"
            )
        if scheme == "tcp" and not self.plain and not is_this_machine(host):
            return (
                f"the cluster is at {self.address!r}, another machine; only tls://host:port is"
                " encrypted and knows who asks"
            )
        if self.keys is None:
            return ""
        missing = [
            name
            for name in (CA_FILE, CERTIFICATE_FILE, KEY_FILE)
            if not (Path(self.keys) / name).is_file()
        ]
        if missing:
            return f"the folder of keys {self.keys!r} has no {' and no '.join(missing)}"
        return ""

    @property
    def encrypted(self) -> bool:
        """Whether the connection is by TLS."""
        return _parts(self.address)[0] == "tls"


def address_of(settings: AnalysisSettings) -> ClusterAddress | None:
    """Return the cluster that enhances maps, by the settings; None where there is none."""
    if settings.dask is None:
        return None
    keys = None if settings.dask_keys is None else str(settings.dask_keys)
    return ClusterAddress(settings.dask, keys, settings.dask_plain)


def check_settings(settings: AnalysisSettings) -> None:
    """Refuse a cluster that can't be used as it is set; nothing is connected.

    Raises
    ------
    ConfigError
        The address is none, is not encrypted, or keys are missing.
    MissingExtraError
        Dask.distributed is not installed.
    """
    where = address_of(settings)
    if where is None:
        return
    check("analysis settings", where.flaw)
    if find_spec("distributed") is None:
        raise MissingExtraError("the setting analysis.dask", "dask")


def security(keys: str | Path | None, *, encrypted: bool) -> Security:
    """Return what Dask has to know of keys, for clients, schedulers and workers alike.

    Parameters
    ----------
    keys
        The folder of keys; None: as Dask's own configuration says.
    encrypted
        Whether anything that is not encrypted is refused.

    Raises
    ------
    ConfigError
        It is to be encrypted, and neither a folder nor Dask's configuration names keys; or those in
        the folder can't be used.
    MissingExtraError
        Dask.distributed is not installed.
    """
    try:
        from distributed import Security
    except ImportError as error:
        raise MissingExtraError("a Dask cluster", "dask") from error
    if not encrypted:
        return Security(require_encryption=False)
    if keys is None:
        known: Any = Security(require_encryption=True)
        if not known.tls_ca_file:
            raise ConfigError(
                "a connection by TLS needs keys: name their folder, as made by `xrf-sr cluster"
                " keys`, or set distributed.comm.tls in Dask's configuration"
            )
        return known
    folder = Path(keys).expanduser()
    certificate, key = str(folder / CERTIFICATE_FILE), str(folder / KEY_FILE)
    roles = ("client", "scheduler", "worker")
    found = Security(
        require_encryption=True,
        tls_ca_file=str(folder / CA_FILE),
        **{f"tls_{role}_cert": certificate for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )
    _check_keys(str(keys), found)
    return found


def connect(where: ClusterAddress, timeout_s: float = CONNECT_TIMEOUT_S) -> Client:
    """Return a client of the cluster, which is not made Dask's default one.

    Parameters
    ----------
    where
        The cluster.
    timeout_s
        Longest wait for the scheduler.

    Raises
    ------
    ConfigError
        The address or the keys are none, or no scheduler answers there in time.
    MissingExtraError
        Dask.distributed is not installed.
    """
    if flaw := where.flaw:
        raise ConfigError(flaw)
    safe = security(where.keys, encrypted=where.encrypted)
    from xrf_sr_plans.cluster.prompt_client import PromptClient

    try:
        return PromptClient(
            where.address,
            security=safe,
            set_as_default=False,
            timeout=timeout_s,
            loop=_runner(os.getpid()).loop,
        )
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f"no Dask scheduler at {where.address!r}: {in_words(error)}") from error


def inside_a_task() -> bool:
    """Return whether this is a task that a worker of a cluster does."""
    # Another thread may be importing it just now; then it has no such function yet.
    get_worker = getattr(sys.modules.get("distributed"), "get_worker", None)
    if get_worker is None:
        return False
    try:
        get_worker()
    except ValueError:
        return False
    return True


def _check_keys(folder: str, known: Security) -> None:
    """Refuse keys that are over or damaged, which else looks as if there were no scheduler."""
    from xrf_sr_plans.cluster.keys import days_left

    left = days_left(folder)
    if left <= 0:
        raise ConfigError(
            f"the keys in {folder!r} ended {-left:.1f} days ago; move them away, and make new ones"
            " with `xrf-sr cluster keys`"
        )
    try:
        known.get_connection_args("client")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the keys in {folder!r} can't be used: {in_words(error)}") from error


@cache
def _runner(_pid: int) -> LoopRunner:
    """Return what runs the event loop of all clients of this process, in a thread of its own.

    A client that can't connect, or whose connection is lost, never ends the thread that it has
    made for itself. Where a cluster is gone for days that would be thousands.
    """
    from distributed.utils import LoopRunner

    runner = LoopRunner()
    runner.start()
    return runner


def is_this_machine(host: str) -> bool:
    """Return whether a host's name or address is one that no other machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parts(address: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return "", "", None
