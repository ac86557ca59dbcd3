"""A plan call's arguments against the plan's annotations, in words for who typed them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import not_allowed

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
            problems.append(refusal(key, value, error.errors()[0]))
    if problems:
        raise ConfigError(f"{name}: {'; '.join(problems)}")
    return checked


def refusal(name: str, value: object, error: Mapping[str, Any]) -> str:
    """Return the sentence that refuses an argument, from one of pydantic's errors about it.

    A value that is none of a few is refused in the words of `measurement.not_allowed`; the name
    of an item of a list, such as `factors`, is that of the list in the singular.
    """
    item = any(isinstance(place, int) for place in error["loc"])
    if error["type"] == "literal_error":
        name = name.removesuffix("s") if item else name
        return not_allowed(name, error["input"], error["ctx"]["expected"])
    return f"{name} is {value!r:.80}: {error['msg']}"


def _checked(annotation: Any, value: Any) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    return TypeAdapter(annotation, config=_LENIENT).validate_python(value)
