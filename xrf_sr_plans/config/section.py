"""`Section`: a part of the settings, whose numbers are held to their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from xrf_sr_plans.ranges import Range


class Section(BaseModel):
    """A table of the settings file: frozen, and without keys that nobody knows."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    ranges: ClassVar[Mapping[str, Range]] = {}
    """What numbers are allowed, by the name of the field."""

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false in the place of a number; pydantic takes them for 1 and 0."""
        allowed = cls.ranges.get(str(info.field_name))
        if allowed is not None and isinstance(value, bool):
            raise ValueError(f"it must be {allowed}")
        return value

    @field_validator("*")
    @classmethod
    def _is_in_range(cls, value: Any, info: ValidationInfo) -> Any:
        allowed = cls.ranges.get(str(info.field_name))
        if allowed is not None and value is not None and value not in allowed:
            raise ValueError(f"it must be {allowed}")
        return value
