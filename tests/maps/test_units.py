"""One unit of length in micrometres, whoever spelled it."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest

from xrf_sr_plans.errors import AssemblyError, ConfigError, FileFormatError
from xrf_sr_plans.maps.units import ALLOWED, missing_unit_notes, um_per_unit, unit_name

MICRO_SIGN, GREEK_MU = "\u00b5m", "\u03bcm"


@pytest.mark.parametrize(
    ("units", "um"),
    [
        (["um", MICRO_SIGN, GREEK_MU, "micron", "microns"], 1.0),
        (["micrometer", "micrometers", "micrometre", "micrometres"], 1.0),
        (["mm", "millimeter", "millimeters", "millimetre", "millimetres"], 1e3),
        (["nm", "nanometer", "nanometers", "nanometre", "nanometres"], 1e-3),
        (["m", "meter", "meters", "metre", "metres"], 1e6),
        (["cm", "centimeter", "centimetre"], 1e4),
        (["pm", "picometer", "picometre"], 1e-6),
        (["angstrom", "angstroms", "\u00c5", "\u212b", "A\u030a", "\u00e5ngstr\u00f6m"], 1e-4),
        (["in", "inch", "inches"], 25400.0),
    ],
)
def test_every_spelling_of_a_length_means_the_same(units: list[str], um: float) -> None:
    assert {unit: um_per_unit(unit, "x") for unit in units} == dict.fromkeys(units, um)


@pytest.mark.parametrize(
    ("unit", "um"),
    [("UM", 1), ("Um", 1), ("Microns", 1), ("MICRONS", 1), (GREEK_MU.upper(), 1), ("MM", 1e3),
     ("Millimeter", 1e3), ("MILLIMETRE", 1e3), ("NM", 1e-3), ("CM", 1e4), ("Angstrom", 1e-4)],
)  # fmt: skip
def test_capitals_that_can_mean_only_one_length_are_read(unit: str, um: float) -> None:
    assert um_per_unit(unit, "x") == um


@pytest.mark.parametrize("unit", ["Mm", "Nm", "Pm", "M", "mM", "uM", "nM", "A"])
def test_capitals_that_mean_something_else_are_refused(unit: str) -> None:
    with pytest.raises(ConfigError, match=f"unit is '{unit}'"):
        um_per_unit(unit, "x")


@pytest.mark.parametrize(
    "unit",
    ["px", "pixel", "pixels", "counts", "steps", "step", "deg", "degree", "degrees", "mrad", "eV",
     "s", "V", "turns", "mm/s", "mm^2", "um**1", "2 mm", "1", "a.u.", "%", "none", "km", "point",
     "x" * 10_000],
)  # fmt: skip
def test_what_is_no_length_of_a_stage_is_refused_with_what_is_allowed(unit: str) -> None:
    with pytest.raises(ConfigError) as refused:
        um_per_unit(unit, "axis 'theta'")
    message = str(refused.value)
    assert message.startswith(f"axis 'theta': unit is {unit[:40]!r}; one of pm, ")
    assert all(symbol in message for symbol in ALLOWED.values())
    assert len(message) < 200


@pytest.mark.parametrize(
    ("unit", "um"),
    [(" mm ", 1e3), ("mm\0\0", 1e3), (b"mm", 1e3), (MICRO_SIGN.encode("utf-8"), 1),
     (MICRO_SIGN.encode("latin-1"), 1), (MICRO_SIGN.encode().decode("latin-1"), 1),
     (np.bytes_(b"nm"), 1e-3), (np.str_("cm"), 1e4), (np.array([b"mm"]), 1e3),
     (np.array("mm"), 1e3), (np.array(["mm"], dtype=object), 1e3)],
)  # fmt: skip
def test_bytes_blanks_encodings_and_arrays_of_one_text_are_read(unit: Any, um: float) -> None:
    assert um_per_unit(unit, "x") == um


@pytest.mark.parametrize("unit", [5, ["mm", "um"], np.array(["mm", "um"]), object()])
def test_what_is_no_text_is_refused(unit: Any) -> None:
    with pytest.raises(ConfigError, match="is needed"):
        um_per_unit(unit, "x")


@pytest.mark.parametrize("unit", [None, "", "  ", b"", b" \0", np.array([]), h5py.Empty("S1")])
def test_a_missing_unit_counts_as_what_the_caller_says_or_is_refused(unit: Any) -> None:
    assert unit_name(unit) == ""
    assert um_per_unit(unit, "x") == 1.0
    with pytest.raises(
        AssemblyError, match=r"^x: the unit is missing; one of .* is needed; or give um_per_unit$"
    ):
        um_per_unit(
            unit, "x", missing_um=None, error=AssemblyError, otherwise="or give um_per_unit"
        )
    assert missing_unit_notes([unit, "mm", unit]) == ["axes without unit: taken as um"]


def test_axes_with_units_need_no_note() -> None:
    assert missing_unit_notes(["mm", b"um"]) == []
    assert missing_unit_notes([]) == []


def test_the_error_is_of_the_class_that_the_caller_asks_for() -> None:
    with pytest.raises(FileFormatError, match=r"a\.nxs: axis 'x': unit is 'px'"):
        um_per_unit("px", "a.nxs: axis 'x'", error=FileFormatError)
