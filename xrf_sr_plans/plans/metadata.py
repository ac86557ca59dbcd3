"""Which of a user's metadata, the parameter `md` of every plan, can be in a start document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from event_model import DocumentNames, sanitize_doc, schema_validators

from xrf_sr_plans import schema
from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.plans.preflight import Problem


def metadata_problems(md: Mapping[str, Any] | None) -> Iterator[Problem]:
    """Yield a problem for each key that can't be in a start document or isn't the user's."""
    if md is None:
        return
    if not isinstance(md, Mapping):
        yield Problem(ConfigError, f"md is {md!r:.80}; it must be a dictionary")
        return
    reserved = sorted(schema.RESERVED_KEYS.intersection(md))
    if reserved:
        names = ", ".join(repr(key) for key in reserved)
        text = f"md has {names}, which the plan writes itself; other keys are the user's own"
        yield Problem(ConfigError, text)
    for key, value in md.items():
        wrong = _metadata_flaw(key, value) if key not in schema.RESERVED_KEYS else ""
        if wrong:
            yield Problem(ConfigError, f"md[{key!r:.80}] can't be in a document: {wrong}")


def _metadata_flaw(key: Any, value: Any) -> str:
    """Return in words what forbids an entry in a start document, or "" where it is allowed."""
    if not isinstance(key, str):
        return "the key must be a string"
    document = {"uid": "", "time": 0.0, key: value}
    try:
        sanitize_doc(document)
        errors = list(schema_validators[DocumentNames.start].iter_errors(document))
    except (TypeError, ValueError, RecursionError) as error:
        return f"{error!s:.200}"
    return f"{errors[0].message:.200}" if errors else ""
