"""`serve_scheduler`, `serve_workers` and `serve_local`: processes of Dask until a signal ends them.

Scheduler, nannies and workers are Dask's own. A nanny starts its worker's process again where it
died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from xrf_sr_plans.cluster.connection import ClusterAddress, is_this_machine, security
from xrf_sr_plans.cluster.lanes import resources_of
from xrf_sr_plans.cluster.processes import WorkerProcess
from xrf_sr_plans.errors import ConfigError, MissingExtraError, in_words
from xrf_sr_plans.sr.process_environment import process_environment

try:
    import dask.config
    from distributed import Nanny, Scheduler, Security
    from distributed.comm.addressing import get_address_host
    from distributed.system import MEMORY_LIMIT
    from distributed.utils import get_ip
except ImportError as error:
    raise MissingExtraError("a Dask cluster", "dask") from error

PRELOAD = "xrf_sr_plans.cluster.preload"
START_TIMEOUT_S = 60.0
"""Longest wait of a worker for its scheduler."""
_WORKER_TTL = "120s"
"""A worker that gives no sign of life for so long is ended and started again."""
_LOOPBACK = "127.0.0.1"
_QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.worker.memory.monitor-interval": "1s",
    "distributed.admin.tick.interval": "500ms",
}
"""What of Dask's configuration keeps an idle process from taking a few percent of a core, which
other processes of a beamline's computer may need."""


@dataclass(frozen=True)
class Listening:
    """Where a scheduler listens, and how it is spoken to."""

    host: str = _LOOPBACK
    port: int = 8786
    """0: any that is free."""
    keys: str | None = None
    """Folder of keys; None: no TLS, or with `encrypted` what Dask's own configuration says."""
    encrypted: bool = False
    """Whether it speaks TLS only."""
    plain: bool = False
    """Whether it may be reached from other machines without TLS."""
    dashboard: str | None = None
    """Address ``host:port`` of the dashboard, which asks nobody who they are; None: there is
    none."""

    def options(self) -> dict[str, Any]:
        """Return the arguments of Dask's scheduler.

        Raises
        ------
        ConfigError
            Others would reach it without keys, or the keys can't be used.
        """
        if not self.encrypted and not self.plain and not is_this_machine(self.host):
            raise ConfigError(
                f"a scheduler that listens at {self.host!r} without keys lets anybody run anything"
                " on its workers; give it keys, or allow it to be plain"
            )
        return {
            "host": self.host,
            "port": self.port,
            "protocol": "tls://" if self.encrypted else "tcp://",
            "security": _serving_security(self.keys, encrypted=self.encrypted),
            # Dask serves something over HTTP in any case.
            "dashboard_address": self.dashboard or f"{_LOOPBACK}:0",
            "dashboard": self.dashboard is not None,
            "preload": PRELOAD,
            "worker_ttl": _WORKER_TTL,
        }


Tell = Callable[[str], None]
"""Called with the scheduler's address once all is running."""


def serve_local(
    listening: Listening, workers: Sequence[WorkerProcess], threads: int, tell: Tell
) -> None:
    """Run a scheduler and its workers on this machine until SIGINT or SIGTERM.

    Parameters
    ----------
    listening
        Where the scheduler listens.
    workers
        The processes.
    threads
        Number of CPU threads of each.
    tell
        Called with the address.

    Raises
    ------
    ConfigError
        The address is taken or can't be listened at, or a worker didn't start.
    """
    scheduler = listening.options()
    # Whoever runs this wants to see what is wrong, and not each connection.
    logging.getLogger("distributed").setLevel(logging.WARNING)

    async def running() -> None:
        async with Scheduler(**scheduler) as begun:
            nannies = [
                _nanny(begun.address, one, len(workers), scheduler["security"], _LOOPBACK)
                for one in workers
            ]
            if not await _run_workers(nannies, lambda: tell(begun.address)):
                raise ConfigError("a worker ended for good; the messages above say why")

    os.environ.update(process_environment(threads, dict(os.environ)))
    _run(running, f"a scheduler at {listening.host}:{listening.port}")


