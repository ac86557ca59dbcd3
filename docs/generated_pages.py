"""Parts of the reference that are read from the code: commands, settings, model cards."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import trust_tables

OUT = Path(__file__).parent / "_build" / "generated"
_BELIEVED = (
    "Coarse steps, by factor and contrast (rows; over a background of 0.2) and photons per coarse"
    " pixel at an intensity of 1 (columns); in brackets the smallest of which at most 10 % are"
    " lost. What is smaller or fainter is marked untrusted."
)


def write_pages(out: Path = OUT) -> None:
    """Write all parts into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in {
        "command-line.md": command_line(),
        "settings.md": settings(),
        "model-card.md": model_cards(),
        **trust_tables.pages(),
    }.items():
        (out / name).write_text(text, encoding="utf-8")


def command_line() -> str:
    """Return every command of ``xrf-sr`` with its parameters."""
    import typer

    from xrf_sr_plans.cli import app

    parts = []
    for name, command in sorted(typer.main.get_command(app).commands.items()):  # type: ignore[attr-defined]
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
    """Return the fields of `AnalysisSettings` with the docstrings beneath them."""
    import ast
    import inspect

    from xrf_sr_plans.config import AnalysisSettings

    body = ast.parse(inspect.getsource(AnalysisSettings)).body[0].body  # type: ignore[attr-defined]
    lines = ["| field | default | |", "|---|---|---|"]
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            name = field.target.id  # type: ignore[union-attr]
            text = " ".join(str(below.value.value).split())  # type: ignore[attr-defined]
            default = AnalysisSettings.model_fields[name].default
            lines.append(f"| `{name}` | `{default}` | {text} |")
    return "\n".join(lines) + "\n"


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
