"""The commands `xrf-sr cluster …`."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xrf_sr_plans.errors import ConfigError

if TYPE_CHECKING:
    from xrf_sr_plans.cluster.processes import WorkerProcess

cluster_app = typer.Typer(
    no_args_is_help=True, help="A Dask cluster that enhances maps for one beamline or for many."
)

KeysFlag = Annotated[
    Path | None,
    typer.Option("--keys", help="Folder with ca.pem, cert.pem and key.pem; with it, only TLS."),
]
PortFlag = Annotated[
    int, typer.Option(min=0, max=65_535, help="Port of the scheduler; 0: any that is free.")
]
WorkersFlag = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Pairs of worker processes, one for live maps and one for all that can wait;"
        " without it, one for each GPU, or one.",
    ),
]
DeviceFlag = Annotated[
    str, typer.Option(help="'auto' (GPUs where there are any), 'cpu' or 'cuda'.")
]
ThreadsFlag = Annotated[
    int,
    typer.Option(
        min=1,
        max=1024,
        help="CPU threads of each worker, as the setting analysis.threads has it: on a CPU the"
        " last bits depend on it.",
    ),
]
PlainFlag = Annotated[
    bool, typer.Option("--plain", help="Allow other machines without TLS; anybody gets in.")
]
DashboardFlag = Annotated[
    str | None,
    typer.Option(
        help="HOST:PORT of Dask's dashboard, which asks for no password; without it, none."
    ),
]


@cluster_app.command("local")
def local(
    workers: WorkersFlag = None,
    port: PortFlag = 8786,
    device: DeviceFlag = "auto",
    threads: ThreadsFlag = 1,
    keys: KeysFlag = None,
    dashboard: DashboardFlag = None,
) -> None:
    """Run a scheduler and its workers on this machine, for this machine, until Ctrl-C."""
    from xrf_sr_plans.cluster.serve import Listening, serve_local

    processes = _processes(workers, device, threads)
    listening = Listening(
        port=port,
        keys=_folder(keys),
        encrypted=keys is not None,
        dashboard=_dashboard(dashboard),
    )
    serve_local(listening, processes, threads, lambda address: _tell(address, keys))


@cluster_app.command("scheduler")
def scheduler(
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 stands for all of this machine's.")
    ] = "0.0.0.0",
    port: PortFlag = 8786,
    keys: KeysFlag = None,
    plain: PlainFlag = False,
    dashboard: DashboardFlag = "127.0.0.1:8787",
) -> None:
    """Run the scheduler of a cluster until Ctrl-C; workers are started apart from it."""
    from xrf_sr_plans.cluster.connection import is_this_machine
    from xrf_sr_plans.cluster.serve import Listening, serve_scheduler

    listening = Listening(
        host=host,
        port=port,
        keys=_folder(keys),
        encrypted=not plain and (keys is not None or not is_this_machine(host)),
        plain=plain,
        dashboard=_dashboard(dashboard),
    )
    serve_scheduler(listening, lambda address: _tell(address, keys))


@cluster_app.command("worker")
def worker(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="The scheduler, tls://host:8786.")
    ],
    workers: WorkersFlag = None,
    device: DeviceFlag = "auto",
    threads: ThreadsFlag = 1,
    keys: KeysFlag = None,
    plain: PlainFlag = False,
    host: Annotated[
        str | None,
        typer.Option(help="Address under which the scheduler reaches this machine."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the workers' names begin with; this machine's name.")
    ] = None,
) -> None:
    """Run workers of a scheduler on this machine until Ctrl-C, or until the scheduler is gone."""
    from xrf_sr_plans.cluster.connection import ClusterAddress
    from xrf_sr_plans.cluster.serve import serve_workers

    serve_workers(
        ClusterAddress(address, _folder(keys), plain),
        _processes(workers, device, threads, name),
        threads,
        lambda address: _say(f"workers of {address} are ready; Ctrl-C ends them"),
        host=host,
    )


@cluster_app.command("keys")
def keys(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder of the authority and of all keys.")
    ],
    beamlines: Annotated[
        list[str] | None,
        typer.Option("--for", help="Who asks the cluster, such as a beamline; repeatable."),
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="Where schedulers and workers run; repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(help="For how long the new keys are valid.")] = 730,
) -> None:
    """Make keys, with which a cluster knows who asks; again with more names whenever you like."""
    from xrf_sr_plans.cluster.keys import AUTHORITY_FOLDER, make_keys

    for made in make_keys(folder, hosts=hosts or (), beamlines=beamlines or (), days=days):
        _say(str(made))
    _say(
        "A key is as good as a login: whoever has one can run anything as the user of the workers."
        f" Hand out one folder each, and keep {folder / AUTHORITY_FOLDER} where nobody else reads"
        " it."
    )


@cluster_app.command("status")
def status(
    address: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="The scheduler, tls://host:8786.")
    ],
    keys: KeysFlag = None,
    plain: PlainFlag = False,
    timeout_s: Annotated[
        float, typer.Option(min=1, max=600, help="Longest wait for the scheduler, in seconds.")
    ] = 20.0,
) -> None:
    """Say how a cluster is doing: lanes, queue, latency, workers; exit with 1 on trouble."""
    from xrf_sr_plans.cluster.connection import ClusterAddress, connect
    from xrf_sr_plans.cluster.status import cluster_status

    where = ClusterAddress(address, _folder(keys), plain)
    with connect(where, timeout_s) as client:
        found = cluster_status(client, address, where.keys, timeout_s)
    for line in found.lines():
        _say(line)
    if found.problems:
        raise typer.Exit(1)


def _processes(
    workers: int | None, device: str, threads: int, name: str | None = None
) -> list[WorkerProcess]:
    from xrf_sr_plans.cluster.processes import gpus_here, worker_processes

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; auto, cpu or cuda")
    gpus = gpus_here(device)
    pairs = workers or max(len(gpus), 1)
    cores = len(os.sched_getaffinity(0))
    if gpus and pairs > len(gpus):
        _say(f"{pairs} pairs share {len(gpus)} GPUs, on each of which maps come one at a time")
    elif not gpus and pairs * threads > cores:
        _say(f"{pairs} pairs of {threads} threads have only {cores} cores and will be slower")
    return worker_processes(pairs, gpus, name or socket.gethostname())


def _dashboard(address: str | None) -> str | None:
    """Return where the dashboard is, and say what that means beyond this machine."""
    from xrf_sr_plans.cluster.connection import is_this_machine

    if not address:
        return None
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not host:
        raise ConfigError(f"dashboard is {address!r}; HOST:PORT is needed, such as 127.0.0.1:8787")
    if not is_this_machine(host.strip("[]")):
        _say(f"the dashboard at {address} shows everything to everybody who reaches it")
    return address


def _folder(keys: Path | None) -> str | None:
    return None if keys is None else str(keys.expanduser())


def _tell(address: str, keys: Path | None) -> None:
    _say(f'ready; in the settings: [analysis] dask = "{address}"')
    if keys is not None:
        _say("and dask_keys = the folder of a beamline's own keys")


def _say(line: str) -> None:
    typer.echo(line)