def serve_scheduler(listening: Listening, tell: Tell) -> None:
    """Run a scheduler until SIGINT or SIGTERM.

    Parameters
    ----------
    listening
        Where it listens.
    tell
        Called with the address.

    Raises
    ------
    ConfigError
        The address is taken or can't be listened at.
    """
    options = listening.options()

    async def running() -> None:
        async with Scheduler(**options) as scheduler:
            tell(scheduler.address)
            await _signalled(scheduler.finished())

    _run(running, f"a scheduler at {listening.host}:{listening.port}")


def serve_workers(
    where: ClusterAddress,
    workers: Sequence[WorkerProcess],
    threads: int,
    tell: Tell,
    host: str | None = None,
) -> None:
    """Run workers of a scheduler until SIGINT or SIGTERM, or until the scheduler is gone.

    Parameters
    ----------
    where
        The scheduler.
    workers
        The processes.
    threads
        Number of CPU threads of each.
    tell
        Called with the scheduler's address once all have joined.
    host
        Address under which the workers are reached; None: the one that leads to the scheduler.

    Raises
    ------
    ConfigError
        The address or the keys are none, no scheduler answers there, or it is gone.
    """
    if flaw := where.flaw:
        raise ConfigError(flaw)
    known = _serving_security(where.keys, encrypted=where.encrypted)
    try:
        # Without an address Dask's workers listen at all of a machine's.
        listening = host or str(get_ip(get_address_host(where.address)))
    except (OSError, ValueError) as error:
        raise ConfigError(f"no way leads to {where.address!r}: {in_words(error)}") from error

    async def running() -> None:
        nannies = [_nanny(where.address, one, len(workers), known, listening) for one in workers]
        if not await _run_workers(nannies, lambda: tell(where.address)):
            raise ConfigError(f"the scheduler at {where.address!r} is gone, or ended a worker")

    os.environ.update(process_environment(threads, dict(os.environ)))
    _run(running, f"workers of {where.address!r}")


def _serving_security(keys: str | None, *, encrypted: bool) -> Security:
    """Return what Dask has to know of keys, which have been tried.

    Raises
    ------
    ConfigError
        The keys are missing or damaged, don't belong to each other, or are a beamline's.
    """
    known = security(keys, encrypted=encrypted)
    if not encrypted:
        return known
    if keys is not None:
        from xrf_sr_plans.cluster.keys import may_serve

        if not may_serve(keys):
            raise ConfigError(
                f"the keys in {keys!r} are for asking a cluster; those of a host are needed, as"
                " made by `xrf-sr cluster keys FOLDER --host NAME`"
            )
    try:
        known.get_listen_args("scheduler")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the keys in {keys!r} can't be used: {in_words(error)}") from error
    return known


def _nanny(
    scheduler: str, process: WorkerProcess, processes: int, known: Security, host: str
) -> Nanny:
    """Return the nanny of a worker's process; nothing is started before it is awaited."""
    return Nanny(
        scheduler,
        name=process.name,
        host=host,
        nthreads=1,
        resources=resources_of(process.lane),
        env=process.environment,
        # Dask's own share goes by cores, and is far too small where the GPU does the work.
        memory_limit=f"{MEMORY_LIMIT // processes} B",
        security=known,
        preload=PRELOAD,
        dashboard_address=f"{_LOOPBACK}:0",
        dashboard=False,
        death_timeout=START_TIMEOUT_S,
        silence_logs=logging.getLogger("distributed").level,
    )


async def _run_workers(nannies: Sequence[Nanny], tell: Callable[[], None]) -> bool:
    """Run workers until a signal or until one of them ended for good; tell whether by a signal."""
    try:
        await asyncio.gather(*nannies)
        tell()
        return await _signalled(*(nanny.finished() for nanny in nannies))
    finally:
        await asyncio.gather(*(nanny.close(timeout=10) for nanny in nannies))


async def _signalled(*ends: Awaitable[Any]) -> bool:
    """Wait for SIGINT, SIGTERM or the first of these ends; return whether it was a signal."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    tasks = [asyncio.ensure_future(one) for one in (signalled.wait(), *ends)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    return signalled.is_set()


def _run(running: Callable[[], Coroutine[Any, Any, None]], what: str) -> None:
    try:
        # Nannies hand it on to their workers.
        with dask.config.set(_QUIET):
            asyncio.run(running())
    except ConfigError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        # Dask only says that something failed to start; what it was says its cause, if anything.
        cause = error.__cause__
        told = in_words(cause if cause is not None and str(cause) else error)
        raise ConfigError(f"{what} can't be run: {told}") from error
