"""The pages of the documentation, their blocks of code, and the marks before them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>[\w-]+)\n(?P<code>.*?)^(?P=fence)$", re.M | re.S)
# A mark is a comment of MyST, or of HTML where GitHub shows the page: it hides only those.
_MARK = re.compile(
    r"^(?:% |<!-- )(?P<mark>tested|output|not run|flown by)"
    r"(?:(?::|(?<=by)) (?P<what>[^\n]+?))?(?: -->)?\n\Z",
    re.M,
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes
    ----------
    mark
        "tested", "output", "not run" or "flown by", or "" where the line before is no mark.
    what
        What the mark goes on to say.
    """

    language: str
    code: str
    mark: str
    what: str


def pages() -> list[Path]:
    """Return the README and every page that is written by hand."""
    return [README, *sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    text, found = text_of(page), []
    for fence in _FENCE.finditer(text):
        before = text[: fence.start()]
        last_line = before[before.rfind("\n", 0, -1) + 1 :]
        mark = _MARK.match(last_line)
        name, what = (mark["mark"], mark["what"] or "") if mark else ("", "")
        found.append(Block(fence["language"], fence["code"], name, what))
    return found


def named(page: Path) -> str:
    """Return a page's path as an id for a test."""
    return str(page.relative_to(REPOSITORY).with_suffix(""))
