"""The documentation's own snippets, typed in page by page on the simulated beamline.

A block after the line ``% tested`` is executed; ``% tested: SomeError`` says what it must raise,
``% tested: package`` what it needs. A block after ``% output`` is what the one before printed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bluesky import RunEngine

from xrf_sr_plans import errors
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.preview import preview
from xrf_sr_plans.review.latest import LatestSurvey
from xrf_sr_plans.session import start_session

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(
    r"^% (?P<mark>tested|output)(?:: (?P<what>\w+))?\n```\w+\n(?P<code>.*?)^```$", re.M | re.S
)
_CODE = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Snippet:
    """One marked block of a page."""

    mark: str
    what: str
    code: str


def snippets(page: Path) -> list[Snippet]:
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Snippet(one["mark"], one["what"] or "", one["code"]) for one in found]


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if snippets(page)]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a session has: the same names as profile_collection gives, on an instant clock."""
    monkeypatch.chdir(tmp_path)
    run_engine, latest, beamline = RunEngine({}), LatestSurvey(), make_beamline()
    run_engine.subscribe(latest)
    session = start_session(
        run_engine,
        beamline,
        settings=AnalysisSettings(),
        in_process=True,
        result_sinks=[latest],
    )
    with session:
        yield {
            "RE": run_engine,
            "latest_survey": latest,
            "beamline": beamline,
            "analysis": session.analysis,
            "preview": preview,
            "_session": session,
            **session.plans,
        }


@pytest.mark.timeout(120)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_snippets_of_a_page_do_what_it_says(page, names, capsys) -> None:
    for snippet in snippets(page):
        if snippet.mark == "output":
            shown = capsys.readouterr().out
            for line in snippet.code.strip().splitlines():
                assert line in shown
            continue
        capsys.readouterr()
        error = getattr(errors, snippet.what, None)
        if snippet.what and error is None:
            pytest.importorskip(snippet.what)
        code = compile(snippet.code, str(page), "exec")
        if error is None:
            exec(code, names)  # noqa: S102 - our own pages
        else:
            with pytest.raises(error):
                exec(code, names)  # noqa: S102 - our own pages
        # As long as a person takes to read: what is drawn or listed next is in by then.
        assert names["_session"].link.flush(60)


@pytest.mark.parametrize(
    "page",
    [*sorted(p for p in DOCS.rglob("*.md") if "_build" not in p.parts)],
    ids=lambda page: page.stem,
)
def test_every_python_block_compiles_and_its_imports_of_ours_exist(page: Path) -> None:
    for block in _CODE.finditer(page.read_text(encoding="utf-8")):
        code = block["code"].replace("(...", "(None").replace('="..."', '="x"')
        compile(code, str(page), "exec")
        for line in code.splitlines():
            if line.startswith("from xrf_sr_plans"):
                exec(line, {})  # noqa: S102 - an import, of our own pages


def test_every_page_is_in_a_table_of_contents_and_every_link_has_a_target() -> None:
    listed = set(re.findall(r"^(?:tutorials|how-to|explanation|reference)/\S+$", index(), re.M))
    pages = {
        str(page.relative_to(DOCS).with_suffix(""))
        for page in DOCS.rglob("*.md")
        if "_build" not in page.parts and page.name != "index.md" and "decisions" not in page.parts
    }
    assert pages == listed - {"explanation/decisions/index"}
    readme = DOCS.parent / "README.md"
    for page in [readme, *DOCS.rglob("*.md")]:
        if "_build" in page.parts:
            continue
        for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def index() -> str:
    return (DOCS / "index.md").read_text(encoding="utf-8")


def test_the_generated_parts_name_every_command_setting_and_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    from generated_pages import write_pages

    write_pages(tmp_path)
    sys.modules.pop("generated_pages")
    commands = (tmp_path / "command-line.md").read_text(encoding="utf-8")
    assert all(f"## `xrf-sr {name}`" in commands for name in ("demo", "evaluate", "replay"))
    explained = "How many times finer than the map itself: 2 or 4."
    assert f"| `--factor` | `2` | {explained} |" in commands
    settings = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in settings for name in AnalysisSettings.model_fields)
    cards = (tmp_path / "model-card.md").read_text(encoding="utf-8")
    assert "sha256 of the weights" in cards
    assert "### Smallest size believed" in cards
    assert (tmp_path / "trust-boundary.md").read_text(encoding="utf-8") in cards


def test_trust_tables_show_sizes_rates_and_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import trust_tables

    from xrf_sr_plans.sr.trust_boundary import NEVER, TrustBoundary

    here = {"factor": 4.0, "counts": 20.0, "contrast": 0.8, "probe": 0.6}
    boundary = TrustBoundary(
        model_sha256="ab" * 32,
        significance={},
        false_rate_limit={},
        smallest_steps=[{**here, "believed_steps": 1.5, "seen_steps": NEVER}],
    )
    assert "| 4×, probe 0.6, 0.8 | 1.5 (–) |" in trust_tables.smallest(boundary)
    rate = {"hits": 1, "of": 50, "rate": 0.02, "low": 0.0035, "high": 0.105}
    line: dict[str, Any] = dict.fromkeys(trust_tables.RATES, rate)
    line |= {"method": "bicubic", "factor": 2, "probe": 0.0, "standard": "all"}
    shown = trust_tables.rates([line])
    assert "| of the predicted features, absent | 2.00 (0.35–10.50) |" in shown
    assert "| the same on trusted pixels | – |" in shown
    assert "--write" in trust_tables.peers([])
