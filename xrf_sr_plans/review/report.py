"""`write_report`: everything about one survey in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import io
import pprint
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from xrf_sr_plans import schema
from xrf_sr_plans.composite.composite_map import CompositeMap
from xrf_sr_plans.errors import XrfSrError
from xrf_sr_plans.review.growing import GrowingSurvey, Progress
from xrf_sr_plans.review.record import SurveyRecord, left_out, regions_of
from xrf_sr_plans.review.view import SurveyView

_FLOWN = ("rescanned",)


def view_of(record: SurveyRecord, title: str = "", notes: Sequence[str] = ()) -> SurveyView:
    """Return what there is to see of a survey.

    Parameters
    ----------
    record
        The survey.
    title
        Title of pictures.
    notes
        Sentences under the title.
    """
    return SurveyView(
        coarse=list(record.coarse.values()),
        enhanced=list(record.enhanced.values()),
        regions=regions_of(record),
        left_out=left_out(record),
        composite=composite_to_draw(record),
        title=title,
        notes=notes,
    )


def composite_to_draw(record: SurveyRecord) -> CompositeMap | None:
    """Return the composite map, or None where nothing was rescanned or it can't be made."""
    if not record.fine:
        return None
    try:
        return record.composite()
    except XrfSrError:
        # What is missing is told by whoever asks for the composite map itself.
        return None


