"""The arguments of a plan call, checked against the plan's annotations and refused in words."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from pydantic import ConfigDict, InstanceOf, TypeAdapter, ValidationError

from xrf_sr_plans.errors import ArgumentsError, ConfigError
from xrf_sr_plans.measurement import not_allowed
from xrf_sr_plans.plans.parameter_ranges import PARAMETER_RANGES

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
    ArgumentsError
        If an argument is missing, or if the plan doesn't have it.
    ConfigError
        If values are of a wrong type. The message lists all of them.
    """
    unknown = [key for key in kwargs if key not in signature.parameters]
    if unknown:
        close = difflib.get_close_matches(unknown[0], signature.parameters, 1, 0.4)
        hint = f"did you mean {close[0]!r}?" if close else f"it has {list(signature.parameters)}"
        raise ArgumentsError(f"{name} has no parameter {unknown[0]!r}; {hint}")
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        raise ArgumentsError(f"{name}: {error}") from None
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


def converted(values: Mapping[str, Any], types: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values converted to their types, where they are not one of a few that are allowed.

    Values of a `Literal` type are left as they are, because `choice_flaws` tells what is wrong
    with them together with all else.

    Raises
    ------
    ConfigError
        If values are of a wrong type. The message lists all of them.
    """
    result = dict(values)
    problems = []
    for name, value in values.items():
        try:
            result[name] = _checked(types[name], value)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] != "literal_error":
                problems.append(refusal(name, value, first))
    if problems:
        raise ConfigError("; ".join(problems))
    return result


def choice_flaws(values: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each value that is none of the few which its `Literal` type allows."""
    for name, value in values.items():
        try:
            _checked(types[name], value)
        except ValidationError as error:
            yield refusal(name, value, error.errors()[0])


def refusal(name: str, value: object, error: Mapping[str, Any]) -> str:
    """Return the sentence that refuses an argument, from one of pydantic's errors about it.

    A value that is none of a few allowed ones is refused in the words of
    `measurement.not_allowed`, and what is no number in those of its `Range`. An item of a list,
    such as `factors`, has the list's name in the singular.

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
    allowed = PARAMETER_RANGES.get(name)
    out_of_range = allowed.flaw(name, value) if allowed else ""
    return out_of_range or f"{name} is {value!r:.80}: {error['msg']}"


def _checked(annotation: Any, value: Any) -> Any:
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    return _adapter(annotation).validate_python(value)


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    if dataclasses.is_dataclass(annotation):
        return TypeAdapter(InstanceOf[annotation])  # type: ignore[valid-type]
    return TypeAdapter(annotation, config=_LENIENT)
