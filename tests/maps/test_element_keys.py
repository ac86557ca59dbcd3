"""Data keys are taken for those of an element only where they are named after it."""

from __future__ import annotations

import pytest

from xrf_sr_plans.errors import AssemblyError
from xrf_sr_plans.maps.adapters.element_keys import guessed_channels, is_monitor


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (["xs_fe", "xs_zn", "i0"], {"Fe": ["xs_fe"], "Zn": ["xs_zn"]}),
        (["Det1_Fe", "Det2_Fe", "sclr1_ch4"], {"Fe": ["Det1_Fe", "Det2_Fe"]}),
        (["roi-Fe_K", "roi-Pb_L", "inenc2_val"], {"Fe": ["roi-Fe_K"], "Pb": ["roi-Pb_L"]}),
        (["vortex_SKa", "x", "y"], {"S": ["vortex_SKa"]}),
        (["roi_Fe", "sum_Fe", "roi_Zn"], {"Fe": ["roi_Fe"], "Zn": ["roi_Zn"]}),
    ],
)
def test_keys_that_are_named_after_elements_are_found(
    keys: list[str], found: dict[str, list[str]]
) -> None:
    assert guessed_channels(keys, "run r") == found


@pytest.mark.parametrize("keys", [["i0", "I1", "It"], ["no", "samx", "as_is"], ["fluor"], []])
def test_monitors_motors_and_words_are_no_elements(keys: list[str]) -> None:
    with pytest.raises(AssemblyError, match="run r: no data key is named after an element"):
        guessed_channels(keys, "run r")


def test_an_element_in_two_kinds_of_keys_is_refused() -> None:
    with pytest.raises(AssemblyError, match="Fe may be in roi_Fe, sum_Fe"):
        guessed_channels(["roi_Fe", "sum_Fe"], "run r")


def test_i0_and_i1_are_monitors_and_iodine_is_none() -> None:
    assert all(is_monitor(name) for name in ("I0", "i0", "I1", "It", "us_ic", "sclr1_ch4"))
    assert not any(is_monitor(name) for name in ("I", "Fe", "In", "I_L"))
