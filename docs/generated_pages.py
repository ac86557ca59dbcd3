"""Parts of the reference that are read from the code: plans, commands, settings, model cards."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import trust_tables
from parameter_types import in_words

OUT = Path(__file__).parent / "_build" / "generated"
_BELIEVED = (
    "Sizes are in coarse steps. Rows are the factor and the contrast over a background of 0.2."
    " Columns are photons per coarse pixel at an intensity of 1. The number in brackets is the"
    " smallest size of which at most 10 % are lost. What is smaller or fainter is marked as not"
    " trusted."
)


def write_pages(out: Path = OUT) -> None:
    """Write all parts into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "plans.md": plans(),
        "command-line.md": command_line(),
        "settings.md": settings(),
        "model-card.md": model_cards(),
        **trust_tables.pages(),
    }.items():
        (out / name).write_text(text, encoding="utf-8")


def plans() -> str:
    """Return the plans with the parameters that a user types: without their beamline."""
    from xrf_sr_plans.devices.sim import make_beamline
    from xrf_sr_plans.plans.binding import bind_plans

    return "\n\n".join(_plan(name, plan) for name, plan in bind_plans(make_beamline()).items())


def _plan(name: str, plan: Callable[..., Any]) -> str:
    from numpydoc.docscrape import NumpyDocString

    text = NumpyDocString(inspect.getdoc(plan) or "")
    parameters = dict(inspect.signature(plan).parameters)
    rows = ["| parameter | type | default | meaning |", "|---|---|---|---|"]
    for line in text["Parameters"]:
        found = [parameters.pop(key.strip()) for key in line.name.split(",")]
        rows.append(_parameters(found, _flat(line.desc)))
    rows += [_parameters([one], "") for one in parameters.values()]
    parts = [
        f"## `{name}`",
        _flat(text["Summary"]),
        "\n".join(text["Extended Summary"]),
        "\n".join(rows),
    ]
    for title in ("Returns", "Raises"):
        lines = [f"- `{one.type}`: {_flat(one.desc)}" for one in text[title]]
        parts += [f"{title}:", "\n".join(lines)] if lines else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _parameters(found: Sequence[inspect.Parameter], meaning: str) -> str:
    """Return one row of a table for parameters that are described together."""
    names = ", ".join(f"`{one.name}`" for one in found)
    kinds = dict.fromkeys(_kind(one) for one in found)
    defaults = dict.fromkeys(
        "must be given" if one.default is inspect.Parameter.empty else f"`{one.default!r}`"
        for one in found
    )
    return f"| {names} | {', '.join(kinds)} | {', '.join(defaults)} | {meaning} |"


def _kind(parameter: inspect.Parameter) -> str:
    """Return the type of a plan's parameter, and the range of a number."""
    from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES

    kind = in_words(parameter.annotation).replace(" | ", " or ")
    allowed = PARAMETER_RANGES.get(parameter.name)
    return f"{kind}, {allowed.low:g} to {allowed.high:g}" if allowed else kind


def _flat(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).split()).replace("|", "\\|")


def command_line() -> str:
    """Return every command of ``xrf-sr`` with its parameters."""
    import typer

    from xrf_sr_plans.cli import app

    parts = []
    known = dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    for name, group in list(known.items()):
        # Such as `xrf-sr pairs add`.
        for part, command in getattr(group, "commands", {}).items():
            known[f"{name} {part}"] = command
            known.pop(name, None)
    for name, command in sorted(known.items()):
        rows = [_row(parameter) for parameter in command.params if parameter.name != "help"]
        text = (command.help or "").strip()
        parts += [f"## `xrf-sr {name}`", text, "| parameter | default | |\n|---|---|---|"]
        parts[-1] += "".join(f"\n{row}" for row in rows)
    return "\n\n".join(parts) + "\n"


def _row(parameter: Any) -> str:
    names = parameter.name if parameter.param_type_name == "argument" else parameter.opts[0]
    default = "" if parameter.default in (None, ...) or parameter.required else parameter.default
    shown = f"`{default}`" if default != "" else ""
    return f"| `{names}` | {shown} | {getattr(parameter, 'help', None) or ''} |"


def settings() -> str:
    """Return all tables of the settings file, with what their fields' docstrings say."""
    from xrf_sr_plans.config import Settings
    from xrf_sr_plans.config.beamline import DeviceSettings, HeldAxisSettings
    from xrf_sr_plans.config.flyers import EpicsFlyerSettings, OwnPlanSettings, StepFlyerSettings

    parts = list(_tables(Settings, ""))
    for title, model in {
        "[[beamline.held]]": HeldAxisSettings,
        "[devices.NAME]": DeviceSettings,
        '[beamline.flyer] of kind "step"': StepFlyerSettings,
        '[beamline.flyer] of kind "epics"': EpicsFlyerSettings,
        '[beamline.flyer] of kind "own-plan"': OwnPlanSettings,
    }.items():
        parts.append(_table(title, model))
    return "\n\n".join(parts) + "\n"


def _tables(model: Any, above: str) -> Iterator[str]:
    """Yield a table for each table of the settings file, those within others after them."""
    from xrf_sr_plans.config.sources import section_of

    for name, field in model.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None and inner.__name__ != "AxisSettings":
            yield _table(f"[{above}{name}]", inner)
            yield from _tables(inner, f"{above}{name}.")


def _table(title: str, model: Any) -> str:
    lines = [f"### `{title}`", _flat([inspect.getdoc(model) or ""]), ""]
    lines += ["| key | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "must be given" if field.is_required() else f"`{_toml(field)}`"
        text = _flat([field.description or ""])
        lines.append(f"| `{field.alias or name}` | {default} | {text} |")
    return "\n".join(lines)


def _toml(field: Any) -> str:
    """Return the default of a setting as the file spells it; "-" where there is none."""
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or hasattr(value, "model_fields"):
        return "-"
    return json.dumps(value)


def model_cards() -> str:
    """Return the cards of all weights that ship."""
    from xrf_sr_plans.sr import registry
    from xrf_sr_plans.sr.trust_boundary import read_boundary

    parts = []
    for path in sorted(registry.WEIGHTS.glob("*.safetensors")):
        card = registry.read_card(path)
        parts += [f"## {card.name}", card.summary, f"sha256 of the weights: `{card.sha256}`"]
        if card.limits:
            parts += ["### What it can't do", "\n".join(f"- {limit}" for limit in card.limits)]
        boundary = read_boundary(path, card.sha256)
        if boundary is not None:
            parts += ["### Smallest size believed", _BELIEVED, trust_tables.smallest(boundary)]
        facts = {
            "Figures": card.figures,
            "Architecture": card.architecture.model_dump(),
            "Data": card.data,
            "Training": card.training,
        }
        for title, content in facts.items():
            if content:
                parts += [f"### {title}", _block(content)]
        if card.license:
            parts.append(f"Licence of the weights: {card.license}")
    return "\n\n".join(parts) + "\n"


def _block(content: Any) -> str:
    return f"```json\n{json.dumps(content, indent=2, ensure_ascii=False)}\n```"
