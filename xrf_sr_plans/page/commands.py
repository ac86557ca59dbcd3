"""The command `xrf-sr page`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SettingsFile = Annotated[
    Path | None,
    typer.Option(help="Settings file; without it, the one that XRF_SR_SETTINGS names, if any."),
]


def page(
    surveys: Annotated[
        Path | None,
        typer.Option(help="Folder of the surveys; without it, what the settings say."),
    ] = None,
    approvals: Annotated[
        Path | None, typer.Option(help="Folder of the approvals; without it, the usual one.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in, with a token."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65_535, help="Port to listen at; 0: any that is free."),
    ] = None,
    settings: SettingsFile = None,
) -> None:
    """Serve a page on which surveys are watched and their regions approved, until Ctrl-C."""
    from xrf_sr_plans.config import Settings
    from xrf_sr_plans.errors import ConfigError
    from xrf_sr_plans.page.serve import serve
    from xrf_sr_plans.review.feed import default_feed_dir
    from xrf_sr_plans.store.run_store import OFF

    told = Settings.load(settings)
    if surveys is None and (told.page.surveys or "").strip().lower() == OFF:
        raise ConfigError("page: the settings keep no surveys (surveys is 'off'); give --surveys")
    serve(
        surveys or told.page.surveys or default_feed_dir(),
        approvals=approvals or told.approvals.folder,
        host=told.page.host if host is None else host,
        port=told.page.port if port is None else port,
        queue=told.queue,
        tell=lambda address: typer.echo(f"Open {address} in a browser; Ctrl-C ends it."),
    )
