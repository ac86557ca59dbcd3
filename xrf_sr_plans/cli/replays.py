"""The commands `xrf-sr replay` and `xrf-sr watch`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xrf_sr_plans.cli.shared import (
    DaskFlag,
    DaskKeysFlag,
    DaskPlainFlag,
    WorkersFlag,
    cluster_address,
)
from xrf_sr_plans.measurement import FACTORS, alternatives
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
    from rich.console import Console

    from xrf_sr_plans.replays.batch import BatchReport, Progress
    from xrf_sr_plans.replays.options import ReplayOptions
    from xrf_sr_plans.replays.task import UnitReport

_SHOWN = 50
"""Number of failures that are listed; the journal has all of them."""

FactorOption = Annotated[
    int | None,
    typer.Option(
        help=f"How many times finer, {alternatives(FACTORS)}; replaces what the runs asked for."
    ),
]
FindOption = Annotated[
    str | None, typer.Option(help="Element query; replaces what the runs asked for.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Name of a model or a weights file; without it, the default model."),
]
SettingsOption = Annotated[
    Path | None, typer.Option(help="TOML file with settings in its table 'analysis'.")
]
DwellOption = Annotated[
    float | None,
    typer.Option(help="Time at each pixel in ms; replaces what files and others' runs say."),
]
FormatOption = Annotated[
    str, typer.Option(help="Layout of the maps' files: nexus, maps, pyxrf or ome-tiff.")
]
PairsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the pair store that pairs and rescans enter; without it, none."),
]
PicturesOption = Annotated[bool, typer.Option(help="Whether to draw a picture of each map.")]


def replay(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Files, folders, http(s)://… or tiled:PROFILE, databroker:CATALOG.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the results and the journal; without it, only digests."),
    ] = None,
    find: FindOption = None,
    factor: FactorOption = None,
    model: ModelOption = None,
    settings: SettingsOption = None,
    reader: ReaderFlag = None,
    dwell_ms: DwellOption = None,
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
    workers: WorkersFlag = 1,
    dask: DaskFlag = None,
    dask_keys: DaskKeysFlag = None,
    dask_plain: DaskPlainFlag = False,
    format: FormatOption = "nexus",
    pictures: PicturesOption = True,
    pairs: PairsOption = None,
    again: Annotated[bool, typer.Option(help="Replay also what the journal says is done.")] = False,
) -> None:
    """Run the analysis again on stored runs and files, and print the digests of the results."""
    from xrf_sr_plans.replays.batch import replay_all
    from xrf_sr_plans.store.sources import parsed_where

    options = _options(find, factor, model, settings)
    options = replace(
        options,
        reader=reader,
        dwell_ms=dwell_ms,
        known=known(
            axis_unit=axis_unit,
            elements=elements,
            energy_kev=energy_kev,
            channel=channel,
            key=key,
            root_map=root_map,
        ),
        format=format,
        pictures=pictures,
        pairs=None if pairs is None else str(pairs),
    )
    with _shown_progress() as progress:
        report = replay_all(
            sources,
            out,
            options,
            where=parsed_where(where or ()),
            workers=workers,
            dask=cluster_address(dask, dask_keys, dask_plain, workers=workers),
            again=again,
            progress=progress,
        )
    _print_summary(report, out)
    if pairs is not None:
        _print_pairs(pairs)
    if report.failures or report.ended:
        raise typer.Exit(1)


def watch(
    folder: Annotated[Path, typer.Argument(help="Folder in which files appear.")],
    out: Annotated[Path, typer.Option(help="Folder of the results and the journal.")],
    find: FindOption = None,
    factor: FactorOption = None,
    model: ModelOption = None,
    settings: SettingsOption = None,
    reader: ReaderFlag = None,
    dwell_ms: DwellOption = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    settle_s: Annotated[
        float, typer.Option(help="Seconds without a change after which a file is finished.")
    ] = 3.0,
    poll: Annotated[
        bool, typer.Option(help="Look all the time, as where another computer writes (NFS).")
    ] = False,
    format: FormatOption = "nexus",
    pictures: PicturesOption = True,
    pairs: PairsOption = None,
) -> None:
    """Enhance the runs and files of a folder as they are finished, until Ctrl-C."""
    from rich.console import Console

    from xrf_sr_plans.replays.batch import BatchReport
    from xrf_sr_plans.replays.watch import watch_folder

    options = _options(find, factor, model, settings)
    options = replace(
        options,
        reader=reader,
        dwell_ms=dwell_ms,
        known=known(
            axis_unit=axis_unit,
            elements=elements,
            energy_kev=energy_kev,
            channel=channel,
            key=key,
            root_map=root_map,
        ),
        format=format,
        pictures=pictures,
        pairs=None if pairs is None else str(pairs),
    )
    failures: dict[str, str] = {}

    def told(report: UnitReport) -> None:
        print_report(report, Console())
        for failure in report.failures:
            failures[report.key] = failure
            Console(stderr=True).print(f"{report.key}: {failure}", soft_wrap=True, markup=False)

    with contextlib.suppress(KeyboardInterrupt):
        watch_folder(folder, out, options, settle_s=settle_s, poll=poll, told=told)
    _print_summary(BatchReport(failures=failures), out)
    if failures:
        raise typer.Exit(1)


def _options(
    find: str | None,
    factor: int | None,
    model: str | None,
    settings: Path | None,
) -> ReplayOptions:
    """Return the checked options of the analysis.

    Raises
    ------
    RefusedError
        One of them is not allowed.
    """
    from xrf_sr_plans.config import Settings
    from xrf_sr_plans.measurement import checked_factor
    from xrf_sr_plans.replays.options import ReplayOptions
    from xrf_sr_plans.rois.query_parser import parse_query
    from xrf_sr_plans.sr.registry import model_path

    if find is not None:
        parse_query(find)
    loaded = Settings.load(settings).of_analysis
    if model is not None:
        model_path(model)
        loaded = loaded.model_copy(update={"model": model})
    return ReplayOptions(
        settings=loaded,
        factor=None if factor is None else checked_factor(factor),
        find=find,
    )


@contextlib.contextmanager
def _shown_progress() -> Iterator[Callable[[Progress], None]]:
    """Give what is called with the progress: a bar in a terminal, one line a unit elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        *(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()),
        TextColumn("{task.fields[failed]} failed"),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("replay", total=None, failed=0)

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, total=progress.of, failed=progress.failed)
            if progress.report is not None:
                print_report(progress.report, bar.console if console.is_terminal else Console())

        yield show


