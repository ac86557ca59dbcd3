"""Element queries such as "Fe and not Zn", "Fe or (Ca and K)" and "Fe > 50".

A small recursive-descent parser turns a query into a tree of frozen nodes. Nothing is ever
evaluated as code, because queries come from users and through the queue.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator

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
    """Three-valued logic for each pixel (y, x): known to hold, known not to hold, or unknown.

    A pixel that was not measured is in neither array, so "not Zn" doesn't find it.
    """

    yes: np.ndarray
    """Where a statement is known to hold (bool)."""
    no: np.ndarray
    """Where it is known not to hold (bool)."""


@dataclass(frozen=True)
class Present:
    """The statement that an element is present, as the caller's presence maps define it."""

    element: str

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
        known = np.isfinite(_plane(values, self.element))
        present = _plane(presence, self.element).astype(bool)
        return Truth(known & present, known & ~present)


@dataclass(frozen=True)
class Compared:
    """A comparison of an element's photons per coarse pixel with a number."""

    element: str
    sign: str
    number: float

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
        value = _plane(values, self.element)
        known = np.isfinite(value)
        holds = _COMPARISONS[self.sign](np.where(known, value, 0.0), self.number)
        return Truth(known & holds, known & ~holds)


@dataclass(frozen=True)
class Not:
    """The statement that a term doesn't hold."""

    term: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
        yes, no = self.term.truth(presence, values)
        return Truth(no, yes)


@dataclass(frozen=True)
class Both:
    """The statement that both of two terms hold."""

    left: Node
    right: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
        left, right = (term.truth(presence, values) for term in (self.left, self.right))
        return Truth(left.yes & right.yes, left.no | right.no)


@dataclass(frozen=True)
class Either:
    """The statement that at least one of two terms holds."""

    left: Node
    right: Node

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
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
        """Every element that the query names, in order of first appearance."""
        return tuple(dict.fromkeys(leaf.element for leaf, _ in _leaves(self.root)))

    @property
    def wanted(self) -> tuple[str, ...]:
        """The elements that the query looks *for*; "Fe and not Zn" looks for Fe only."""
        return tuple(
            dict.fromkeys(
                leaf.element
                for leaf, positive in _leaves(self.root)
                if positive != (isinstance(leaf, Compared) and leaf.sign.startswith("<"))
            )
        )

    def mask(self, presence: Planes, values: Planes) -> np.ndarray:
        """Return the pixels for which the query is known to hold, as a bool array (y, x).

        Parameters
        ----------
        presence
            For each element, a bool array (y, x) that says where it is present.
        values
            For each element, an array (y, x) of photons per coarse pixel, with NaN where nothing
            was measured.

        Raises
        ------
        QueryError
            The query names an element that is not among the maps.
        """
        return self.root.truth(presence, values).yes


def parse_query(text: str) -> Query:
    """Read an element query.

    Element names are case-sensitive and may include a line ("Fe", "Pt_L"). ``not`` binds tighter
    than ``and``, which binds tighter than ``or``. Numbers are photons per coarse pixel.

    Parameters
    ----------
    text
        The query.

    Raises
    ------
    QueryError
        The text isn't a query. The message says at which character.

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


def _checked(text: str) -> str:
    """Return a query as it is, if it is one."""
    parse_query(text)
    return text


QueryText = Annotated[str, AfterValidator(_checked)]
"""A text that pydantic validates as an element query."""


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
    """A recursive-descent parser with one method for each rule of the grammar.

    ::

        either  := both ("or" both)*
        both    := term ("and" term)*
        term    := "not" term | "(" either ")" | element
        element := name [(">" | ">=" | "<" | "<=") number]
    """

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
        if number.kind != "number" or not math.isfinite(float(number.text)):
            raise _unreadable(self._text, number.at, "a number of photons")
        self._next += 1
        return Compared(token.text, sign, float(number.text))


def _unreadable(text: str, position: int, expected: str) -> QueryError:
    rest = text[position:].strip()
    found = repr(rest[:20]) if rest else "the end"
    where = f"query {text!r}: at character {position + 1}"
    return QueryError(f"{where}, found {found}; {expected} expected")


def _plane(planes: Planes, element: str) -> np.ndarray:
    if element not in planes:
        raise QueryError(
            f"the query names {element!r}, which isn't measured; measured: {', '.join(planes)}"
        )
    return np.asarray(planes[element])


def _leaves(node: Node, positive: bool = True) -> Iterator[tuple[Present | Compared, bool]]:
    """Yield each statement about an element, and whether the query wants it to hold."""
    if isinstance(node, Not):
        yield from _leaves(node.term, not positive)
    elif isinstance(node, Both | Either):
        yield from _leaves(node.left, positive)
        yield from _leaves(node.right, positive)
    else:
        yield node, positive
