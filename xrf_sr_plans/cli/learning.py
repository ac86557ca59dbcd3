"""The commands `xrf-sr learn` and `xrf-sr models …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xrf_sr_plans.cli.shared import JsonOut, check_place, table_console

models_app = typer.Typer(
    no_args_is_help=True, help="Versions of a beamline's own model, of which one is in use."
)
RegistryArgument = Annotated[Path, typer.Argument(help="Folder of the models.")]
ReasonOption = Annotated[str, typer.Option(help="Why, for the history.")]


def learn(
    pairs: Annotated[Path, typer.Argument(help="Folder of the pair store.")],
    registry: Annotated[Path, typer.Option(help="Folder of the models.")],
    start: Annotated[
        str | None,
        typer.Option("--from", help="Model in use where the folder has none yet."),
    ] = None,
    again: Annotated[
        bool, typer.Option(help="Learn although nothing has changed since the last time.")
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of LearningSettings: steps=600."),
    ] = None,
    json_out: JsonOut = None,
) -> None:
    """Learn from pairs at lowest priority, and use the new model only if it is better."""
    check_place("--json", json_out)
    from rich.console import Console

    from xrf_sr_plans.learning.learn import learn as run
    from xrf_sr_plans.learning.learn import step_back

    step_back()
    console = Console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False)

    changes = {name: value for name, _, value in (one.partition("=") for one in setting or [])}
    done = run(pairs, registry, start=start, changes=changes, again=again, progress=say)
    for line in (done.outcome, *done.words):
        say(line)
    if json_out is not None:
        json_out.write_text(json.dumps(done.to_dict(), indent=1, default=str))
    raise typer.Exit(done.exit_code)


@models_app.command("init")
def begin(
    registry: RegistryArgument,
    model: Annotated[
        str | None, typer.Option(help="Model to begin with; without it, the default model.")
    ] = None,
) -> None:
    """Begin a folder of models with one; a folder that has some stays as it is."""
    from xrf_sr_plans.sr.model_versions import ModelVersions
    from xrf_sr_plans.sr.registry import model_path

    change = ModelVersions(registry).begin(model_path(model))
    _say_in_use(registry, change.version, change.name)


@models_app.command("list")
def list_versions(registry: RegistryArgument, json_out: JsonOut = None) -> None:
    """List the versions, which is in use, and what has changed when and why."""
    check_place("--json", json_out)
    from datetime import datetime

    from rich.table import Table

    from xrf_sr_plans.sr.model_versions import ModelVersions

    versions = ModelVersions(registry)
    current = versions.current()
    table = Table(title=f"In use: version {current.version}, {current.name}")
    for column in ("", "when", "", "version", "model", "sha256", "why"):
        table.add_column(column)
    history = versions.history()
    for change in history:
        when = f"{datetime.fromtimestamp(change.time):%Y-%m-%d %H:%M}"
        facts = [change.action, change.version, change.name, change.sha256[:12], change.reason]
        table.add_row(str(change.number), when, *facts)
    table_console().print(table)
    if json_out is not None:
        plain = {
            "current": current.model_dump(mode="json"),
            "versions": versions.versions(),
            "history": [change.model_dump(mode="json") for change in history],
        }
        json_out.write_text(json.dumps(plain, indent=1))


@models_app.command("promote")
def promote(
    registry: RegistryArgument,
    version: Annotated[str, typer.Argument(help="Number of the version, such as 0002.")],
    reason: ReasonOption = "by hand",
) -> None:
    """Put a version into use, whatever any comparison said."""
    from xrf_sr_plans.sr.model_versions import ModelVersions

    change = ModelVersions(registry).promote(version, reason)
    _say_in_use(registry, change.version, change.name)


@models_app.command("rollback")
def rollback(registry: RegistryArgument, reason: ReasonOption = "by hand") -> None:
    """Put the version into use again that was in use before this one."""
    from xrf_sr_plans.sr.model_versions import ModelVersions

    change = ModelVersions(registry).rollback(reason=reason)
    _say_in_use(registry, change.version, change.name)


def _say_in_use(registry: Path, version: str, name: str) -> None:
    from rich.console import Console

    Console().print(
        f"in use: version {version}, {name}; select it with the setting"
        f" model = {f'registry:{registry.absolute()}'!r}",
        soft_wrap=True,
        markup=False,
    )
