"""Tables of a model's trust boundary, from the file beside its weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from xrf_sr_plans.sr.registry import model_path, read_card
from xrf_sr_plans.sr.trust_boundary import NEVER, TrustBoundary, read_boundary

MISSING = "Not measured for these weights: run `python benchmarks/hallucination.py --write`."
RATES = {
    "false": "of the predicted features, absent",
    "believed": "the same on trusted pixels",
    "misplaced": "of these, beside a lost one: misplaced, not invented",
    "flagged": "of the absent ones, flagged as untrusted",
    "doubted": "of the true ones predicted, flagged too",
    "leaked": "predicted where only another element has one",
    "lost": "of the true features, lost",
}


def pages() -> dict[str, str]:
    """Return the parts of the page on trust, for the default model, by file name."""
    path = model_path(None)
    boundary = read_boundary(path, read_card(path).sha256)
    figures = {} if boundary is None else boundary.figures
    return {
        "trust-rates.md": rates(figures.get("summary", [])),
        "trust-kinds.md": kinds(figures.get("summary", [])),
        "trust-peers.md": peers(figures.get("compared", [])),
        "trust-boundary.md": smallest(boundary) if boundary else MISSING + "\n",
        "trust-left-out.md": _each(figures.get("left_out", []), {"standard": "left out"}),
        "trust-cost.md": _each(figures.get("cost", []), {"counts": "photons"}),
        "trust-aliases.md": _each(figures.get("aliases", []), {}),
        "trust-elements.md": _each(
            figures.get("elements", []), {"coverage_90": "coverage", "gain_db": "gain (dB)"}
        ),
        "trust-gratings.md": _each(figures.get("gratings", []), {"period_steps": "period"}),
        "trust-hidden.md": _each(figures.get("hidden", []), {}),
    }


def smallest(boundary: TrustBoundary) -> str:
    """Return the smallest believable sizes of dots and lines by factor, counts and contrast."""
    parts = [
        _sizes("dots, diameter", boundary.smallest_steps),
        _sizes("lines, width", boundary.smallest_line_steps),
    ]
    return "\n".join(part for part in parts if part) or MISSING + "\n"


def _sizes(what: str, lines: Sequence[dict[str, float]]) -> str:
    if not lines:
        return ""
    # Files from before blur was swept don't name the probe.
    lines = [{"probe": 0.0, "fast_pixels": 1, **line} for line in lines]
    counts = sorted({line["counts"] for line in lines})
    rows = []
    names = ("factor", "fast_pixels", "probe", "contrast")
    keys = {tuple(line[name] for name in names) for line in lines}
    for key in sorted(keys, key=lambda key: (*key[:3], -key[3])):
        _, _, probe, contrast = key
        known = {
            line["counts"]: f"{_size(line['believed_steps'])} ({_size(line['seen_steps'])})"
            for line in lines
            if tuple(line[name] for name in names) == key
        }
        blur = f", probe {probe:g}" if probe else ""
        reading = _reading({"factor": key[0], "fast_pixels": key[1]})
        rows.append([f"{reading}{blur}, {contrast:g}", *(known.get(n, "") for n in counts)])
    return table([what, *(f"{n:g}" for n in counts)], rows)


def _reading(line: dict[str, Any]) -> str:
    """Return how maps were measured: "2×", or "2× rows"."""
    rows = " rows" if line.get("fast_pixels", 1) > 1 else ""
    return f"{line['factor']:g}×{rows}"


def _size(steps: float) -> str:
    return "–" if steps >= NEVER else f"{steps:g}"


def rates(summary: Sequence[dict[str, Any]]) -> str:
    """Return the rates over all standards without blur, model and bicubic."""
    chosen = [line for line in summary if line["standard"] == "all" and not line["probe"]]
    columns = [f"{_reading(line)}: {line['method']}" for line in chosen]
    rows = [[words, *(_rate(line, name) for line in chosen)] for name, words in RATES.items()]
    return table(["% (95 % interval)", *columns], rows) if chosen else MISSING + "\n"


def kinds(summary: Sequence[dict[str, Any]]) -> str:
    """Return the model's rates by kind of sample and by probe."""
    chosen = [
        line
        for line in summary
        if line["method"] == "model" and (line["standard"] != "all" or line["probe"])
    ]
    rows = []
    for line in chosen:
        blur = f"probe of {line['probe']:g} steps" if line["probe"] else line["standard"]
        shown = (_percent(line[name]) for name in ("believed", "flagged", "leaked", "lost"))
        rows.append([f"{_reading(line)}, {blur}", *shown])
    head = ["% (95 % interval)", "believed but absent", "absent ones flagged", "leaked", "lost"]
    return table(head, rows) if rows else MISSING + "\n"


def peers(compared: Sequence[dict[str, Any]]) -> str:
    """Return the rates of all methods where all were tried."""
    names = ("false", "believed", "leaked", "lost")
    rows = [
        [f"{_reading(line)}, {line['method']}", *(_rate(line, name) for name in names)]
        for line in compared
    ]
    head = ["% (95 % interval)", "absent", "absent, on trusted pixels", "leaked", "lost"]
    return table(head, rows) if rows else MISSING + "\n"


def _each(lines: Sequence[dict[str, Any]], words: dict[str, str]) -> str:
    if not lines:
        return MISSING + "\n"
    head = [words.get(name, name.replace("_", " ")) for name in lines[0]]
    return table(head, [[_cell(value) for value in line.values()] for line in lines])


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return _percent(value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rate(line: dict[str, Any], name: str) -> str:
    # Only the model says what it doesn't trust.
    untold = line["method"] != "model" and name in ("believed", "flagged", "doubted")
    return "–" if untold else _percent(line[name])


def _percent(rate: dict[str, Any]) -> str:
    if not rate["of"]:
        return "–"
    return f"{100 * rate['rate']:.2f} ({100 * rate['low']:.2f}–{100 * rate['high']:.2f})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
