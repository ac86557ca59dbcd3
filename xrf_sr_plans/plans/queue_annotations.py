"""What the queue server checks when an item is submitted, besides the types of the parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES

_MOST_SHOWN = 1e12
"""A higher bound is left to the plan: forms write numbers out, digit by digit."""
_QUERY = (
    "typing.Optional[__import__('xrf_sr_plans.rois.query_parser').rois.query_parser.QueryText"
    " if __import__('importlib.util').util.find_spec('xrf_sr_plans') else str]"
)
"""The type of an element query, as the manager evaluates it.

Its names are those of `typing` only, so the type has to import what checks the grammar. A client
that validates items where this package isn't installed sees a plain text.
"""


def checked_at_submission(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Return a bound plan that tells the queue server which values its parameters take.

    The ranges of numbers are `PARAMETER_RANGES`, and a query must be one. NaN is in no range, but
    the manager lets it pass, and the plan refuses it. Where bluesky-queueserver is not installed,
    the plan is returned as it is.
    """
    try:
        from bluesky_queueserver import parameter_annotation_decorator
    except ImportError:
        return plan
    parameters: dict[str, dict[str, Any]] = {}
    for name in inspect.signature(plan).parameters:
        allowed = PARAMETER_RANGES.get(name)
        if allowed is not None:
            bounds = {"min": allowed.low, "max": allowed.high}
            parameters[name] = {key: end for key, end in bounds.items() if end <= _MOST_SHOWN}
    if "find" in inspect.signature(plan).parameters:
        parameters["find"] = {"annotation": _QUERY}
    return parameter_annotation_decorator({"parameters": parameters})(plan)
