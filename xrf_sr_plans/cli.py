"""The command line `xrf-sr`: what a user types outside of a bluesky session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import xrf_sr_plans
from xrf_sr_plans.checkup.commands import config_app
from xrf_sr_plans.errors import ConfigError, FileFormatError, XrfSrError
from xrf_sr_plans.health.command import status
from xrf_sr_plans.measurement import (
    FACTORS,
    SAMPLINGS,
    alternatives,
    checked_sampling,
    reading_name,
)
from xrf_sr_plans.replays.commands import replay, watch
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

app = typer.Typer(no_args_is_help=True, pretty_exceptions_show_locals=False, help=__doc__)
app.command()(replay)
app.command()(watch)
app.add_typer(config_app, name="config")
app.command()(status)

JsonOut = Annotated[Path | None, typer.Option("--json", help="JSON file to write the figures to.")]
_TABLE_WIDTH = 160
"""Width of a table that goes to a file or a pipe, where 80 columns would cut every figure short."""
_FACTOR_HELP = f"How many times finer than the map itself: {alternatives(FACTORS)}."
_MODEL_HELP = "Name of a model or a weights file; without it, the default model."
_SAMPLING_HELP = f"What a pixel averages over: {alternatives(SAMPLINGS)}."
_PROBE_HELP = "Full width at half maximum of the probe, in um."
_FORMAT_HELP = "Layout of what is written: 'nexus', 'maps', 'pyxrf' or 'ome-tiff'."
_SEED_HELP = "Seed of the random noise."


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


def _check_place(option: str, file: Path | None) -> None:
    """Refuse a file that can't be written, before minutes are spent on what goes into it.

    Raises
    ------
    ConfigError
        Its folder isn't there or can't be written to, or it is a folder itself.
    """
    if file is None:
        return
    from xrf_sr_plans.config import folder_flaw
    from xrf_sr_plans.ranges import check

    folder = file.absolute().parent
    missing = "" if folder.exists() else f"there is no folder {folder}"
    taken = f"{file} is a folder, where a file is needed" if file.is_dir() else ""
    check(option, missing or folder_flaw("its folder", folder), taken)


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


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of survey.png and report.json.")] = Path(
        "out/demo"
    ),
    sample: Annotated[
        str, typer.Option(help="'grains', which lie apart, or 'zagami', the whole measured map.")
    ] = "grains",
    factor: Annotated[
        int | None, typer.Option(help=f"{_FACTOR_HELP} Without it, 4 for grains, 2 for zagami.")
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the random noise, and of where the grains lie.")
    ] = 0,
) -> None:
    """Survey a sample on the simulated beamline, from the coarse scan to the fine rescans."""
    from xrf_sr_plans.demo import run_demo, summary_tables

    report = run_demo(out, sample=sample, factor=factor, seed=seed)
    console = _table_console()
    for table in summary_tables(report):
        console.print(table)
    for name in ("survey.png", "elements.png", "report.json"):
        console.print(str(out / name), soft_wrap=True)


@app.command()
def evaluate(
    files: Annotated[
        list[Path], typer.Argument(help="Files with maps, of any kind that `xrf-sr readers` lists.")
    ],
    factor: Annotated[int, typer.Option(help=_FACTOR_HELP)] = 2,
    counts: Annotated[
        float | None,
        typer.Option(help="Photons at the 99th percentile of each map; without it, no noise."),
    ] = None,
    probe_um: Annotated[float | None, typer.Option(help=_PROBE_HELP)] = None,
    sampling: Annotated[str, typer.Option(help=_SAMPLING_HELP)] = "fly",
    seed: Annotated[int, typer.Option(help=_SEED_HELP)] = 0,
    model: Annotated[str | None, typer.Option(help=_MODEL_HELP)] = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    json_out: JsonOut = None,
) -> None:
    """Degrade measured maps, enhance them again, and compare with other methods."""
    _check_place("--json", json_out)
    from xrf_sr_plans.evaluation.own_map import evaluate_file
    from xrf_sr_plans.evaluation.table import render, to_dict

    options = known(
        axis_unit=axis_unit,
        elements=elements,
        energy_kev=energy_kev,
        channel=channel,
        key=key,
        root_map=root_map,
    )
    tables = [
        evaluate_file(
            path,
            factor=factor,
            counts=counts,
            probe_um=probe_um,
            sampling=checked_sampling(sampling),
            seed=seed,
            model=model,
            reader=reader,
            options=options,
        )
        for path in files
    ]
    console = _table_console()
    for table in tables:
        console.print(render(table))
    if json_out is not None:
        json_out.write_text(json.dumps([to_dict(table) for table in tables], indent=1))


@app.command()
def enhance(
    file: Annotated[
        Path, typer.Argument(help="File with counts, of any kind that `xrf-sr readers` lists.")
    ],
    factor: Annotated[int, typer.Option(help=_FACTOR_HELP)] = 2,
    probe_um: Annotated[float | None, typer.Option(help=_PROBE_HELP)] = None,
    step_um: Annotated[
        float | None,
        typer.Option(help="Step of the scan in um, of rows their distance; replaces the file's."),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(help=f"{_SAMPLING_HELP} Without it, what a run says, and fly for files."),
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
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: beside the input.")
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(help=f"{_FORMAT_HELP} Without it, what the ending of --out stands for."),
    ] = None,
) -> None:
    """Super-resolve a map of photons, and save the estimate, its interval and its trust."""
    _check_place("--out", out)
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
    )
    was = measured.meta["was"]
    export_map(enhanced, target, written_as, units=was.units, photons=was.photons, source_file=file)
    Console().print(str(target), soft_wrap=True)


@app.command()
def readers() -> None:
    """List what maps are read from, and what `--reader` calls it."""
    from rich.console import Console

    from xrf_sr_plans.maps.readers import readers_in_words

    for line in readers_in_words():
        Console().print(line, soft_wrap=True, markup=False)


@app.command()
def export(
    files: Annotated[
        list[Path],
        typer.Argument(help="JSON-lines files of runs: surveys, results, composites."),
    ],
    format: Annotated[
        str,
        typer.Option(help=_FORMAT_HELP),
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


@app.command()
def train(
    out: Annotated[
        Path, typer.Option(help="Folder of the training run; a run found there is resumed.")
    ],
    recipe: Annotated[str, typer.Option(help="'ours' or 'notes' (the published recipe).")] = "ours",
    architecture: Annotated[
        str, typer.Option(help="'folded' or 'set' (ours), 'notes' or 'srcnn'.")
    ] = "folded",
    factor: Annotated[
        int | None, typer.Option(help=f"Factor of 'notes' and 'srcnn': {alternatives(FACTORS)}.")
    ] = None,
    real_maps: Annotated[Path | None, typer.Option(help="Folder of measured maps.")] = None,
    method: Annotated[
        str,
        typer.Option(help="'supervised'; to adapt a model, 'self-supervised' or 'unpaired'."),
    ] = "supervised",
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Model to continue from, or to adapt; without it, the default."
        ),
    ] = None,
    maps: Annotated[
        list[Path] | None, typer.Option(help="Coarse map to adapt to, in photons; repeatable.")
    ] = None,
    fine: Annotated[
        list[Path] | None,
        typer.Option(help="Fine map of another sample to adapt with; repeatable."),
    ] = None,
    reader: ReaderFlag = None,
    axis_unit: AxisUnitFlag = None,
    elements: ElementsFlag = None,
    energy_kev: EnergyFlag = None,
    channel: ChannelFlag = None,
    key: KeyFlag = None,
    root_map: RootMapFlag = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any field of TrainingConfig or AdaptationConfig: steps=600."),
    ] = None,
) -> None:
    """Train a network, or adapt one to a sample of which there are no pairs."""
    from pydantic import ValidationError

    from xrf_sr_plans.training.training_config import TrainingConfig

    parts = [pair.partition("=") for pair in setting or []]
    settings: dict[str, object] = {name: value for name, _, value in parts}
    how = known(
        axis_unit=axis_unit,
        elements=elements,
        energy_kev=energy_kev,
        channel=channel,
        key=key,
        root_map=root_map,
    )
    if method not in ("supervised", "self-supervised", "unpaired"):
        raise ConfigError(f"method is {method!r}; supervised, self-supervised or unpaired")
    if method != "supervised":
        asked = {"out": out, "method": method, "start": start, "maps": maps or (), "fine": fine}
        asked |= {"reader": reader, "known": how}
        _adapt({name: value for name, value in asked.items() if value is not None} | settings)
        return
    if maps or fine or reader is not None or how != known():
        raise ConfigError(
            "--maps and --fine, and how they are read, adapt a model: give --method self-supervised"
        )
    from xrf_sr_plans.sr.registry import model_path
    from xrf_sr_plans.training.loop import train as run_training

    given: dict[str, object] = {"out": out, "architecture": architecture}
    given |= {} if factor is None else {"factor": factor}
    given |= {} if real_maps is None else {"real_maps": real_maps}
    given |= {} if start is None else {"start": model_path(start)}
    given |= settings
    if recipe not in ("ours", "notes"):
        raise ConfigError(f"recipe is {recipe!r}; ours or notes")
    try:
        config = TrainingConfig.notes(**given) if recipe == "notes" else TrainingConfig(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(f"training settings: {error}") from error
    run_training(config)


def _adapt(given: dict[str, object]) -> None:
    from pydantic import ValidationError
    from rich.console import Console

    from xrf_sr_plans.training.adaptation import AdaptationConfig, adapt, verdict

    try:
        config = AdaptationConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"settings of the adaptation: {error}") from error
    adapted = adapt(config)
    for line in verdict(adapted, config):
        Console().print(line, soft_wrap=True)


pairs_app = typer.Typer(no_args_is_help=True, help="Pairs of a coarse and a fine map of one area.")
app.add_typer(pairs_app, name="pairs")


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

    from xrf_sr_plans.store.add_pair import add_pair

    uid, displaced = add_pair(
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
    words = f"displaced by {displaced.dx_um:.3g} um along x and {displaced.dy_um:.3g} um along y"
    Console().print(f"pair {uid}: {words}", soft_wrap=True, markup=False)


@app.command()
def calibrate(
    pair_dirs: Annotated[list[Path], typer.Argument(help="Folders of pair stores.")],
    out: Annotated[Path, typer.Option(help="Folder for the model with its new calibration.")],
    model: Annotated[str | None, typer.Option(help=_MODEL_HELP)] = None,
    json_out: JsonOut = None,
) -> None:
    """Widen or narrow the intervals until they cover 90 % of your own pairs of maps."""
    _check_place("--json", json_out)
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from xrf_sr_plans.evaluation.calibrate_from_pairs import calibrate_from_pairs

    report = calibrate_from_pairs(pair_dirs, model, out)
    columns = ("factor", "pairs", "maps", "before", "after", "left out", "stretch", "")
    table = Table(title=f"Coverage of 90 % intervals, calibration {report.calibration}")
    for column in columns:
        table.add_column(column, justify="right")
    for row in report.factors:
        shares = (row.coverage_before, row.coverage_after, row.coverage_left_out)
        texts = [f"{share:.3f}" for share in shares]
        numbers = [str(row.factor), str(row.pairs), str(row.maps)]
        table.add_row(*numbers, *texts, f"{row.stretch:.2f}", row.reason)
    console = Console()
    console.print(table)
    console.print(f"select it with the setting model = {str(report.model)!r}", soft_wrap=True)
    if json_out is not None:
        json_out.write_text(json.dumps(asdict(report), indent=1, default=str))


@app.command()
def hallucinate(
    model: Annotated[str | None, typer.Option(help=_MODEL_HELP)] = None,
    quick: Annotated[
        bool, typer.Option(help="Only measure a few combinations of settings.")
    ] = False,
    write: Annotated[bool, typer.Option(help="Save the boundary beside the weights.")] = False,
    json_out: JsonOut = None,
) -> None:
    """Measure what a model invents and loses in known samples, and fit its trust boundary."""
    _check_place("--json", json_out)
    from rich.table import Table

    from xrf_sr_plans.evaluation.feature_sweep import QUICK, cells
    from xrf_sr_plans.evaluation.fit_boundary import SHOWN
    from xrf_sr_plans.evaluation.fit_boundary import hallucinate as measure
    from xrf_sr_plans.sr.registry import model_path
    from xrf_sr_plans.sr.trust_boundary import write_boundary

    measured = measure(model, wanted=list(cells(**QUICK)) if quick else None)
    table = Table(title="Features of known samples, % (95 % interval)")
    for column in ("factor", "method", "standard", "probe", *SHOWN):
        table.add_column(column, justify="right")
    for line in measured.summary():
        texts = [_percent(line[name]) for name in SHOWN]
        probe = f"{line['probe']:g}"
        reading = reading_name((line["factor"], line["fast_pixels"]))
        table.add_row(reading, line["method"], line["standard"], probe, *texts)
    console = _table_console()
    console.print(table)
    if write:
        file = write_boundary(model_path(model), measured.boundary)
        console.print(str(file), soft_wrap=True)
    if json_out is not None:
        report = {
            "boundary": measured.boundary.model_dump(mode="json"),
            "summary": measured.summary(),
        }
        json_out.write_text(json.dumps(report, indent=1))


def _percent(rate: dict[str, float]) -> str:
    """Return a proportion and its interval in percent, or "-" where nothing was tried."""
    if not rate["of"]:
        return "-"
    return f"{100 * rate['rate']:.1f} ({100 * rate['low']:.1f}-{100 * rate['high']:.1f})"


def _table_console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_TABLE_WIDTH)


if __name__ == "__main__":
    main()
