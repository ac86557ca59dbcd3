"""The commands `xrf-sr config …`: what the settings are, whether they hold, and where to begin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xrf_sr_plans.cli.completion import example_names
from xrf_sr_plans.errors import ConfigError, in_words

if TYPE_CHECKING:
    from xrf_sr_plans.config import Settings

config_app = typer.Typer(no_args_is_help=True, help="The settings file of a beamline.")

SettingsFile = Annotated[
    Path | None,
    typer.Argument(help="Settings file; without it, the one that XRF_SR_SETTINGS names."),
]


@config_app.command("show")
def show(
    file: SettingsFile = None,
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not left at its default.")
    ] = False,
    json_out: Annotated[
        bool, typer.Option("--json", help="Print JSON in the place of a table.")
    ] = False,
) -> None:
    """Print every setting, its value, and whether a file, a variable or nobody has set it."""
    from rich.console import Console
    from rich.table import Table

    from xrf_sr_plans.config import Settings

    settings = Settings.load(file)
    rows = [
        (place, value, settings.origin(place))
        for place, value in _values(settings)
        if not (changed and settings.origin(place) == "default")
    ]
    if json_out:
        entries = {place: {"value": value, "from": origin} for place, value, origin in rows}
        typer.echo(json.dumps(entries, indent=1))
        return
    table = Table("setting", "value", "from", box=None, pad_edge=False)
    for place, value, origin in rows:
        table.add_row(place, "" if value is None else json.dumps(value), origin)
    console = Console()
    # A value that is cut short is none.
    (console if console.is_terminal else Console(width=200)).print(table)


def _values(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield each setting and its value as JSON types; a table that is not there counts as one."""
    yield from _flat(settings.model_dump(mode="json", by_alias=True))


def _flat(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{name}.")
        elif value != {}:
            yield f"{above}{name}", value


@config_app.command("check")
def check(
    file: SettingsFile = None,
    registry: Annotated[
        list[str] | None,
        typer.Option(
            help="Where devices are looked up: MODULE:NAME, such as instrument.startup:oregistry, "
            "MODULE, or happi for the database that HAPPI_CFG names; repeatable."
        ),
    ] = None,
) -> None:
    """Connect to all that the settings name, and say what answers and what fits; nothing moves."""
    from bluesky import RunEngine

    from xrf_sr_plans.checkup.checkup import check_settings
    from xrf_sr_plans.config import Settings

    settings = Settings.load(file)
    # Its loop connects devices of ophyd-async.
    _ = RunEngine({})
    report = check_settings(settings, [_registry(one) for one in registry or []])
    typer.echo(str(report))
    if report.fails:
        typer.echo(f"{len(report.fails)} will not work", err=True)
        raise typer.Exit(1)


def _registry(name: str) -> Any:
    """Return what keeps devices, by the name that was typed.

    Raises
    ------
    ConfigError
        There is no such module or name, or happi is not installed.
    """
    import importlib

    module, _, attribute = name.partition(":")
    try:
        if module == "happi" and not attribute:
            return importlib.import_module("happi").Client.from_config()
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else vars(found)
    except Exception as error:
        raise ConfigError(f"--registry is {name!r}; {in_words(error)}") from error


@config_app.command("example")
def example(
    name: Annotated[
        str,
        typer.Argument(help="Name of the example.", autocompletion=example_names),
    ] = "simulated",
    out: Annotated[
        Path | None, typer.Option(help="File to write; without it, it is printed.")
    ] = None,
) -> None:
    """Print a settings file to begin with: simulated, 2-id, srx, bionanoprobe or epics."""
    from xrf_sr_plans.config.examples import example as example_file

    text = example_file(name).read_text(encoding="utf-8")
    if out is None:
        typer.echo(text, nl=False)
        return
    if out.exists():
        raise ConfigError(f"--out is {str(out)!r}, which is there already")
    out.write_text(text, encoding="utf-8")
    typer.echo(str(out))
