"""The result of an evaluation: figures per element and method, their summary, table and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.sr.classical import reference_of


@dataclass(frozen=True)
class Figures:
    """How one method did on one element, or on average in a `Summary`.

    Parameters
    ----------
    psnr_db, psnr_stabilised_db
        PSNR of counts and of stabilised counts. The range is p99.9 - p0.1 of the reference.
    ssim, ssim_foreground
        Structural similarity over the whole map and where the element is.
    count_bias
        Relative error of the total counts against those measured in the coarse map.
    truth_bias
        Relative error of the total counts against the truth. Counting noise and what the coarse
        step missed come on top, the same for all methods.
    chi2
        Reduced chi-square of the re-degraded estimate against the measured counts; None without
        noise.
    edge_fwhm_um
        Median width of edges at the reference's own edges, not below the reference's.
    frc_um
        Period at which the Fourier ring correlation with the reference falls below 0.5.
    coverage_90
        Share of reference pixels in the 90 % interval; None where the method gives none.
    """

    psnr_db: float
    psnr_stabilised_db: float
    ssim: float
    ssim_foreground: float
    count_bias: float
    truth_bias: float
    chi2: float | None
    edge_fwhm_um: float
    frc_um: float
    coverage_90: float | None = None


@dataclass(frozen=True)
class ElementFigures:
    """How one method did on one element."""

    element: str
    method: str
    figures: Figures


@dataclass(frozen=True)
class Summary:
    """One method over all elements that count."""

    method: str
    mean: Figures
    gain_db: float
    """Mean PSNR over bicubic of the same coarse map, for rows over that of their squares."""
    worst_gain_db: float
    worst_element: str
    worst_count_bias: float
    worst_ratio_bias: float
    """Largest relative error of a ratio of two elements' totals, against the measured ones."""
    seconds: float


