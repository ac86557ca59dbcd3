"""What is done by the thousand: units with a name, and what became of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Keyed(Protocol):
    """A unit of work, which can be sent to another process."""

    @property
    def key(self) -> str:
        """Its name in journals and messages, which no other unit has."""
        ...


Unit = TypeVar("Unit", bound=Keyed)
Report = TypeVar("Report")


@dataclass(frozen=True)
class Job(Generic[Unit, Report]):
    """What is done with each unit. All of it can be sent to another process."""

    name: str
    """One word that a dashboard shows, such as ``replay``."""
    work: Callable[[Unit], Report]
    """Does one unit, and never raises."""
    lost: Callable[[Unit, str], Report]
    """Returns the report of a unit that could not be done, for the reason in words. It is called
    in this process only."""
    needs: tuple[Callable[[], str], ...] = ()
    """Each returns, on a worker of a cluster, the sentence that tells what is missing there, or
    ""."""
