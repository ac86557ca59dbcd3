"""The documentation's own code, typed in page by page in the session of the shipped profile.

The line before a block says what becomes of it. ``% tested`` runs it; ``% tested: SomeError`` says
what it must raise, ``% tested: package`` what it needs. ``% output`` is what the block before
printed. ``% not run: reason`` is only compiled, and another test runs ``% flown by FILE``. Where
GitHub shows a page, the mark is an HTML comment, as in ``<!-- tested -->``.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from support.docs_pages import DOCS, README, REPOSITORY, Block, blocks, named, pages, text_of
from xrf_sr_plans import errors
from xrf_sr_plans.cli import app
from xrf_sr_plans.config import AnalysisSettings
from xrf_sr_plans.devices.sim import make_beamline
from xrf_sr_plans.plans.binding import bind_plans

NOT_CHOSEN = {
    "evaluation/trust_boundary.py",
    "sr/setting.py",
    "sr/stabilise.py",
    "sr/uncertainty.py",
}
"""Names that the decision on names tells why they were not chosen or not kept."""
STARTUP = REPOSITORY / "profile_collection" / "startup"
PAGES = pages()
FOR_USERS = [
    page for page in PAGES if page == README or page.parent.name in ("tutorials", "how-to")
]
TESTED = [page for page in PAGES if any(block.mark == "tested" for block in blocks(page))]


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The names that the shipped profile gives, with its clock set to instant."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XRF_SIM_CLOCK", "instant")
    monkeypatch.setenv("XRF_SR_NICE", "0")
    names: dict[str, Any] = {"__name__": "__main__"}
    for startup in sorted(STARTUP.glob("*.py")):
        exec(compile(startup.read_text(), str(startup), "exec"), names)  # noqa: S102 - our own
    ours = names["xrf_session"]
    try:
        yield names
    finally:
        for session in {id(one): one for one in (ours, names.get("session", ours))}.values():
            session.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", TESTED, ids=named)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_code_of_a_page_does_what_it_says(page, profile, capsys) -> None:
    for block in blocks(page):
        if block.mark == "output":
            shown = capsys.readouterr().out
            for line in block.code.strip().splitlines():
                assert line in shown
        elif block.mark == "tested":
            capsys.readouterr()
            run(block, page, profile)


def run(block: Block, page: Path, names: dict[str, Any]) -> None:
    """Execute a block, and give the analysis as long as a person takes to read on."""
    error = getattr(errors, block.what, None) if block.what else None
    if block.what and error is None:
        pytest.importorskip(block.what)
    code = compile(block.code, str(page), "exec")
    with contextlib.nullcontext() if error is None else pytest.raises(error):
        exec(code, names)  # noqa: S102 - our own pages
    for session in (names["xrf_session"], names.get("session")):
        if session is not None and not session.link._closed:
            assert session.link.flush(60)


@pytest.mark.parametrize("page", FOR_USERS, ids=named)
def test_every_python_block_for_users_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            assert block.mark == "tested" or (
                block.mark in ("not run", "flown by") and block.what
            ), block.code


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_python_block_compiles_and_its_imports_of_ours_exist(page: Path) -> None:
    for block in blocks(page):
        if block.language != "python":
            continue
        code = block.code.replace("(...", "(None").replace('="..."', '="x"')
        compile(code, str(page), "exec")
        for line in code.splitlines():
            if line.startswith("from xrf_sr_plans"):
                exec(line, {})  # noqa: S102 - an import, of our own pages


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_line_names_what_exists(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.M))
    for block in blocks(page):
        if block.language != "bash":
            continue
        for line in block.code.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):
                del words[0]
            if words and Path(words[0]).name == "xrf-sr":
                _, name, *rest = words
                command = commands[name]
                while hasattr(command, "commands"):
                    name, *rest = rest
                    command = command.commands[name]
                known = {option for one in command.params for option in one.opts}
                assert options(rest) <= known, line
            elif words[:1] == ["make"]:
                assert {word for word in words[1:] if "=" not in word} <= targets, line
            for word in words:
                if word.endswith(".py"):
                    source = (REPOSITORY / word).read_text(encoding="utf-8")
                    for option in options(words):
                        spelt = option.lstrip("-").replace("-", "_")
                        assert re.search(rf"\b{spelt}\b", source), line


def options(words: list[str]) -> set[str]:
    return {word.partition("=")[0] for word in words if word.startswith("--")}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_and_module_that_a_page_names_exists(page: Path) -> None:
    ours = REPOSITORY / "xrf_sr_plans"
    packages = {path.parent.name for path in ours.glob("*/__init__.py")} | {"callbacks"}
    for name in re.findall(r"`([\w./-]+)`", text_of(page)):
        if "/" in name and name.endswith((".py", ".md", ".toml", ".sh")):
            places = (REPOSITORY, ours, REPOSITORY / "docs")
            assert name in NOT_CHOSEN or any((place / name).exists() for place in places), name
        elif name.split(".")[0] in packages and "." in name and "/" not in name:
            assert resolved(f"xrf_sr_plans.{name}"), name


def resolved(name: str) -> bool:
    """Return whether a dotted name is a module or something in one."""
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(ImportError):
        return importlib.import_module(name) is not None
    return hasattr(importlib.import_module(module), attribute)


def test_every_page_is_in_a_table_of_contents_and_every_link_has_a_target() -> None:
    listed = set(re.findall(r"^(?:tutorials|how-to|explanation|reference)/\S+$", index(), re.M))
    written = {
        str(page.relative_to(DOCS).with_suffix(""))
        for page in PAGES
        if page != README and page.name != "index.md" and "decisions" not in page.parts
    }
    notebooks = (file for file in DOCS.rglob("*.ipynb") if "_build" not in file.parts)
    written |= {str(file.relative_to(DOCS).with_suffix("")) for file in notebooks}
    assert written == listed - {"explanation/decisions/index"}
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", text_of(page)):
            assert (page.parent / target).exists(), f"{page}: {target}"


def index() -> str:
    return text_of(DOCS / "index.md")


def test_the_layers_of_the_page_are_those_that_imports_are_held_to() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    text = text_of(DOCS / "explanation" / "architecture.md").partition("## Layers")[2]
    shown = re.findall(
        r"^([\w |]+?)  +\S", text.partition("```text\n")[2].partition("```")[0], re.M
    )
    assert shown == layers


def test_the_picture_of_the_tutorial_is_of_its_survey(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    drawn = importlib.import_module("draw_pictures").SURVEY
    sys.modules.pop("draw_pictures")
    tutorial = DOCS / "tutorials" / "first-survey.md"
    (flown,) = [one.code for one in blocks(tutorial) if one.code.startswith("RE(\n")]
    call = ast.parse(flown.strip()).body[0].value.args[0]  # type: ignore[attr-defined]
    typed = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg != "md"}
    assert typed == drawn


def test_every_picture_is_shown_somewhere() -> None:
    texts = "".join(map(text_of, PAGES))
    for picture in (DOCS / "_static").iterdir():
        assert f"_static/{picture.name}" in texts


def test_every_message_on_the_page_on_trouble_is_one_of_the_code() -> None:
    folders = (REPOSITORY / "xrf_sr_plans", REPOSITORY / "callbacks")
    sources = [path.read_text(encoding="utf-8") for one in folders for path in one.rglob("*.py")]
    # Strings that are broken over several lines count as one.
    code = re.sub(r'"\s+f?"', "", "\n".join(sources))
    messages = re.findall(
        r"^### `(.*[^`])`$", text_of(DOCS / "how-to" / "troubleshooting.md"), re.M
    )
    assert len(messages) > 30
    for message in messages:
        pieces = message.replace("'…'", "…").strip("…").split("…")
        pattern = r"[^\n]{0,60}?".join(re.escape(piece) for piece in pieces)
        assert re.search(pattern, code), message


@pytest.fixture
def generators(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules in docs/ that write parts of the reference."""
    monkeypatch.syspath_prepend(str(DOCS))
    pytest.importorskip("numpydoc")
    yield importlib.import_module
    for name in ("generated_pages", "trust_tables", "parameter_types"):
        sys.modules.pop(name, None)