def print_report(report: UnitReport, console: Console) -> None:
    """Print a line for each map of a unit."""
    for run in report.runs:
        line = f"{run.source_uid} {run.status} {run.regions} regions"
        console.print(line, soft_wrap=True, markup=False)
        if run.reason:
            console.print(f"  {run.reason}", soft_wrap=True, markup=False)
        console.print(f"  digest {run.digest}", soft_wrap=True, markup=False)


def _print_pairs(folder: Path) -> None:
    from rich.console import Console

    from xrf_sr_plans.store.pairs import PairStore

    known = PairStore(folder).known_pairs()
    usable = sum(not pair.problem for pair in known)
    line = f"{len(known)} pairs in {folder}, {usable} of them can be learnt from"
    Console(stderr=True).print(line, soft_wrap=True, markup=False)


def _print_summary(report: BatchReport, out: Path | None) -> None:
    from rich.console import Console

    console = Console(stderr=True)

    def say(*lines: Any) -> None:
        for line in lines:
            console.print(str(line), soft_wrap=True, markup=False)

    for reason, number in report.left_alone.items():
        say(f"{number} runs left alone: {reason}")
    if report.earlier:
        say(f"{len(report.earlier)} were replayed before (see --again)")
    if report.failures:
        say(f"{len(report.failures)} failed:")
        say(*(f"  {key}: {why}" for key, why in list(report.failures.items())[:_SHOWN]))
        if (more := len(report.failures) - _SHOWN) > 0:
            say(f"  and {more} more")
    if report.ended:
        say(report.ended)
    if out is not None:
        say(out)
