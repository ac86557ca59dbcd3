"""`Tally`: which documents of a run have come, and which are missing by their numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from typing import Any, TypeGuard

import numpy as np

_MOST_SHOWN = 10
"""Number of gaps that are listed."""
_MOST_NUMBERS = 1_000_000
"""Numbers of one stream from which on they are not followed any more."""


class Tally:
    """The documents of one run: their uids, and the sequence numbers of each stream.

    A stream may have events, files that stand for them (``stream_datum``), or both. Each of these
    has to be without a gap, and together they have to reach the number that the stop document
    gives. bluesky uses a number again after a pause, for another event with another uid.
    """

    def __init__(self) -> None:
        self._uids: set[str] = set()
        self._stream_of: dict[str, str] = {}
        # Stream -> "" for events, or the uid of a stream_resource -> sequence numbers.
        self._numbers: dict[str, dict[str, set[int]]] = {}

    def knows_descriptor(self, uid: str) -> bool:
        """Return whether the descriptor with that uid has come."""
        return uid in self._stream_of

    def add(self, name: str, doc: Mapping[str, Any]) -> bool:
        """Note a document other than start and stop; return whether anything in it is new."""
        uids = _uids(doc)
        is_new = not uids or not self._uids.issuperset(uids)
        self._uids.update(uids)
        if name == "descriptor":
            stream = doc.get("name")
            self._stream_of[doc["uid"]] = stream if isinstance(stream, str) else "primary"
        elif name in ("event", "event_page", "stream_datum"):
            self._note_numbers(name, doc)
        return is_new

    def missing(self, stop: Mapping[str, Any] | None) -> list[str]:
        """Return what is missing, in words; [] where nothing is, as far as one can tell.

        Parameters
        ----------
        stop
            The stop document; None where there is none, so that only gaps can be told.
        """
        announced = _announced(stop)
        streams = [*announced, *(name for name in self._numbers if name not in announced)]
        told = [self._missing_of(stream, announced.get(stream, 0)) for stream in streams]
        return [words for words in told if words]

    def _missing_of(self, stream: str, announced: int) -> str:
        columns = self._numbers.get(stream, {}).values()
        gaps = joined(
            [
                *(gap for column in columns for gap in gaps_in(column, max(column, default=0))),
                *gaps_in(set().union(*columns), announced),
            ]
        )
        if not gaps:
            return ""
        number = sum(last - first + 1 for first, last in gaps)
        of = max(announced, *(max(column, default=0) for column in columns), 0)
        words = f"stream {stream!r} lacks {number} of {of} events: {_in_words(gaps)}"
        without = "" if stream in self._stream_of.values() else ", and no descriptor of it came"
        return words + without

    def _note_numbers(self, name: str, doc: Mapping[str, Any]) -> None:
        stream = self._stream_of.get(doc["descriptor"])
        if stream is None:
            return
        file = str(doc.get("stream_resource", "")) if name == "stream_datum" else ""
        column = self._numbers.setdefault(stream, {}).setdefault(file, set())
        if len(column) < _MOST_NUMBERS:
            column.update(islice(_numbers(name, doc), _MOST_NUMBERS))


def gaps_in(numbers: set[int], upto: int) -> list[tuple[int, int]]:
    """Return the first and the last of each row of whole numbers from 1 to `upto` not there."""
    inside = [0, *sorted(number for number in numbers if 1 <= number <= upto), upto + 1]
    return [(low + 1, high - 1) for low, high in pairwise(inside) if high - low > 1]


def joined(gaps: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return gaps in their order, those that overlap as one."""
    whole: list[tuple[int, int]] = []
    for first, last in sorted(gaps):
        if whole and first <= whole[-1][1] + 1:
            whole[-1] = (whole[-1][0], max(last, whole[-1][1]))
        else:
            whole.append((first, last))
    return whole


def _in_words(gaps: list[tuple[int, int]]) -> str:
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in gaps]
    more = len(shown) - _MOST_SHOWN
    return ", ".join(shown[:_MOST_SHOWN]) + (f" and {more} more gaps" if more > 0 else "")


def _announced(stop: Mapping[str, Any] | None) -> dict[str, int]:
    """Return how many events each stream has by the stop document."""
    numbers = (stop or {}).get("num_events")
    if not isinstance(numbers, Mapping):
        return {}
    return {str(stream): number for stream, number in numbers.items() if _is_number(number)}


def _uids(doc: Mapping[str, Any]) -> list[str]:
    """Return the uids of a document or of what is in a page; [] where they can't be told."""
    uids = _several(doc.get("uid", doc.get("datum_id")))
    return [uid for uid in uids if isinstance(uid, str)]


def _several(values: Any) -> Sequence[Any]:
    """Return the values of a page's column, or the one of a document as the only one."""
    if isinstance(values, np.ndarray):
        values = values.tolist()
    return values if isinstance(values, list | tuple) else [values]


def _numbers(name: str, doc: Mapping[str, Any]) -> Iterable[int]:
    if name == "stream_datum":
        ends = doc.get("seq_nums")
        if not isinstance(ends, Mapping):
            return []
        both = [end for end in (ends.get("start"), ends.get("stop")) if _is_number(end)]
        return range(both[0], both[1]) if len(both) == 2 else []
    return [number for number in _several(doc.get("seq_num")) if _is_number(number)]


def _is_number(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