def write_report(survey: GrowingSurvey, path: Path | str) -> Path:
    """Write a report of a survey: maps, regions, costs, verdicts, uids, and the calls that fly it.

    The file holds its pictures and asks no server for anything, so that it can be mailed.

    Parameters
    ----------
    survey
        The survey as far as it is known.
    path
        Name of the HTML file. Its folder is made if need be.

    Returns
    -------
    pathlib.Path
        The file that was written.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("xrf_sr_plans.review"), autoescape=True, keep_trailing_newline=True
    )
    text = environment.get_template("report.html").render(**_content(survey))
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
    return path


def _content(survey: GrowingSurvey) -> dict[str, Any]:
    record, start = survey.record, survey.start or {}
    metadata = start.get("xrf_sr") or {}
    view = view_of(record)
    fast, slow = view.axis_names if view.coarse else ("x", "y")
    user_input = metadata.get("user_input") or {}
    uid = str(metadata.get("survey_uid") or "")
    return {
        "title": f"Survey {uid[:8]}" + (f" of {start['sample']}" if start.get("sample") else ""),
        "lead": _lead(record),
        "warnings": _warnings(record, survey),
        "facts": list(_facts(start, metadata, record)),
        "pictures": list(_pictures(view)),
        "fast": fast,
        "slow": slow,
        "regions": [_region(number, row) for number, row in enumerate(record.regions, start=1)],
        "costs": [
            _cost("coarse survey", len(record.coarse), survey.progress("coarse")),
            _cost("rescans", len(record.fine), survey.progress("fine")),
        ],
        "verdicts": [str(verdict) for verdict in record.verdicts],
        "survey_call": call_in_words("coarse_survey_with_sr", user_input),
        "rescan_call": rescan_call(survey),
        "runs": sorted(record.run_uids.items()),
    }


def call_in_words(plan: str, arguments: Mapping[str, Any]) -> str:
    """Return what a user types to fly a plan with these arguments."""
    given = {name: value for name, value in arguments.items() if value is not None}
    if not given:
        return f"RE({plan}())"
    lines = [
        f"    {name}={pprint.pformat(value, width=88, sort_dicts=False)}".replace("\n", "\n    ")
        for name, value in given.items()
    ]
    return f"RE({plan}(\n" + ",\n".join(lines) + ",\n))"


def rescan_call(survey: GrowingSurvey) -> str:
    """Return what a user types to fly the regions that were not flown; "" where there are none."""
    metadata: Mapping[str, Any] = {}
    for start in survey.runs.values():
        if schema.kind_of_run(start) in ("proposals", "outcomes"):
            metadata = start["xrf_sr"]
    rows = [row for row in survey.record.regions if row["disposition"] not in _FLOWN]
    if not rows or not metadata:
        return ""
    edges = ("x_low_um", "x_high_um", "y_low_um", "y_high_um")
    arguments = {
        "regions": [{edge: row[edge] for edge in edges} for row in rows],
        "fine_step_um": metadata.get("fine_step_um"),
        "dwell_ms": metadata.get("fine_dwell_ms"),
        "survey_uid": metadata.get("survey_uid"),
        "parent_uid": rows[0]["region"].get("source_uid"),
    }
    return call_in_words("rescan_regions", arguments)


def _lead(record: SurveyRecord) -> str:
    flown = sum(row["disposition"] in _FLOWN for row in record.regions)
    return (
        f"{_count(len(record.coarse), 'coarse map')}, {len(record.enhanced)} enhanced, "
        f"{_count(len(record.regions), 'region')}, {flown} rescanned"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _warnings(record: SurveyRecord, survey: GrowingSurvey) -> list[str]:
    said = sorted({maps.fallback for maps in record.enhanced.values() if maps.fallback})
    notes = [f"Enhanced maps are bicubic only, no model: {reason}" for reason in said]
    coarse = survey.progress("coarse")
    if coarse.rows < coarse.of_rows:
        notes.append(f"Only {coarse.rows} of {coarse.of_rows} rows were measured.")
    missing = len(record.coarse) - len(record.enhanced)
    if missing > 0:
        notes.append(f"There is no enhanced map of {_count(missing, 'coarse map')}.")
    ended = [
        str(start["xrf_sr"].get("ended_by"))
        for start in survey.runs.values()
        if schema.kind_of_run(start) == "outcomes" and start["xrf_sr"].get("ended_by")
    ]
    return notes + [f"The survey was ended early: {words}" for words in ended]


def _facts(
    start: Mapping[str, Any], metadata: Mapping[str, Any], record: SurveyRecord
) -> Iterator[tuple[str, str]]:
    if start.get("time"):
        yield "Date", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(start["time"])))
    yield "Beamline", str(metadata.get("beamline", "unknown"))
    user_input = metadata.get("user_input") or {}
    yield "Looked for", str(user_input.get("find") or "whatever stands out")
    if record.coarse:
        maps = next(iter(record.coarse.values()))
        fast, slow = maps.grid.fast, maps.grid.slow
        yield "Step", f"{metadata.get('step_um', slow.step_um):g} µm between rows"
        yield "Pixels", f"{fast.num} × {slow.num} of {fast.step_um:g} × {slow.step_um:g} µm"
        yield "Dwell", f"{metadata.get('dwell_ms', float('nan')):g} ms per pixel"
    models = {
        f"{maps.model.get('name')} ({str(maps.model.get('sha256'))[:12]}), {maps.factor}×"
        for maps in record.enhanced.values()
    }
    if models:
        yield "Model", ", ".join(sorted(models))
    if record.forecast:
        from xrf_sr_plans.rois.forecast import Forecast

        yield "Forecast", str(Forecast.from_dict(record.forecast))


def _pictures(view: SurveyView) -> Iterator[dict[str, str]]:
    """Yield a picture of each element, so that a browser can show one after the other."""
    if not view.coarse:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from xrf_sr_plans.review.picture import draw_into

    for element in view.elements:
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw_into(figure, view, [element])
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110)
        layers = ", ".join(layer.title for layer in view.layers())
        yield {
            "data": base64.b64encode(buffer.getvalue()).decode("ascii"),
            "alt": f"Maps of {element}: {layers}, with the numbered regions of the table below.",
        }


def _region(number: int, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "number": number,
        "elements": row["elements"],
        "x": f"{row['x_low_um']:g} … {row['x_high_um']:g}",
        "y": f"{row['y_low_um']:g} … {row['y_high_um']:g}",
        "score": f"{float(row['score']):.3g}",
        "disposition": row["disposition"],
        "reason": row["reason"],
        "run_uid": row["run_uid"],
    }


def _cost(name: str, maps: int, progress: Progress) -> dict[str, Any]:
    rows = f"{progress.rows} of {progress.of_rows}"
    return {"name": name, "maps": maps, "rows": rows, "seconds": f"{progress.elapsed_s:.1f}"}
