"""Element queries such as "Fe and not Zn", as trees of frozen nodes (`rois.query_parser`)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from xrf_sr_plans.errors import QueryError

COMPARISONS: dict[str, Callable[[np.ndarray, np.ndarray | float], np.ndarray]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SIGNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: np.divide(
        left, right, out=np.full(np.broadcast_shapes(left.shape, right.shape), np.inf),
        where=right > 0,
    ),
}  # fmt: skip
Planes = Mapping[str, np.ndarray]
Measure = Mapping[str, Callable[["Quantity", float], float]]
"""For "percentile" and "noise" a function of the other side of a comparison, and of a percentage,
that returns the number that the map gives."""


class Truth(NamedTuple):
    """Three-valued logic for each pixel (y, x): known to hold, known not to hold, or unknown.

    A pixel that was not measured is in neither array, so "not Zn" doesn't find it.
    """

    yes: np.ndarray
    """Where a statement is known to hold (bool)."""
    no: np.ndarray
    """Where it is known not to hold (bool)."""


@dataclass(frozen=True)
class Number:
    """A number of photons per coarse pixel, or a ratio."""

    value: float

    def planes(self, values: Planes) -> np.ndarray:
        """Return the number as an array without axes."""
        return np.asarray(self.value)


@dataclass(frozen=True)
class Photons:
    """The photons per coarse pixel of an element."""

    element: str

    def planes(self, values: Planes) -> np.ndarray:
        """Return the element's values (y, x); NaN where nothing was measured."""
        return _plane(values, self.element)


@dataclass(frozen=True)
class FromMap:
    """A number that the map itself gives for what it is compared with.

    Parameters
    ----------
    kind
        "percentile": a percentile over the map; "noise": the standard deviation of a pixel.
    percent
        The percentage of a percentile.
    """

    kind: Literal["percentile", "noise"]
    percent: float = 0.0

    def planes(self, values: Planes) -> np.ndarray:
        """Fail, as the number has to be put in first (`Query.on_map`)."""
        raise QueryError(f"{self.kind} stands for a number only beside a comparison")


@dataclass(frozen=True)
class Arithmetic:
    """Two quantities with a sign between them; a ratio with 0 below is infinite."""

    sign: str
    left: Quantity
    right: Quantity

    def planes(self, values: Planes) -> np.ndarray:
        """Return the result for each pixel (y, x)."""
        left, right = (np.asarray(side.planes(values), dtype=float) for side in self._sides)
        with np.errstate(invalid="ignore", over="ignore"):
            result = _SIGNS[self.sign](left, right)
        return np.where(np.isnan(left) | np.isnan(right), np.nan, result)

    @property
    def _sides(self) -> tuple[Quantity, Quantity]:
        return self.left, self.right


Quantity = Number | Photons | FromMap | Arithmetic


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
    """A comparison of two quantities."""

    left: Quantity
    sign: str
    right: Quantity

    def truth(self, presence: Planes, values: Planes) -> Truth:
        """Return where the statement is known to hold, and where it is known not to."""
        left, right = (np.asarray(side.planes(values), dtype=float) for side in self.sides)
        known = ~(np.isnan(left) | np.isnan(right))
        holds = COMPARISONS[self.sign](np.where(known, left, 0.0), np.where(known, right, 0.0))
        return Truth(known & holds, known & ~holds)

    @property
    def sides(self) -> tuple[Quantity, Quantity]:
        """The quantities to the left and to the right."""
        return self.left, self.right


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
    """A parsed element query; make one with `rois.query_parser.parse_query`.

    Parameters
    ----------
    text
        The query as typed.
    root
        What has to hold at a pixel.
    min_size_um, max_size_um
        Range of the size of an object, which is the diameter of the circle of its area.
    confidence
        Probability from which on a pixel counts as matching; 0: expected values decide.
    """

    text: str
    root: Node
    min_size_um: float = 0.0
    max_size_um: float = np.inf
    confidence: float = 0.0

    @property
    def elements(self) -> tuple[str, ...]:
        """Every element that the query names, in order of first appearance."""
        return tuple(
            dict.fromkeys(name for leaf, _ in _leaves(self.root) for name in elements_of(leaf))
        )

    @property
    def wanted(self) -> tuple[str, ...]:
        """The elements that the query looks *for*; "Fe and not Zn" looks for Fe only."""
        wanted: dict[str, None] = {}
        for leaf, positive in _leaves(self.root):
            if isinstance(leaf, Present):
                wanted |= {leaf.element: None} if positive else {}
                continue
            # The larger side of a comparison that has to hold, the smaller one of its opposite.
            larger = leaf.left if leaf.sign.startswith(">") == positive else leaf.right
            wanted |= dict.fromkeys(_raising(larger))
        return tuple(wanted)

    def on_map(self, measure: Measure) -> Query:
        """Return the query with numbers in the place of percentiles and noise.

        Parameters
        ----------
        measure
            What the map gives for them.
        """
        root = _on_map(self.root, measure)
        return Query(self.text, root, self.min_size_um, self.max_size_um, self.confidence)

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


