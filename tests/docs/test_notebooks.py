"""The notebooks of the documentation run from their first cell to their last."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.docs_pages import DOCS, REPOSITORY

FIGURES = ("measured finely", "are trusted", "rescanned")
NOTEBOOKS = sorted(file for file in DOCS.rglob("*.ipynb") if "_build" not in file.parts)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    pytest.importorskip("nbclient")
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    yield importlib.import_module("run_notebooks")
    sys.modules.pop("run_notebooks")


def outputs(notebook: Any) -> str:
    """Return all text that a notebook shows."""
    parts = [part for cell in notebook.cells for part in cell.get("outputs", ())]
    return "".join(part.get("text", "") for part in parts)


@pytest.mark.e2e
@pytest.mark.timeout(280)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_to_its_end_and_shows_what_the_page_shows(file: Path, runner: Any) -> None:
    import nbformat

    stored = nbformat.read(file, as_version=4)
    now = runner.executed(file)
    assert outputs(stored), "python scripts/run_notebooks.py"
    for before, after in zip(stored.cells, now.cells, strict=True):
        assert kinds(before) == kinds(after), before.source
    # Which numbers the network finds is to the bit the same on one kind of processor only.
    assert figures(stored) == figures(now) == set(FIGURES)


def kinds(cell: Any) -> list[str]:
    """Return what kinds of output a cell has, besides warnings, which come when they like."""
    shown = [one for one in cell.get("outputs", ()) if one.get("name") != "stderr"]
    return [one.output_type for one in shown]


def figures(notebook: Any) -> set[str]:
    """Return which of the things are told that a notebook should tell of its maps."""
    return {words for words in FIGURES if words in outputs(notebook)}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_cell_of_a_notebook_compiles_and_its_imports_exist(file: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type == "code":
            tree = ast.parse(cell.source)
            imports = [one for one in tree.body if isinstance(one, ast.ImportFrom | ast.Import)]
            for one in imports:
                exec(ast.unparse(one), {})  # noqa: S102 - an import, of our own notebook
