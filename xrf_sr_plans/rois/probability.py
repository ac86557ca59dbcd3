"""The probability with which each pixel of an enhanced map matches a query."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xrf_sr_plans.rois.evidence import ElementEvidence
from xrf_sr_plans.rois.query import (
    Both,
    Compared,
    Either,
    Node,
    Not,
    Number,
    Photons,
    Present,
    Quantity,
    Query,
    elements_of,
    statements,
    unmeasured,
)

DRAWS = 64
"""Number of equally probable values of each pixel where statements share an element."""

Evidence = Mapping[str, ElementEvidence]


def match_probability(query: Query, evidence: Evidence) -> np.ndarray:
    """Return the probability that each pixel matches a query (y, x), 0 where that is unknown.

    Statements about different elements are independent, as the errors of their maps are.
    Statements that share an element are evaluated together, on `DRAWS` quantiles of its values.

    Parameters
    ----------
    query
        The query; percentiles and noise are those of these maps.
    evidence
        What the maps of the elements say.

    Raises
    ------
    QueryError
        The query names an element that isn't measured.
    """
    settled = query.on_map(
        {
            "percentile": lambda quantity, percent: _percentile(quantity, percent, evidence),
            "noise": lambda quantity, _: _noise(quantity, evidence),
        }
    )
    return _probability(_at_the_leaves(settled.root), evidence)


def presence_probability(evidence: Evidence) -> np.ndarray:
    """Return the probability that any of the elements is present at each pixel (y, x)."""
    absent = [1 - one.presence() for one in evidence.values()]
    return 1 - np.prod(absent, axis=0)


def _at_the_leaves(node: Node, negated: bool = False) -> Node:
    """Return an equal statement in which only statements about elements are negated."""
    if isinstance(node, Not):
        return _at_the_leaves(node.term, not negated)
    if isinstance(node, Both | Either):
        left, right = (_at_the_leaves(term, negated) for term in (node.left, node.right))
        return Both(left, right) if isinstance(node, Both) != negated else Either(left, right)
    return Not(node) if negated else node


def _probability(node: Node, evidence: Evidence) -> np.ndarray:
    if isinstance(node, Not):
        # What isn't known to match isn't known not to match either.
        return np.where(_known(node.term, evidence), 1 - _probability(node.term, evidence), 0.0)
    if isinstance(node, Both | Either) and _independent(node.left, node.right):
        left, right = (_probability(term, evidence) for term in (node.left, node.right))
        return left * right if isinstance(node, Both) else left + right - left * right
    if isinstance(node, Present):
        return _of(evidence, node.element).presence()
    if isinstance(node, Compared):
        element, photons, above = _plain(node)
        if element:
            one = _of(evidence, element)
            over = one.probability_above(photons)
            return over if above else np.where(np.isfinite(one.value), 1 - over, 0.0)
    return _drawn_probability(node, evidence)


def _plain(node: Compared) -> tuple[str, float, bool]:
    """Return element, number and direction of a comparison of an element with a number."""
    above = node.sign.startswith(">")
    if isinstance(node.left, Photons) and isinstance(node.right, Number):
        return node.left.element, node.right.value, above
    if isinstance(node.left, Number) and isinstance(node.right, Photons):
        return node.right.element, node.left.value, not above
    return "", 0.0, above


def _drawn_probability(node: Node, evidence: Evidence) -> np.ndarray:
    """Return the share of draws for which a statement is known to hold (y, x)."""
    names = list(dict.fromkeys(name for leaf in statements(node) for name in elements_of(leaf)))
    quantiles = (np.arange(DRAWS) + 0.5) / DRAWS
    # An order of its own for each element, as the errors of their maps are independent.
    orders = {
        name: np.random.default_rng(number).permutation(DRAWS) for number, name in enumerate(names)
    }
    presences = {
        name: _of(evidence, name).presence()
        for leaf in statements(node)
        if isinstance(leaf, Present)
        for name in (leaf.element,)
    }
    total: np.ndarray | float = 0.0
    for draw in range(DRAWS):
        at = {name: float(quantiles[orders[name][draw]]) for name in names}
        values = {name: _of(evidence, name).drawn(at[name]) for name in names}
        # A pixel is present in a draw high enough, as its probability is that of a high value.
        present = {name: plane > 1 - at[name] for name, plane in presences.items()}
        total = total + node.truth(present, values).yes
    return np.asarray(total, dtype=float) / DRAWS


def _known(node: Node, evidence: Evidence) -> np.ndarray:
    """Return the pixels (y, x) where all elements of a statement were measured."""
    names = {name for leaf in statements(node) for name in elements_of(leaf)}
    return np.all([np.isfinite(_of(evidence, name).value) for name in names], axis=0)


def _independent(left: Node, right: Node) -> bool:
    first, second = (
        {name for leaf in statements(term) for name in elements_of(leaf)} for term in (left, right)
    )
    return not first & second


def _percentile(quantity: Quantity, percent: float, evidence: Evidence) -> float:
    plane = _values(quantity, evidence)
    plane = plane[np.isfinite(plane)]
    return float(np.percentile(plane, percent)) if plane.size else 0.0


def _noise(quantity: Quantity, evidence: Evidence) -> float:
    """Return the standard deviation of a quantity at one pixel, its median over the map."""
    names = list(elements_of(quantity))
    shift = {name: (_of(evidence, name).above + _of(evidence, name).below) / 2 for name in names}
    middle = {name: _of(evidence, name).value for name in names}
    # The errors of the elements are independent, so that their effects add in squares.
    squares = sum(
        (quantity.planes({**middle, name: middle[name] + shift[name]}) - quantity.planes(middle))
        ** 2
        for name in names
    )
    plane = np.sqrt(np.asarray(squares, dtype=float))
    plane = plane[np.isfinite(plane)]
    return float(np.median(plane)) if plane.size else 0.0


def _values(quantity: Quantity, evidence: Evidence) -> np.ndarray:
    return np.asarray(
        quantity.planes({name: _of(evidence, name).value for name in elements_of(quantity)})
    )


def _of(evidence: Evidence, element: str) -> ElementEvidence:
    if element not in evidence:
        raise unmeasured(element, evidence)
    return evidence[element]
