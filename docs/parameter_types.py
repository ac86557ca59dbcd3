"""Types and defaults of parameters, read from signatures into the parameter tables.

Docstrings of this project say what a parameter means and leave its type to the annotation. The
documentation shows both in one table.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import Any

_SECTION = "Parameters"


def in_words(annotation: Any) -> str:
    """Return an annotation as a person would write it, without the modules of its names."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(
            f'"{value}"' if isinstance(value, str) else str(value) for value in arguments
        )
    if origin in (typing.Union, types.UnionType):
        return " | ".join(in_words(argument) for argument in arguments)
    name = getattr(origin or annotation, "__name__", str(annotation))
    inside = ", ".join(in_words(argument) for argument in arguments)
    return f"{name}[{inside}]" if inside else name


def with_types(lines: list[str], signature: inspect.Signature) -> list[str]:
    """Return a numpydoc docstring whose parameters have their types and defaults.

    Parameters
    ----------
    lines
        The lines of the docstring, without indentation. A parameter that has a type already
        keeps it.
    signature
        Of the function or class that the docstring is about.
    """
    done, inside = [], False
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if following.startswith("---"):
            inside = line.strip() == _SECTION
        elif (
            inside
            and line
            and not line[0].isspace()
            and not line.startswith("---")
            and ":" not in line
        ):
            line = _typed(line, signature)
        done.append(line)
    return done


def _typed(names: str, signature: inspect.Signature) -> str:
    found = [signature.parameters.get(name.strip()) for name in names.split(",")]
    known = [
        one for one in found if one is not None and one.annotation is not inspect.Parameter.empty
    ]
    if len(known) != len(found):
        return names
    kinds = dict.fromkeys(in_words(one.annotation) for one in known)
    defaults = dict.fromkeys(
        repr(one.default) for one in known if one.default is not inspect.Parameter.empty
    )
    text = f"{names} : {', '.join(kinds)}"
    return f"{text}, default {', '.join(defaults)}" if len(defaults) == 1 else text


def add_types(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Handle Sphinx's event ``autodoc-process-docstring``, before numpydoc does."""
    if what not in ("function", "method", "class", "exception"):
        return
    signature = _signature(obj)
    if signature is not None:
        lines[:] = with_types(lines, signature)


def _signature(obj: Any) -> inspect.Signature | None:
    for evaluated in (True, False):
        try:
            return inspect.signature(obj, eval_str=evaluated)
        except NameError:  # a name that is imported for type checkers only
            continue
        except (TypeError, ValueError):
            return None
    return None
