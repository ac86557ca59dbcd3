"""The commands about models: `train`, `calibrate` and `hallucinate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xrf_sr_plans.cli.shared import JsonOut, ModelFlag, check_place, table_console
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import FACTORS, alternatives, reading_name
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
        typer.Option(
            help="'supervised'; to adapt a model, 'paired', 'self-supervised' or 'unpaired'."
        ),
    ] = "supervised",
    pairs: Annotated[
        Path | None, typer.Option(help="Pair store to learn from: method 'paired'.")
    ] = None,
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
        typer.Option(
            "--set",
            help="Any field of TrainingConfig, AdaptationConfig or LearningSettings: steps=600.",
        ),
    ] = None,
) -> None:
    """Train a network, go on with pairs of your own, or adapt one to a sample without pairs."""
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
    if method not in ("supervised", "paired", "self-supervised", "unpaired"):
        raise ConfigError(f"method is {method!r}; supervised, paired, self-supervised or unpaired")
    if pairs is not None or method == "paired":
        if pairs is None or method not in ("supervised", "paired") or maps or fine or real_maps:
            raise ConfigError("--pairs FOLDER goes with --method paired, and with no maps")
        _learn({"pairs": pairs, "out": out, "start": start} | settings)
        return
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
    # Lightning takes seconds: what is refused is refused before.
    from xrf_sr_plans.training.loop import train as run_training

    run_training(config)


def _learn(given: dict[str, object]) -> None:
    from pydantic import ValidationError
    from rich.console import Console

    from xrf_sr_plans.learning.train_on_pairs import LearningSettings, train_on_pairs
    from xrf_sr_plans.sr.registry import read_card
    from xrf_sr_plans.training.team import leads

    try:
        config = LearningSettings.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"settings of the training: {error}") from error
    path = train_on_pairs(config)
    if not leads():
        return
    facts = read_card(path).training
    lines = [
        f"{facts['gain on held-out pairs, dB']:+.2f} dB on held-out pairs,"
        f" {facts['gain on phantoms, dB']:+.2f} dB on phantoms, after {facts['best step']} steps",
        f"held out are {facts['pairs']['held out are']}",
        "whether it is better all in all: xrf-sr learn",
        f"select it with the setting model = {str(path)!r}",
    ]
    for line in lines:
        Console().print(line, soft_wrap=True, markup=False)


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


def calibrate(
    pair_dirs: Annotated[list[Path], typer.Argument(help="Folders of pair stores.")],
    out: Annotated[Path, typer.Option(help="Folder for the model with its new calibration.")],
    model: ModelFlag = None,
    json_out: JsonOut = None,
) -> None:
    """Widen or narrow the intervals until they cover 90 % of your own pairs of maps."""
    check_place("--json", json_out)
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


def hallucinate(
    model: ModelFlag = None,
    quick: Annotated[
        bool, typer.Option(help="Only measure a few combinations of settings.")
    ] = False,
    write: Annotated[bool, typer.Option(help="Save the boundary beside the weights.")] = False,
    json_out: JsonOut = None,
) -> None:
    """Measure what a model invents and loses in known samples, and fit its trust boundary."""
    check_place("--json", json_out)
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
    console = table_console()
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
