"""The command `xrf-sr demo`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xrf_sr_plans.cli.shared import FACTOR_HELP, table_console


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the pictures and the report.")] = Path(
        "out/demo"
    ),
    sample: Annotated[
        str, typer.Option(help="'grains', which lie apart, or 'zagami', the whole measured map.")
    ] = "grains",
    factor: Annotated[
        int | None, typer.Option(help=f"{FACTOR_HELP} Without it, 4 for grains, 2 for zagami.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random noise, and of where the grains lie.")
    ] = 0,
    page: Annotated[
        bool, typer.Option("--page", help="Watch a survey in the browser, and approve its regions.")
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port of the page; 0: any that is free.")
    ] = 8321,
) -> None:
    """Survey a sample on the simulated beamline, from the coarse scan to the fine rescans."""
    if page:
        from xrf_sr_plans.demo.watched import fly_watched

        def wait() -> None:
            typer.echo("The survey is over. Enter closes the page.")
            sys.stdin.readline()

        typer.echo(fly_watched(out, port=port, tell=typer.echo, wait=wait).absolute())
        return
    from xrf_sr_plans.demo import run_demo, summary_tables

    report = run_demo(out, sample=sample, factor=factor, seed=seed)
    console = table_console()
    for table in summary_tables(report):
        console.print(table)
    for name in ("survey.png", "elements.png", "report.json"):
        console.print(str(out / name), soft_wrap=True)
    console.print(f"Open in a browser: {(out / 'report.html').absolute()}", soft_wrap=True)
