"""Run the notebooks of the documentation and keep what they show.

``python scripts/run_notebooks.py`` runs each notebook below ``docs`` in a folder of its own and
writes its outputs into it, which the documentation shows. It changes nothing else in them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import nbformat
import typer
from nbclient import NotebookClient

DOCS = Path(__file__).resolve().parents[1] / "docs"
_NOT_KEPT = ("execution", "collapsed", "scrolled")


def notebooks() -> list[Path]:
    """Return the notebooks of the documentation."""
    return sorted(file for file in DOCS.rglob("*.ipynb") if "_build" not in file.parts)


def executed(file: Path, timeout_s: float = 240.0) -> Any:
    """Return a notebook with the outputs of running it now, in a folder of its own.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raises.
    """
    notebook = nbformat.read(file, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=timeout_s, resources=resources).execute()
    for cell in notebook.cells:
        for name in _NOT_KEPT:
            cell.metadata.pop(name, None)
    # The version of Python is that of whoever ran it.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(out: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = DOCS) -> None:
    """Run all notebooks and write them with their outputs."""
    for file in notebooks():
        target = out / file.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(executed(file), target)
        typer.echo(str(target))


if __name__ == "__main__":
    typer.run(main)