def statements(node: Node) -> Iterator[Present | Compared]:
    """Yield each statement about elements."""
    for leaf, _ in _leaves(node):
        yield leaf


def unmeasured(element: str, measured: Iterable[str]) -> QueryError:
    """Return the error for an element that a query names and that isn't among the maps."""
    return QueryError(
        f"the query names {element!r}, which isn't measured; measured: {', '.join(measured)}"
    )


def from_map(quantity: Quantity) -> bool:
    """Return whether a quantity has a percentile or noise in it."""
    if isinstance(quantity, Arithmetic):
        return from_map(quantity.left) or from_map(quantity.right)
    return isinstance(quantity, FromMap)


def elements_of(node: Present | Compared | Quantity) -> Iterator[str]:
    """Yield the elements that a statement or a quantity names, in order."""
    if isinstance(node, Present | Photons):
        yield node.element
    elif isinstance(node, Compared | Arithmetic):
        yield from elements_of(node.left)
        yield from elements_of(node.right)


def _plane(planes: Planes, element: str) -> np.ndarray:
    if element not in planes:
        raise unmeasured(element, planes)
    return np.asarray(planes[element])


def _raising(quantity: Quantity, up: bool = True) -> Iterator[str]:
    """Yield the elements of which more makes a quantity larger (`up`), or smaller."""
    if isinstance(quantity, Photons) and up:
        yield quantity.element
    elif isinstance(quantity, Arithmetic):
        yield from _raising(quantity.left, up)
        yield from _raising(quantity.right, up == (quantity.sign in ("+", "*")))


def _on_map(node: Node, measure: Measure) -> Node:
    if isinstance(node, Not):
        return Not(_on_map(node.term, measure))
    if isinstance(node, Both | Either):
        return type(node)(_on_map(node.left, measure), _on_map(node.right, measure))
    if isinstance(node, Compared):
        left = _with_numbers(node.left, node.right, measure)
        return Compared(left, node.sign, _with_numbers(node.right, node.left, measure))
    return node


def _with_numbers(quantity: Quantity, other: Quantity, measure: Measure) -> Quantity:
    if isinstance(quantity, FromMap):
        return Number(measure[quantity.kind](other, quantity.percent))
    if isinstance(quantity, Arithmetic):
        left, right = (_with_numbers(side, other, measure) for side in quantity._sides)
        return Arithmetic(quantity.sign, left, right)
    return quantity


def _leaves(node: Node, positive: bool = True) -> Iterator[tuple[Present | Compared, bool]]:
    """Yield each statement about elements, and whether the query wants it to hold."""
    if isinstance(node, Not):
        yield from _leaves(node.term, not positive)
    elif isinstance(node, Both | Either):
        yield from _leaves(node.left, positive)
        yield from _leaves(node.right, positive)
    else:
        yield node, positive
