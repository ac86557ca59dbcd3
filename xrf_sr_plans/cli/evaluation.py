"""The command `xrf-sr evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xrf_sr_plans.cli.completion import sampling_names
from xrf_sr_plans.cli.shared import (
    FACTOR_HELP,
    PROBE_HELP,
    SAMPLING_HELP,
    SEED_HELP,
    DaskFlag,
    DaskKeysFlag,
    DaskPlainFlag,
    JsonOut,
    ModelFlag,
    WorkersFlag,
    check_place,
    cluster_address,
    table_console,
)
from xrf_sr_plans.measurement import checked_sampling
from xrf_sr_plans.replays.source_flags import (
    AxisUnitFlag,
    ChannelFlag,
    ElementsFlag,
    EnergyFlag,
    KeyFlag,
    ReaderFlag,
    RootMapFlag,
    known,
)

if TYPE_CHECKING:
    from xrf_sr_plans.evaluation.many_maps import Evaluations, MapReport

_TABLES = 4
"""Up to so many maps have their whole tables printed; of more, a line each."""
_SHOWN = 50
"""Number of failures that are listed; the journal has all of them."""


def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files with maps, of any kind that `xrf-sr readers` lists; folders and catalogs.",
        ),
    ],
    factor: Annotated[int, typer.Option(help=FACTOR_HELP)] = 2,
    counts: Annotated[
        float | None,
        typer.Option(help="Photons at the 99th percentile of each map; without it, no noise."),
    ] = None,
    probe_um: Annotated[float | None, typer.Option(help=PROBE_HELP)] = None,
    sampling: Annotated[
        str, typer.Option(help=SAMPLING_HELP, autocompletion=sampling_names)
    ] = "fly",
    seed: Annotated[int, typer.Option(help=SEED_HELP)] = 0,
    model: ModelFlag = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only runs with KEY=VALUE in their start documents; repeatable."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the journal, by which a stopped evaluation goes on."),
    ] = None,
    workers: WorkersFlag = 1,
    dask: DaskFlag = None,
    dask_keys: DaskKeysFlag = None,
    dask_plain: DaskPlainFlag = False,
    again: Annotated[
        bool, typer.Option(help="Evaluate also what the journal says is done.")
    ] = False,
    json_out: JsonOut = None,
) -> None:
    """Degrade measured maps, enhance them again, and compare with other methods."""
    check_place("--json", json_out)
    from xrf_sr_plans.evaluation.many_maps import EvaluationOptions, evaluate_all
    from xrf_sr_plans.store.sources import parsed_where

    options = EvaluationOptions(
        factor=factor,
        counts=counts,
        probe_um=probe_um,
        sampling=checked_sampling(sampling),
        seed=seed,
        model=model,
        reader=reader,
        known=known(
            axis_unit=axis_unit,
            elements=elements,
            energy_kev=energy_kev,
            channel=channel,
            key=key,
            root_map=root_map,
        ),
    )
    made = evaluate_all(
        sources,
        out,
        options,
        where=parsed_where(where or ()),
        workers=workers,
        dask=cluster_address(dask, dask_keys, dask_plain, workers=workers),
        again=again,
        told=_print_line,
    )
    _print(made)
    if json_out is not None:
        json_out.write_text(json.dumps(made.figures, indent=1))
    if made.failures or made.ended:
        raise typer.Exit(1 if made.figures else 2)


def _print_line(report: MapReport) -> None:
    """Say on the side what became of a map, as there may be thousands."""
    from rich.console import Console

    if report.figures is None:
        line = f"{report.key}: {report.error}"
    else:
        gains = {one["method"]: one["gain_db"] for one in report.figures["summaries"]}
        best = max((gain for gain in gains.values() if gain is not None), default=0.0)
        names = [name for name, gain in gains.items() if gain == best]
        line = f"{report.key}: {best:+.2f} dB, {names[0]}" if names else f"{report.key}: no figures"
    Console(stderr=True).print(line, soft_wrap=True, markup=False)


def _print(made: Evaluations) -> None:
    from rich.console import Console

    from xrf_sr_plans.evaluation.overall import over_all, render_over_all
    from xrf_sr_plans.evaluation.table import render

    console, aside = table_console(), Console(stderr=True)
    if len(made.reports) <= _TABLES:
        for report in made.reports:
            if report.table is not None:
                console.print(render(report.table))
    if len(made.figures) > 1:
        console.print(render_over_all(over_all(made.figures)))

    def say(line: str) -> None:
        aside.print(line, soft_wrap=True, markup=False)

    if made.left_alone:
        say(f"{made.left_alone} runs left alone: no measured maps")
    if made.failures:
        say(f"{len(made.failures)} failed:")
        for key, why in list(made.failures.items())[:_SHOWN]:
            say(f"  {key}: {why}")
        if (more := len(made.failures) - _SHOWN) > 0:
            say(f"  and {more} more")
    if made.ended:
        say(made.ended)
