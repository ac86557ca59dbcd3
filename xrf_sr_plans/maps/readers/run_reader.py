"""`RunReader`: one kind of run, how its documents are recognised, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Document = tuple[str, Mapping[str, Any]]
"""The name of a document ("start", "event", ...) and the document itself."""


@dataclass(frozen=True)
class RunReader:
    """One kind of run.

    Parameters
    ----------
    name
        How a user calls it (``--reader``) and how messages name it.
    what
        The kind of run in a few words, for messages and help.
    matches
        Whether a run is of this kind, by its start document and its descriptors. It is asked of
        every run, so it opens nothing.
    adapt
        Yields the run as row documents, which the analysis reads, from its documents in order and
        keywords that the reader itself names. Raises AssemblyError where it can't.
    """

    name: str
    what: str
    matches: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]]], bool]
    adapt: Callable[..., Iterator[Document]]

    def __call__(self, documents: Iterable[Document], **known: Any) -> Iterator[Document]:
        """Yield the run as row documents; see `adapt`."""
        return self.adapt(documents, **known)
