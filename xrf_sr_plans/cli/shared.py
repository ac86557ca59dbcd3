"""What several commands share: the words of their options, checks, and the console of tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xrf_sr_plans.cli.completion import model_names
from xrf_sr_plans.measurement import FACTORS, SAMPLINGS, alternatives

if TYPE_CHECKING:
    from rich.console import Console

    from xrf_sr_plans.cluster.connection import ClusterAddress

JsonOut = Annotated[Path | None, typer.Option("--json", help="JSON file to write the figures to.")]
_TABLE_WIDTH = 160
"""Width of a table that goes to a file or a pipe, where 80 columns would cut every figure short."""
FACTOR_HELP = f"How many times finer than the map itself: {alternatives(FACTORS)}."
ModelFlag = Annotated[
    str | None,
    typer.Option(
        help="Name of a model or a weights file; without it, the default model.",
        autocompletion=model_names,
    ),
]
SAMPLING_HELP = f"What a pixel averages over: {alternatives(SAMPLINGS)}."
PROBE_HELP = "Full width at half maximum of the probe, in um."
DaskFlag = Annotated[
    str | None,
    typer.Option(
        "--dask", help="Scheduler of a Dask cluster: tls://host:8786, or tcp://localhost:8786."
    ),
]
DaskKeysFlag = Annotated[
    Path | None,
    typer.Option(
        "--dask-keys", help="Folder of the keys for it; without it, Dask's configuration counts."
    ),
]
DaskPlainFlag = Annotated[
    bool,
    typer.Option("--dask-plain", help="Use a cluster on another machine without encryption."),
]
WorkersFlag = Annotated[int, typer.Option("--workers", help="Number of processes on this machine.")]
FORMAT_HELP = "Layout of what is written: 'nexus', 'maps', 'pyxrf' or 'ome-tiff'."
SEED_HELP = "Seed of the random noise."


def cluster_address(
    dask: str | None, keys: Path | None = None, plain: bool = False, *, workers: int = 1
) -> ClusterAddress | None:
    """Return the cluster that `--dask` and its keys name, or None.

    Raises
    ------
    ConfigError
        Keys are given without a cluster, or processes of this machine with one.
    """
    from xrf_sr_plans.cluster.connection import ClusterAddress
    from xrf_sr_plans.errors import ConfigError

    if dask is not None:
        if workers != 1:
            raise ConfigError(
                f"--workers is {workers}, and --dask {dask!r}: either processes of this machine or"
                " the workers of a cluster"
            )
        return ClusterAddress(dask, None if keys is None else str(keys.expanduser()), plain)
    if keys is not None or plain:
        raise ConfigError("--dask-keys and --dask-plain are of a cluster: give --dask, too")
    return None


def check_place(option: str, file: Path | None) -> None:
    """Refuse a file that can't be written, before minutes are spent on what goes into it.

    Raises
    ------
    ConfigError
        Its folder isn't there or can't be written to, or it is a folder itself.
    """
    if file is None:
        return
    from xrf_sr_plans.config import folder_flaw
    from xrf_sr_plans.ranges import check

    folder = file.absolute().parent
    missing = "" if folder.exists() else f"there is no folder {folder}"
    taken = f"{file} is a folder, where a file is needed" if file.is_dir() else ""
    check(option, missing or folder_flaw("its folder", folder), taken)


def table_console() -> Console:
    """Return a console that cuts no figure short where the output goes to a file or a pipe."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_TABLE_WIDTH)