@dataclass(frozen=True)
class Degradation:
    """How the reference was degraded.

    Parameters
    ----------
    measurement
        How the coarse map is measured.
    counts
        Photons at the 99th percentile of each element's coarse map; None: no noise.
    pixel_um
        Pixel of the reference; 1 where the file doesn't say.
    seed
        Seed of the counting noise.
    """

    measurement: Measurement
    counts: float | None
    pixel_um: float
    seed: int

    @property
    def step_um(self) -> float:
        """Step of the coarse map."""
        return self.pixel_um * self.measurement.factor

    @property
    def probe_um(self) -> float | None:
        """Full width at half maximum of the probe; None: no blur beyond what the file has."""
        # Rounded: 0.7 um in steps, and back, must not become 0.7000000000000001.
        return round(self.measurement.probe_steps * self.step_um, 12) or None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, flat."""
        return {
            "factor": self.measurement.factor,
            "sampling": self.measurement.sampling,
            "counts": self.counts,
            "probe_um": self.probe_um,
            "pixel_um": self.pixel_um,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class EvaluationTable:
    """All figures of one file.

    Parameters
    ----------
    path, layout
        The file, and which layout it has.
    shape
        Pixels of the reference, (Y, X).
    degradation
        How the coarse map was made of it.
    rows, summaries
        Figures of each element and method, and of each method over the elements that count.
    reference_fwhm_um
        Width of the reference's own edges by element.
    left_out
        Why an element doesn't count, by element.
    notes
        What a reader of the table should know.
    """

    path: str
    layout: str
    shape: tuple[int, int]
    degradation: Degradation
    rows: tuple[ElementFigures, ...]
    summaries: tuple[Summary, ...]
    reference_fwhm_um: dict[str, float]
    left_out: dict[str, str]
    notes: tuple[str, ...]

    def row(self, element: str, method: str) -> Figures:
        """Return the figures of one element and method.

        Raises
        ------
        KeyError
            If there are none.
        """
        for row in self.rows:
            if (row.element, row.method) == (element, method):
                return row.figures
        raise KeyError((element, method))

    def summary(self, method: str) -> Summary:
        """Return one method's summary.

        Raises
        ------
        KeyError
            If the method didn't run.
        """
        for summary in self.summaries:
            if summary.method == method:
                return summary
        raise KeyError(method)


def average(figures: Iterable[Figures]) -> Figures:
    """Return the mean of each figure over those elements that have it."""
    elements = list(figures)

    def mean(name: str) -> float | None:
        values = [getattr(each, name) for each in elements]
        known = [value for value in values if value is not None]
        finite = [value for value in known if np.isfinite(value)]
        if known and not finite:
            return float("nan")
        return float(np.mean(finite)) if finite else None

    return Figures(**{field.name: mean(field.name) for field in fields(Figures)})  # type: ignore[arg-type]


def _number(form: str, scale: float = 1.0) -> Callable[[float | None], str]:
    def write(value: float | None) -> str:
        return "-" if value is None or not np.isfinite(value) else format(value * scale, form)

    return write


_COLUMNS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("PSNR dB", "psnr_db", _number(".2f")),
    ("stab. dB", "psnr_stabilised_db", _number(".2f")),
    ("SSIM", "ssim", _number(".3f")),
    ("SSIM fg", "ssim_foreground", _number(".3f")),
    ("counts %", "count_bias", _number("+.2f", 100)),
    ("truth %", "truth_bias", _number("+.2f", 100)),
    ("χ²", "chi2", _number(".2f")),
    ("edge um", "edge_fwhm_um", _number(".3g")),
    ("FRC um", "frc_um", _number(".3g")),
    ("cover 90", "coverage_90", _number(".3f")),
)


def render(table: EvaluationTable) -> Group:
    """Return what is printed: figures per element, their means, and notes on how to read them."""
    how, measurement = table.degradation, table.degradation.measurement
    noise = "no noise" if how.counts is None else f"N99 = {how.counts:g} counts"
    probe = "" if not how.probe_um else f", probe {how.probe_um:g} um"
    title = (
        f"{table.path}: {measurement.factor}x, {measurement.sampling} sampling, {noise}{probe};"
        f" pixel {how.pixel_um:.3g} um, coarse step {how.step_um:.3g} um"
    )
    return Group(Text(title), _per_element(table), _means(table), Text("\n".join(_foot(table))))


def _table(*first: str) -> Table:
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in first:
        shown.add_column(name, no_wrap=name != "element")
    return shown


def _per_element(table: EvaluationTable) -> Table:
    shown = _table("element", "method")
    for name in ("gain dB", *(heading for heading, _, _ in _COLUMNS)):
        shown.add_column(name, justify="right")
    base_method = reference_of(table.degradation.measurement)
    for element in dict.fromkeys(row.element for row in table.rows):
        if element in table.left_out:
            continue
        rows = [row for row in table.rows if row.element == element]
        base = next((row.figures.psnr_db for row in rows if row.method == base_method), np.nan)
        best = max((row.figures.psnr_db for row in rows), default=np.nan)
        for row in rows:
            style = "bold" if row.figures.psnr_db == best else None
            gain = _number("+.2f")(row.figures.psnr_db - base)
            shown.add_row(element, row.method, gain, *_cells(row.figures), style=style)
        shown.add_section()
    return shown


def _means(table: EvaluationTable) -> Table:
    """Return the means over the elements that count, the best method in bold."""
    count = len({row.element for row in table.rows} - set(table.left_out))
    shown = _table(f"mean of {count}")
    names = ("gain dB", "worst", "of", *(heading for heading, _, _ in _COLUMNS), "ratio %", "s")
    for name in names:
        shown.add_column(name, justify="right")
    signed, percent = _number("+.2f"), _number(".2f", 100)
    best = max((summary.gain_db for summary in table.summaries), default=np.nan)
    for summary in table.summaries:
        gains = signed(summary.gain_db), signed(summary.worst_gain_db), summary.worst_element
        last = percent(summary.worst_ratio_bias), f"{summary.seconds:.1f}"
        style = "bold" if summary.gain_db == best else None
        shown.add_row(summary.method, *gains, *_cells(summary.mean), *last, style=style)
    return shown


def _cells(figures: Figures) -> list[str]:
    return [write(getattr(figures, name)) for _, name, write in _COLUMNS]


def _foot(table: EvaluationTable) -> list[str]:
    widths = (f"{name} {_number('.3g')(w)}" for name, w in table.reference_fwhm_um.items())
    lines = [
        f"gain: PSNR over {reference_of(table.degradation.measurement)} of the same photons; range"
        " p99.9 - p0.1 of the reference.",
        "counts, ratio: totals and the worst ratio of two, against the measured ones. The networks"
        " to compare with run as they are, without the last step of ours that keeps totals.",
        f"edge: not below the reference's own, um: {', '.join(widths)}",
    ]
    lines += [f"left out: {name}: {why}" for name, why in table.left_out.items()]
    return [*lines, *table.notes]


def to_dict(table: EvaluationTable) -> dict[str, Any]:
    """Return the table as JSON types, in which None stands for what is not finite."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, (float, np.floating)):
            return float(value) if np.isfinite(value) else None
        return value

    # "conditions": the name under which readers of earlier tables know it.
    values = {
        "conditions" if name == "degradation" else name: value
        for name, value in asdict(table).items()
    }
    return plain(values | {"conditions": table.degradation.to_dict()})


def to_json(table: EvaluationTable) -> str:
    """Return the table as strict JSON."""
    return json.dumps(to_dict(table), indent=1, allow_nan=False)
