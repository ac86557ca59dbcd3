"""The arguments of a plan call, checked against the plan's annotations and refused in words."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.measurement import not_allowed

_LENIENT = ConfigDict(arbitrary_types_allowed=True)
"""Types that pydantic doesn't know, such as our own classes, are checked by isinstance."""


def checked_arguments(
    name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments by name, converted to their annotated types ("24" becomes 24.0).

    Parameters
    ----------
    name
        Name of the plan, for messages.
    signature
        The plan's signature, with types as annotations. A parameter without annotation, or with
        a string, takes anything.
    args
        The positional arguments.
    kwargs
        The keyword arguments.

    Raises
    ------
    TypeError
        If an argument is missing, or if the plan doesn't have it.
    ConfigError
        If values are of a wrong type. The message lists all of them.
    """
    unknown = [key for key in kwargs if key not in signature.parameters]
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

    A value that is none of a few allowed ones is refused in the words of
    `measurement.not_allowed`. An item of a list, such as `factors`, has the list's name in the
    singular.

    Parameters
    ----------
    name
        Name of the argument.
    value
        The whole argument.
    error
        One of `pydantic.ValidationError.errors()`.
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
