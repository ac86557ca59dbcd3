"""Element queries: "Fe and not Zn", "Fe or (Ca and K)", "Fe > 50".

A query is read by a small recursive-descent parser into a tree of frozen nodes; nothing is ever
evaluated as code, because queries come from users and through the queue.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from xrf_sr_plans.errors import QueryError

_MAX_LENGTH = 1000
_MAX_DEPTH = 32
_KEYWORDS = ("and", "or", "not")
_COMPARISONS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_TOKEN = re.compile(
    r"\s*(?:(?P<word>[A-Za-z][A-Za-z0-9_]*)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<sign>>=|<=|>|<|\(|\)))"
)

Planes = Mapping[str, np.ndarray]


class Truth(NamedTuple):
    """Three-valued logic per pixel: what is known to hold, and what is known not to.

    A pixel that was not measured is in neither, so "not Zn" doesn't find it.
    """

    yes: np.ndarray
    no: np.ndarray


@dataclass(frozen=True)
class Present:
    """The element stands out (what that means, the caller's presence maps say)."""

    element: str

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where it is known to hold and where not to."""
        known = np.isfinite(_plane(values, self.element))
        present = _plane(presence, self.element).astype(bool)
        return Truth(known & present, known & ~present)


@dataclass(frozen=True)
class Compared:
    """The element's photons per coarse pixel compared with a number."""

    element: str
    sign: str
    number: float

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where it is known to hold and where not to."""
        value = _plane(values, self.element)
        known = np.isfinite(value)
        holds = _COMPARISONS[self.sign](np.where(known, value, 0.0), self.number)
        return Truth(known & holds, known & ~holds)


@dataclass(frozen=True)
class Not:
    """The opposite."""

    term: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where it is known to hold and where not to."""
        yes, no = self.term.truth(presence, values)
        return Truth(no, yes)


@dataclass(frozen=True)
class Both:
    """Both hold."""

    left: Node
    right: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where it is known to hold and where not to."""
        left, right = (term.truth(presence, values) for term in (self.left, self.right))
        return Truth(left.yes & right.yes, left.no | right.no)


@dataclass(frozen=True)
class Either:
    """At least one holds."""

    left: Node
    right: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where it is known to hold and where not to."""
        left, right = (term.truth(presence, values) for term in (self.left, self.right))
        return Truth(left.yes | right.yes, left.no & right.no)


Node = Present | Compared | Not | Both | Either


@dataclass(frozen=True)
class Query:
    """A parsed element query; make one with `parse_query`."""

    text: str
    root: Node

    @property
    def elements(self) -> tuple[str, ...]:
        """Every element named, in order of first appearance."""
        return tuple(dict.fromkeys(leaf.element for leaf, _ in _leaves(self.root)))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The elements looked *for*: "Fe and not Zn" looks for Fe only."""
        return tuple(
            dict.fromkeys(
                leaf.element
                for leaf, positive in _leaves(self.root)
                if positive != (isinstance(leaf, Compared) and leaf.sign.startswith("<"))
            )
        )

    def mask(self, presence: Planes, values: Planes) -> np.ndarray:
        """Return where the query is known to hold (bool, shape of one map).

        Parameters
        ----------
        presence
            Per element, where it stands out (bool arrays).
        values
            Per element, photons per coarse pixel; NaN where nothing was measured.

        Raises
        ------
        QueryError
            An element that is named but not among the maps.
        """
        return self.root.truth(presence, values).yes


def parse_query(text: str) -> Query:
    """Read an element query.

    Element names are case-sensitive and may carry a line ("Fe", "Pt_L"). ``not`` binds tighter
    than ``and``, ``and`` tighter than ``or``; numbers are photons per coarse pixel.

    Raises
    ------
    QueryError
        The text isn't a query; the message shows where.

    Examples
    --------
    >>> parse_query("Fe and not Zn").elements
    ('Fe', 'Zn')
    """
    if not isinstance(text, str) or not text.strip():
        raise QueryError(f"empty element query {text!r}; example: 'Fe and not Zn'")
    if len(text) > _MAX_LENGTH:
        raise QueryError(f"the query has {len(text)} characters; at most {_MAX_LENGTH} are read")
    return Query(text.strip(), _Parser(text).parse())


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def _tokens(text: str) -> Iterator[_Token]:
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise _unreadable(text, position, "an element, number, comparison or parenthesis")
        kind = str(match.lastgroup)
        word = match[kind]
        if kind == "word" and word.lower() in _KEYWORDS:
            kind, word = "keyword", word.lower()
        yield _Token(kind, word, match.start(match.lastgroup or 0))
        position = match.end()
    yield _Token("end", "", end)


class _Parser:
    """Recursive descent: either := both ("or" both)*; both := term ("and" term)*."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._either()
        if self._peek.kind != "end":
            raise _unreadable(self._text, self._peek.at, "'and', 'or' or the end")
        return node

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> bool:
        token = self._peek
        if token.kind in ("keyword", "sign") and token.text in texts:
            self._next += 1
            return True
        return False

    def _either(self) -> Node:
        node = self._both()
        while self._take("or"):
            node = Either(node, self._both())
        return node

    def _both(self) -> Node:
        node = self._term()
        while self._take("and"):
            node = Both(node, self._term())
        return node

    def _term(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise QueryError(f"the query is nested deeper than {_MAX_DEPTH} levels")
        try:
            if self._take("not"):
                return Not(self._term())
            if self._take("("):
                node = self._either()
                if not self._take(")"):
                    raise _unreadable(self._text, self._peek.at, "')'")
                return node
            return self._element()
        finally:
            self._depth -= 1

    def _element(self) -> Node:
        token = self._peek
        if token.kind != "word":
            raise _unreadable(self._text, token.at, "an element, 'not' or '('")
        self._next += 1
        sign = self._peek.text
        if not self._take(*_COMPARISONS):
            return Present(token.text)
        number = self._peek
        if number.kind != "number":
            raise _unreadable(self._text, number.at, "a number of photons")
        self._next += 1
        return Compared(token.text, sign, float(number.text))


def _unreadable(text: str, position: int, expected: str) -> QueryError:
    found = repr(text[position:].strip()[:20]) if text[position:].strip() else "the end"
    return QueryError(f"query {text!r}: at character {position + 1}, found {found}; "
                      f"{expected} expected")  # fmt: skip


def _plane(planes: Planes, element: str) -> np.ndarray:
    if element not in planes:
        raise QueryError(
            f"the query names {element!r}, which isn't measured; measured: {', '.join(planes)}"
        )
    return np.asarray(planes[element])


def _leaves(node: Node, positive: bool = True) -> Iterator[tuple[Present | Compared, bool]]:
    if isinstance(node, Not):
        yield from _leaves(node.term, not positive)
    elif isinstance(node, Both | Either):
        yield from _leaves(node.left, positive)
        yield from _leaves(node.right, positive)
    else:
        yield node, positive
