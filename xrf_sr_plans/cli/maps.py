"""The commands about maps in files: `enhance`, `readers` and `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xrf_sr_plans.cli.completion import format_names, sampling_names
from xrf_sr_plans.cli.shared import (
    FACTOR_HELP,
    FORMAT_HELP,
    PROBE_HELP,
    SAMPLING_HELP,
    ModelFlag,
    check_place,
)
from xrf_sr_plans.errors import FileFormatError
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


def enhance(
    file: Annotated[
        Path, typer.Argument(help="File with counts, of any kind that `xrf-sr readers` lists.")
    ],
    factor: Annotated[int, typer.Option(help=FACTOR_HELP)] = 2,
    probe_um: Annotated[float | None, typer.Option(help=PROBE_HELP)] = None,
    step_um: Annotated[
        float | None,
        typer.Option(help="Step of the scan in um, of rows their distance; replaces the file's."),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            help=f"{SAMPLING_HELP} Without it, what a run says, and fly for files.",
            autocompletion=sampling_names,
        ),
    ] = None,
    dwell_ms: Annotated[
        float | None,
        typer.Option(help="Time at each pixel in ms, which makes photons of counts per second."),
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Unit of the values; replaces what the file gives.")
    ] = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    model: ModelFlag = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: beside the input.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help=f"{FORMAT_HELP} Without it, what the ending of --out stands for.",
            autocompletion=format_names,
        ),
    ] = None,
) -> None:
    """Super-resolve a map of photons, and save the estimate, its interval and its trust."""
    check_place("--out", out)
    from rich.console import Console

    from xrf_sr_plans.maps.files import as_photons
    from xrf_sr_plans.maps.readers import monitor_of, placed_counts, read_map
    from xrf_sr_plans.sr.predict import enhance as enhance_counts
    from xrf_sr_plans.store.exports import export_map, new_file

    # What can't be written is refused before the work.
    target, written_as = new_file(file, f"_x{factor}", out, format)
    asked = None if sampling is None else checked_sampling(sampling)
    # The step of rows is their distance, of which a pixel along them is a part.
    options = known(
        step_um=step_um if step_um is None or asked != "rows" else step_um / factor,
        step_y_um=step_um,
        axis_unit=axis_unit,
        elements=elements,
        energy_kev=energy_kev,
        channel=channel,
        key=key,
        root_map=root_map,
    )
    read = read_map(file, reader=reader, options=options, dwell_ms=dwell_ms)
    wanted = asked or checked_sampling(read.meta.get("sampling", "fly"))
    row_pixels = factor if wanted == "rows" else 1
    measured = as_photons(read, dwell_ms=dwell_ms, units=units)
    for note in measured.notes:
        Console(stderr=True).print(f"{file}: {note}", soft_wrap=True, markup=False)
    counts = placed_counts(measured, row_pixels)
    enhanced = enhance_counts(
        counts,
        elements=measured.elements,
        factor=factor,
        step_um=row_pixels * counts.attrs["step_um"],
        probe_fwhm_um=probe_um,
        sampling=wanted,
        i0=monitor_of(measured),
        dwell_ms=dwell_ms or measured.meta.get("dwell_ms"),
        model=model,
    )
    was = measured.meta["was"]
    export_map(enhanced, target, written_as, units=was.units, photons=was.photons, source_file=file)
    Console().print(str(target), soft_wrap=True)


def readers() -> None:
    """List what maps are read from, and what `--reader` calls it."""
    from rich.console import Console

    from xrf_sr_plans.maps.readers import readers_in_words

    for line in readers_in_words():
        Console().print(line, soft_wrap=True, markup=False)


def export(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSON-lines files of runs: surveys, results, composites."),
    ],
    format: Annotated[
        str,
        typer.Option(help=FORMAT_HELP, autocompletion=format_names),
    ] = "nexus",
    out: Annotated[
        Path | None, typer.Option(help="Folder of the new files; default: beside each input.")
    ] = None,
) -> None:
    """Save the maps in stored runs for silx, PyMca, NeXpy, MAPS, PyXRF or Fiji."""
    from rich.console import Console

    from xrf_sr_plans.store.exports import export_runs
    from xrf_sr_plans.store.jsonl import read_jsonl

    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    for file in files:
        written = 0
        for path in export_runs(read_jsonl(file), out or file.parent, format):
            written += 1
            Console().print(str(path), soft_wrap=True)
        if not written:
            raise FileFormatError(f"{file}: holds no run with a map, so there is nothing to export")
