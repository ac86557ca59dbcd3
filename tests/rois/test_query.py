from __future__ import annotations

import ast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xrf_sr_plans.errors import QueryError
from xrf_sr_plans.rois.query import elements_of
from xrf_sr_plans.rois.query_parser import parse_query

FE = np.array([True, True, False, False])
ZN = np.array([True, False, True, False])
PRESENCE = {"Fe": FE, "Zn": ZN}
VALUES = {"Fe": np.array([90.0, 60, 5, 1]), "Zn": np.array([50.0, 0, 50, 0])}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fe", FE),
        ("  Fe  ", FE),
        ("not Fe", ~FE),
        ("not not Fe", FE),
        ("Fe and not Zn", FE & ~ZN),
        ("Fe AND NOT Zn", FE & ~ZN),
        ("Fe or Zn", FE | ZN),
        ("not Fe and Zn", ~FE & ZN),
        ("not (Fe and Zn)", ~(FE & ZN)),
        ("Fe or Zn and not Fe", FE | (ZN & ~FE)),
        ("(Fe or Zn) and not Fe", (FE | ZN) & ~FE),
        ("Fe > 50", [True, True, False, False]),
        ("Fe>=60 and Zn<1", [False, True, False, False]),
        ("Fe <= 5e0", [False, False, True, True]),
        ("Fe > .5", [True, True, True, True]),
        ("Fe > -1", [True, True, True, True]),
        ("50 < Fe", [True, True, False, False]),
        ("5 <= Fe < 90", [False, True, True, False]),
        ("Fe > Zn", [True, True, False, True]),
        ("Fe/Zn > 2", [False, True, False, True]),
        ("(Fe + Zn) / 2 > 50", [True, False, False, False]),
        ("Fe - Zn > 30 or (Zn > 10 and not Fe)", [True, True, True, False]),
        ("2 * Fe > 3 * Zn", [True, True, False, True]),
        ("(Fe) and (((Zn)))", FE & ZN),
        ("Fe and size > 1 um", FE),
        ("confidence > 90 % and Fe", FE),
    ],
)
def test_a_query_means_what_it_says(text: str, expected: np.ndarray) -> None:
    assert parse_query(text).mask(PRESENCE, VALUES).tolist() == list(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("and", "found 'and'"),
        ("Fe and", "found the end"),
        ("Fe Zn", "character 4"),
        ("(Fe", r"'\)' expected"),
        ("Fe)", "the end expected"),
        ("Fe >", "found the end; an element, number"),
        ("Fe + 3", "a comparison"),
        ("3 > 2", "a statement about an element"),
        ("Fe > 3 ug", "no unit"),
        ("Fe > p95 * noise and", "found the end"),
        ("p95 < 3", "an element to compare a percentile"),
        ("p95 < noise", "an element to compare a percentile"),
        ("size > 1 um", "a statement about an element"),
        ("Fe or size > 1 um", "beside a comparison, joined by 'and'"),
        ("size > 1 um and Fe or Zn", "after a condition"),
        ("Fe and size > 1", "one of um, nm, mm"),
        ("Fe and confidence > 3", "between 0 and 1"),
        ("Fe and confidence < 0.9", "between 0 and 1"),
        ('Fe > "Ca', "found"),
        ("Fe & Zn", "found '& Zn'"),
        ("__import__('os')", "found"),
        ("Fe == 3", "found '== 3'"),
        ("(" * 200 + "Fe" + ")" * 200, "nested deeper"),
        ("not " * 200 + "Fe", "nested deeper"),
        ("Fe or " * 1000 + "Fe", "characters"),
    ],
)
def test_what_is_no_query_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse_query(text)


def test_symbols_are_case_sensitive_and_a_missing_element_is_named() -> None:
    with pytest.raises(QueryError, match=r"'fe'.*measured: Fe, Zn"):
        parse_query("fe").mask(PRESENCE, VALUES)


def test_elements_and_what_is_looked_for() -> None:
    query = parse_query("Zn and not (Ca or not Fe) or K < 5 and Zn > 3")
    assert query.elements == ("Zn", "Ca", "Fe", "K")
    assert query.wanted == ("Zn", "Fe")


def test_a_pixel_that_was_not_measured_is_found_by_neither_a_query_nor_its_opposite() -> None:
    values = {**VALUES, "Zn": np.array([np.nan, 0, 50, 0])}
    assert not parse_query("Zn").mask(PRESENCE, values)[0]
    assert not parse_query("not Zn").mask(PRESENCE, values)[0]
    assert not parse_query("not (Zn > 10)").mask(PRESENCE, values)[0]
    assert parse_query("Fe or Zn").mask(PRESENCE, values)[0]


ELEMENTS = ("Fe", "Zn", "Ca")
queries = st.recursive(
    st.sampled_from(ELEMENTS),
    lambda inner: st.one_of(
        inner.map("not {}".format),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(" ".join),
    ),
    max_leaves=8,
)


def _python_truth(node: ast.AST, values: dict[str, bool]) -> bool:
    if isinstance(node, ast.BoolOp):
        combine = all if isinstance(node.op, ast.And) else any
        return combine(_python_truth(term, values) for term in node.values)
    if isinstance(node, ast.UnaryOp):
        return not _python_truth(node.operand, values)
    assert isinstance(node, ast.Name)
    return values[node.id]


@given(text=queries, truths=st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_precedence_is_that_of_python(text: str, truths: tuple[bool, bool, bool]) -> None:
    values = dict(zip(ELEMENTS, truths, strict=True))
    presence = {name: np.array([value]) for name, value in values.items()}
    measured = {name: np.array([1.0]) for name in ELEMENTS}
    found = bool(parse_query(text).mask(presence, measured)[0])
    assert found == _python_truth(ast.parse(text, mode="eval").body, values)


@given(text=st.text(alphabet="FeZn andort()<>=.5e+", max_size=40))
def test_any_text_is_either_a_query_or_a_query_error(text: str) -> None:
    try:
        query = parse_query(text)
    except QueryError:
        return
    assert query.elements


def test_conditions_are_on_what_is_found() -> None:
    query = parse_query('"Ca K" > 3 and size > 500 nm and size < 4 um and confidence > 90%')
    assert query.elements == ("Ca K",)
    assert (query.min_size_um, query.max_size_um) == (0.5, 4.0)
    assert query.confidence == pytest.approx(0.9)


def test_percentiles_and_noise_are_numbers_of_the_map() -> None:
    query = parse_query("Fe/Zn > p95 and Fe > 3*noise + 2")
    asked = []

    def measure(quantity, percent):
        asked.append((tuple(elements_of(quantity)), percent))
        return 7.0

    settled = query.on_map({"percentile": measure, "noise": measure})
    assert asked == [(("Fe", "Zn"), 95.0), (("Fe",), 0.0)]
    values = {"Fe": np.array([24.0, 10.0]), "Zn": np.array([3.0, 9.0])}
    assert settled.mask({}, values).tolist() == [True, False]
    assert query.elements == (*query.wanted, "Zn") == ("Fe", "Zn")
