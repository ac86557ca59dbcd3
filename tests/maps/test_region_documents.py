"""A region takes the same few forms in all documents and plan arguments, and comes back whole."""

from __future__ import annotations

import json
from typing import Any

import pytest

from xrf_sr_plans.errors import GridError
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.maps.region_documents import (
    REGION_NUMBERS,
    REGION_WORDS,
    region_columns,
    regions_from_arguments,
    regions_from_json,
    regions_to_json,
)

EDGES = {"x_low_um": 0.0, "x_high_um": 2.0, "y_low_um": 1.0, "y_high_um": 4.0}
KNOWN = Region(
    **EDGES, elements=("Fe", "Zn"), score=2.5, reason="bright", source_uid="run",
    predicted_sigma=0.5, trusted_fraction=0.75, model_sha256="ab", stage={"z": 1.0},
)  # fmt: skip
UNKNOWN = Region(**EDGES, elements=(), score=1.0, reason="asked for", source_uid="")


def test_a_reading_of_regions_comes_back_whole() -> None:
    assert regions_from_json(regions_to_json([KNOWN, KNOWN])) == (KNOWN, KNOWN)
    assert regions_from_json("[]") == ()


def test_what_is_unknown_is_left_out_of_json_and_unknown_again_afterwards() -> None:
    text = json.dumps(UNKNOWN.to_dict(), allow_nan=False)
    (back,) = regions_from_json(f"[{text}]")
    assert back.predicted_sigma != back.predicted_sigma
    assert back.to_dict() == UNKNOWN.to_dict()


@pytest.mark.parametrize(
    "text",
    ["", "3", "{}x", "[1]", "[{}]", '["a"]', '[{"x_low_um": 1}]',
     pytest.param("[" * 100_000, id="nested")],
)  # fmt: skip
def test_a_reading_that_is_no_list_of_regions_is_refused(text: str) -> None:
    with pytest.raises(GridError, match="Region"):
        regions_from_json(text)


def test_four_edges_are_enough_in_a_plans_argument() -> None:
    assert regions_from_arguments([EDGES])[0].to_dict() == UNKNOWN.to_dict()
    assert regions_from_arguments([EDGES], "a map")[0].source_uid == "a map"
    assert regions_from_arguments([KNOWN.to_dict()], "another map") == [KNOWN]


@pytest.mark.parametrize(
    "change",
    [
        {"x_low_um": float("nan")},
        {"x_high_um": float("inf")},
        {"x_low_um": "0", "x_high_um": "2"},
        {"score": "high"},
        {"elements": "Fe"},
        {"colour": "red"},
    ],
)
def test_an_argument_with_a_hole_or_an_unknown_field_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(GridError):
        regions_from_arguments([{**EDGES, **change}])


def test_an_argument_that_is_no_dictionary_is_refused() -> None:
    with pytest.raises(GridError, match="3 is no dictionary"):
        regions_from_arguments([3])  # type: ignore[list-item]


def test_columns_are_numbers_and_texts() -> None:
    columns = region_columns(KNOWN)
    assert set(columns) == {*REGION_NUMBERS, *REGION_WORDS}
    assert all(isinstance(columns[name], float) for name in REGION_NUMBERS)
    assert all(isinstance(columns[name], str) for name in REGION_WORDS)
    assert columns["elements"] == "Fe,Zn"
    assert columns["key"] == KNOWN.key
