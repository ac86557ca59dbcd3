"""The program `xrf-sr` with all of its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import xrf_sr_plans
from xrf_sr_plans.cli.cluster import cluster_app
from xrf_sr_plans.cli.demo import demo
from xrf_sr_plans.cli.evaluation import evaluate
from xrf_sr_plans.cli.learning import learn, models_app
from xrf_sr_plans.cli.listen import listen
from xrf_sr_plans.cli.maps import enhance, export, readers
from xrf_sr_plans.cli.models import calibrate, hallucinate, train
from xrf_sr_plans.cli.pairs import pairs_app
from xrf_sr_plans.cli.replays import replay, watch
from xrf_sr_plans.cli.settings import config_app
from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.health.command import status
from xrf_sr_plans.page.commands import page

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="The command line `xrf-sr`: what a user types outside of a bluesky session.",
)
for _command in (
    *(replay, watch, listen, demo, evaluate, enhance, readers, export),
    *(train, learn, calibrate, hallucinate, status, page),
):
    app.command()(_command)
app.add_typer(pairs_app, name="pairs")
app.add_typer(models_app, name="models")
app.add_typer(config_app, name="config")
app.add_typer(cluster_app, name="cluster")


def main() -> None:
    """Run the command line, where a known error is one line and no traceback."""
    from rich.console import Console
    from rich.markup import escape

    try:
        app()
    except (XrfSrError, OSError) as error:
        # Escaped, or rich takes the [sr] of an extra for a style and leaves it out.
        line = f"[red]{type(error).__name__}:[/red] {escape(str(error))}"
        Console(stderr=True).print(line, soft_wrap=True)
        raise SystemExit(2) from error


def _print_version(wanted: bool) -> None:
    """Print the version and exit, if that is what `--version` asks for."""
    if wanted:
        typer.echo(f"xrf-sr {xrf_sr_plans.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options that belong to no command."""
