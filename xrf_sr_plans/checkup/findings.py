"""What a check of the settings found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "fails"]
"""Whether something is as it should be, is worth a look, or will not work."""


@dataclass(frozen=True)
class Finding:
    """One sentence about one part of the settings.

    Attributes
    ----------
    part
        The setting or the device that it is about.
    state
        Whether that is as it should be.
    text
        What was found.
    """

    part: str
    state: State
    text: str


@dataclass(frozen=True)
class CheckReport:
    """All that a check found; printed, one line each.

    Attributes
    ----------
    findings
        In the order of the settings.
    """

    findings: tuple[Finding, ...]

    @property
    def fails(self) -> list[Finding]:
        """What will not work."""
        return [one for one in self.findings if one.state == "fails"]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __str__(self) -> str:
        """Return a line for each finding."""
        width = max((len(one.part) for one in self.findings), default=0)
        return "\n".join(
            f"{one.state:5}  {one.part:{width}}  {one.text}".rstrip() for one in self.findings
        )