def test_the_generated_parts_name_every_command_setting_and_model(
    tmp_path: Path, generators: Any
) -> None:
    generators("generated_pages").write_pages(tmp_path)
    commands = (tmp_path / "command-line.md").read_text(encoding="utf-8")
    assert all(f"## `xrf-sr {name}`" in commands for name in ("demo", "evaluate", "replay"))
    explained = "How many times finer than the map itself: 1, 2 or 4."
    assert f"| `--factor` | `2` | {explained} |" in commands
    settings = (tmp_path / "settings.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in settings for name in AnalysisSettings.model_fields)
    cards = (tmp_path / "model-card.md").read_text(encoding="utf-8")
    assert "sha256 of the weights" in cards
    assert "### Smallest size believed" in cards
    assert (tmp_path / "trust-boundary.md").read_text(encoding="utf-8") in cards


def test_plans_are_documented_as_they_are_typed(generators: Any) -> None:
    text = generators("generated_pages").plans()
    sections = dict(zip(*[iter(re.split(r"^## `(\w+)`$", text, flags=re.M)[1:])] * 2, strict=True))
    plans = bind_plans(make_beamline())
    assert list(sections) == list(plans)
    for name, plan in plans.items():
        rows = re.findall(r"^\| (`.*?`) \|", sections[name], re.M)
        described = [one for row in rows for one in re.findall(r"`(\w+)`", row)]
        assert sorted(described) == sorted(inspect.signature(plan).parameters)
        assert "beamline" not in described
    assert "| `row_attempts` | int, 1 to 100 | `3` |" in sections["xrf_map"]


def test_a_parameter_has_its_type_and_default_in_the_one_table(generators: Any) -> None:
    def scan(step_um: float, rows: int = 3, *, mode: str | None = None) -> None: ...

    lines = ["Scan.", "", "Parameters", "----------", "step_um", "    Step, in um.", "rows, mode"]
    lines += ["    How.", "", "Returns", "-------", "rows"]
    typed = generators("parameter_types").with_types(lines, inspect.signature(scan, eval_str=True))
    assert typed[4] == "step_um : float"
    assert typed[6] == "rows, mode : int, str | None"
    assert typed[7:] == lines[7:]
    assert 'autodoc_typehints = "none"' in (DOCS / "conf.py").read_text(encoding="utf-8")


def test_trust_tables_show_sizes_rates_and_what_is_missing(generators: Any) -> None:
    trust_tables = generators("trust_tables")

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
