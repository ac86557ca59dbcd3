"""`xrf-sr status`: how the sessions of this machine are doing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def status(
    folder: Annotated[
        Path | None, typer.Option(help="Folder of the reports; without it, that of this user.")
    ] = None,
) -> None:
    """Say of each session that runs on this machine how it is doing; exit with 1 on trouble."""
    from xrf_sr_plans.health.report import reports

    found = list(reports(folder))
    for report in found:
        typer.echo(str(report))
    if not found:
        typer.echo("no session is running")
    if not found or any(report.problems for report in found):
        raise typer.Exit(1)
