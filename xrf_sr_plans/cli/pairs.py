"""The commands `xrf-sr pairs …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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

pairs_app = typer.Typer(no_args_is_help=True, help="Pairs of a coarse and a fine map of one area.")


@pairs_app.command("add")
def add_to_pairs(
    coarse: Annotated[Path, typer.Argument(help="File with the coarse map.")],
    fine: Annotated[Path, typer.Argument(help="File with the fine map of the same area.")],
    out: Annotated[Path, typer.Option(help="Folder of the pair store.")],
    coarse_dwell_ms: Annotated[
        float | None, typer.Option(help="Time at each coarse pixel in ms.")
    ] = None,
    fine_dwell_ms: Annotated[
        float | None, typer.Option(help="Time at each fine pixel in ms.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit of the values; replaces what the files give.")
    ] = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
) -> None:
    """Store two maps of one area, each in a file of its own, as a pair to calibrate with."""
    from rich.console import Console

    from xrf_sr_plans.store.pairs.add_pair import add_pair

    added = add_pair(
        coarse,
        fine,
        out,
        reader=reader,
        options=known(
            axis_unit=axis_unit,
            elements=elements,
            energy_kev=energy_kev,
            channel=channel,
            key=key,
            root_map=root_map,
        ),
        dwell_ms=(coarse_dwell_ms, fine_dwell_ms),
        units=units,
    )
    Console().print(f"pair {added.known.record.pair_uid}", soft_wrap=True, markup=False)
