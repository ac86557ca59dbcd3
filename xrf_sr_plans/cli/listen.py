"""The command `xrf-sr listen`."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from xrf_sr_plans.cli.replays import ModelOption


def listen(
    bus: Annotated[
        str,
        typer.Argument(
            metavar="BUS",
            help="0mq://HOST:PORT, kafka://HOST:PORT/TOPIC or stomp://HOST:PORT/DESTINATION.",
        ),
    ],
    publish: Annotated[
        str | None, typer.Option(help="Bus that results go to, of the same form.")
    ] = None,
    store: Annotated[
        str, typer.Option(help="Where results are kept: a folder, a Tiled server, jsonl:FOLDER.")
    ] = "off",
    model: ModelOption = None,
    settings: Annotated[
        Path | None, typer.Option(help="Settings file, of which 'analysis' and 'log' count.")
    ] = None,
    client: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with tables 'intake' and 'publish': keys, passwords and limits."
        ),
    ] = None,
    patience_s: Annotated[
        float, typer.Option(help="Seconds to wait for a document that is missing.")
    ] = 5.0,
    silent_s: Annotated[
        float, typer.Option(help="Seconds without a document after which a run counts as over.")
    ] = 3600.0,
    finish_s: Annotated[
        float, typer.Option(help="Longest wait, at the end, for results under way.")
    ] = 60.0,
) -> None:
    """Analyse the maps that others publish on a bus, and publish the results, until Ctrl-C."""
    from rich.console import Console

    from xrf_sr_plans.config import Settings
    from xrf_sr_plans.intake.addresses import BusAddress, Clients
    from xrf_sr_plans.intake.listener import printed
    from xrf_sr_plans.intake.service import Listening
    from xrf_sr_plans.intake.service import listen as listen_to
    from xrf_sr_plans.sr.registry import model_path

    clients = Clients.load(client)
    changed = {} if model is None else {"analysis": {"model": model}}
    if model is not None:
        model_path(model)
    wanted = Listening(
        BusAddress.parse(bus, clients.intake),
        None if publish is None else BusAddress.parse(publish, clients.publish),
        store,
        Settings.load(settings, **changed),
        patience_s,
        silent_s,
        finish_s,
    )
    console = Console()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    failures = listen_to(
        wanted, printed(lambda words: console.print(words, soft_wrap=True, markup=False)), stop
    )
    if failures:
        raise typer.Exit(1)
