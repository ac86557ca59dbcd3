"""The parser of element queries such as "Fe/Zn > 2" and "50 < Ca and size > 1 um".

A small recursive-descent parser makes the tree of a query (`rois.query`). Nothing is ever
evaluated as code, because queries come from users and through the queue.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from xrf_sr_plans.errors import QueryError
from xrf_sr_plans.rois.query import (
    COMPARISONS,
    Arithmetic,
    Both,
    Compared,
    Either,
    FromMap,
    Node,
    Not,
    Number,
    Photons,
    Present,
    Quantity,
    Query,
    elements_of,
    from_map,
)

_MAX_LENGTH = 1000
_MAX_DEPTH = 32
_KEYWORDS = ("and", "or", "not")
_RESERVED = ("size", "confidence", "noise")
_LENGTHS_UM = {"um": 1.0, "nm": 1e-3, "mm": 1e3}
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")
_TOKEN = re.compile(
    r"\s*(?:\"(?P<quoted>[^\"]+)\""
    r"|(?P<word>[A-Za-z][A-Za-z0-9_]*(?:\.\d+)?)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<sign>>=|<=|>|<|\(|\)|\+|-|\*|/|%))"
)


def parse_query(text: str) -> Query:
    """Read an element query.

    Element names are case-sensitive and may include a line ("Fe", "Pt_L"); any other name stands
    in double quotes. A name alone says that the element is present. Quantities (photons per coarse
    pixel of an element, numbers, sums, differences, products and ratios) are compared with ``>``,
    ``>=``, ``<`` and ``<=``, also in a row (``50 < Ca < 100``). Beside a comparison, ``p95`` is the
    95th percentile of its other side over the map, and ``noise`` the standard deviation of one
    pixel of it. ``not`` binds tighter than ``and``, which binds tighter than ``or``. ``size > 1
    um`` and ``confidence > 0.9``, joined by ``and``, are conditions on the objects that are found
    and on the probability with which a pixel matches.

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
    >>> parse_query("Fe/Zn > 2 and size > 500 nm").min_size_um
    0.5
    """
    if not isinstance(text, str) or not text.strip():
        raise QueryError(f"empty element query {text!r}; example: 'Fe and not Zn'")
    if len(text) > _MAX_LENGTH:
        raise QueryError(f"the query has {len(text)} characters; at most {_MAX_LENGTH} are read")
    return _Parser(text).parse()


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

        query    := either, whose top-level "and" may join conditions
        either   := both ("or" both)*
        both     := term ("and" term)*
        term     := "not" term | compared | "(" either ")"
        compared := sum ((">" | ">=" | "<" | "<=") sum)*      a single name: presence
        sum      := product (("+" | "-") product)*
        product  := factor (("*" | "/") factor)*
        factor   := "-" factor | number | name | "p95" | "noise" | "(" sum ")"
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._next = 0
        self._depth = 0
        self._conditions: dict[str, float] = {}

    def parse(self) -> Query:
        node = self._either(top=True)
        if self._peek.kind != "end":
            raise _unreadable(self._text, self._peek.at, "'and', 'or' or the end")
        if node is None:
            raise _unreadable(self._text, 0, "a statement about an element, besides conditions,")
        query = Query(self._text.strip(), node, **self._conditions)
        if not query.elements:
            raise _unreadable(self._text, 0, "a statement about an element")
        return query

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *texts: str) -> bool:
        token = self._peek
        if token.kind in ("keyword", "sign") and token.text in texts:
            self._next += 1
            return True
        return False

    def _either(self, top: bool = False) -> Node | None:
        node = self._both(top)
        while self._peek.text == "or" and self._peek.kind == "keyword":
            if self._conditions and top:
                raise _unreadable(self._text, self._peek.at, "'and' or the end after a condition")
            self._next += 1
            right = self._both(top=False)
            if node is None or right is None:
                raise _unreadable(self._text, self._peek.at, "a statement about an element")
            node = Either(node, right)
        return node

    def _both(self, top: bool) -> Node | None:
        node = self._condition() if top and self._at_condition else self._term()
        while self._take("and"):
            right = self._condition() if top and self._at_condition else self._term()
            node = right if node is None else node if right is None else Both(node, right)
        return node

    @property
    def _at_condition(self) -> bool:
        token, after = self._peek, self._tokens[min(self._next + 1, len(self._tokens) - 1)]
        named = token.kind == "word" and token.text in ("size", "confidence")
        return named and after.text in COMPARISONS

    def _condition(self) -> None:
        token = self._peek
        self._next += 1
        sign = self._peek.text
        self._next += 1
        number = self._number()
        larger = sign.startswith(">")
        if token.text == "confidence":
            if self._take("%"):
                number /= 100
            if not larger or not 0 < number < 1:
                raise _unreadable(
                    self._text, token.at, "confidence above a number between 0 and 1, or a per cent"
                )
            self._conditions["confidence"] = number
            return
        unit = self._peek
        if unit.kind != "word" or unit.text not in _LENGTHS_UM:
            raise _unreadable(self._text, unit.at, f"one of {', '.join(_LENGTHS_UM)}")
        self._next += 1
        key = "min_size_um" if larger else "max_size_um"
        self._conditions[key] = number * _LENGTHS_UM[unit.text]

    def _term(self) -> Node:
        self._enter()
        try:
            if self._take("not"):
                return Not(self._term())
            return self._group() if self._peek.text == "(" else self._compared()
        finally:
            self._depth -= 1

    def _group(self) -> Node:
        """Read what begins with a parenthesis: statements in it, or the sum of a comparison."""
        here, depth = self._next, self._depth
        try:
            return self._compared()
        except QueryError as error:
            self._next, self._depth = here, depth
            failed = error
        self._next += 1
        node = self._either()
        if not self._take(")"):
            raise _unreadable(self._text, self._peek.at, "')'")
        if node is None:
            raise failed
        return node

    def _compared(self) -> Node:
        here = self._peek.at
        quantities, signs = [self._sum()], []
        while self._peek.kind == "sign" and self._peek.text in COMPARISONS:
            signs.append(self._peek.text)
            self._next += 1
            quantities.append(self._sum())
        if not signs:
            first = quantities[0]
            if isinstance(first, Photons):
                return Present(first.element)
            raise _unreadable(self._text, here, "an element, 'not', '(' or a comparison")
        steps = [
            self._comparison(left, sign, right, here)
            for left, sign, right in zip(quantities, signs, quantities[1:], strict=False)
        ]
        node: Node = steps[0]
        for step in steps[1:]:
            node = Both(node, step)
        return node

    def _comparison(self, left: Quantity, sign: str, right: Quantity, at: int) -> Compared:
        for side, other in ((left, right), (right, left)):
            if from_map(side) and (from_map(other) or not list(elements_of(other))):
                raise _unreadable(
                    self._text, at, "an element to compare a percentile or noise with"
                )
        return Compared(left, sign, right)

    def _sum(self) -> Quantity:
        node = self._product()
        while (sign := self._peek.text) in ("+", "-") and self._peek.kind == "sign":
            self._next += 1
            node = Arithmetic(sign, node, self._product())
        return node

    def _product(self) -> Quantity:
        node = self._factor()
        while (sign := self._peek.text) in ("*", "/") and self._peek.kind == "sign":
            self._next += 1
            node = Arithmetic(sign, node, self._factor())
        return node

    def _factor(self) -> Quantity:
        self._enter()
        try:
            token = self._peek
            if self._take("-"):
                return Arithmetic("-", Number(0.0), self._factor())
            if self._take("("):
                node = self._sum()
                if not self._take(")"):
                    raise _unreadable(self._text, self._peek.at, "')'")
                return node
            if token.kind == "number":
                return Number(self._number())
            if token.kind == "quoted":
                self._next += 1
                return Photons(token.text)
            if token.kind != "word":
                raise _unreadable(self._text, token.at, "an element, number, 'not' or '('")
            return self._name(token)
        finally:
            self._depth -= 1

    def _name(self, token: _Token) -> Quantity:
        self._next += 1
        if percentile := _PERCENTILE.fullmatch(token.text):
            return FromMap("percentile", float(percentile[1]))
        if token.text == "noise":
            return FromMap("noise")
        if token.text in _RESERVED:
            raise _unreadable(
                self._text, token.at, f"'{token.text}' beside a comparison, joined by 'and',"
            )
        return Photons(token.text)

    def _number(self) -> float:
        number = self._peek
        if number.kind != "number" or not math.isfinite(float(number.text)):
            raise _unreadable(self._text, number.at, "a number")
        self._next += 1
        if self._peek.kind in ("word", "quoted") and self._peek.text not in _LENGTHS_UM:
            raise _unreadable(
                self._text, self._peek.at, "no unit (photons per coarse pixel are meant)"
            )
        return float(number.text)

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise QueryError(f"the query is nested deeper than {_MAX_DEPTH} levels")


def _unreadable(text: str, position: int, expected: str) -> QueryError:
    rest = text[position:].strip()
    found = repr(rest[:20]) if rest else "the end"
    where = f"query {text!r}: at character {position + 1}"
    return QueryError(f"{where}, found {found}; {expected} expected")
