"""A plan call's arguments against the plan's annotations, in words for who typed them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from xrf_sr_plans.errors import ConfigError

_LENIENT = ConfigDict(arbitrary_types_allowed=True)


def checked_arguments(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments by name, as the annotations have them ("24" becomes 24.0).

    Parameters
    ----------
    name
        Of the plan, for messages.
    signature
        With types, not strings, as annotations; parameters without one take anything.

    Raises
    ------
    TypeError
        An argument that is missing, or that the plan doesn't have.
    ConfigError
        Values of a wrong type; the message lists all of them.
    """
    unknown = [one for one in kwargs if one not in signature.parameters]
    if unknown:
        close = difflib.get_close_matches(unknown[0], signature.parameters, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {list(signature.parameters)}"
        raise TypeError(f"{name} has no parameter {unknown[0]!r}; {hint}")
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    problems = []
    checked = {}
    for key, value in given.items():
        annotation = signature.parameters[key].annotation
        try:
            checked[key] = _checked(annotation, value)
        except ValidationError as error:
            problems.append(f"{key} is {value!r:.80}: {error.errors()[0]['msg']}")
    if problems:
        raise ConfigError(f"{name}: {'; '.join(problems)}")
    return checked


def _checked(annotation: Any, value: Any) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    return TypeAdapter(annotation, config=_LENIENT).validate_python(value)
