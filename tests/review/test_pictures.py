"""Pictures of surveys that read at a glance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from xrf_sr_plans.errors import RefusedError
from xrf_sr_plans.maps.elemental import ElementalMaps, EnhancedMaps
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid
from xrf_sr_plans.maps.region import Region
from xrf_sr_plans.review.annotations import (
    Extent,
    length_in_words,
    number_places,
    scale_bar_um,
)
from xrf_sr_plans.review.picture import draw_into
from xrf_sr_plans.review.view import COLOR_MAPS, SurveyView

EXTENT = Extent(0, 60, 0, 40)


def region(x: float, y: float, width: float = 6, height: float = 5) -> Region:
    return Region(x, x + width, y, y + height, ("Fe",), 1.0, "bright", "tile-1")


def grid(step_um: float, num: int) -> ScanGrid:
    return ScanGrid(
        fast=AxisGrid("m2.samX", step_um / 2, step_um, num),
        slow=AxisGrid("m3.samY", step_um / 2, step_um, num),
    )


def view(**changed: object) -> SurveyView:
    rng = np.random.default_rng(1)
    elements = ["Fe", "Zn"]
    coarse = ElementalMaps.from_arrays(rng.poisson(20, (2, 8, 8)), grid(2, 8), elements)
    fine = rng.random((2, 32, 32)) * 20
    trusted = np.ones_like(fine, dtype=bool)
    trusted[0, :8, :8] = False
    enhanced = EnhancedMaps.from_arrays(
        grid(0.5, 32),
        elements,
        estimate=fine,
        sigma=np.sqrt(fine),
        lower=fine - 2,
        upper=fine + 2,
        baseline=fine + 1,
        trusted=trusted,
        factor=4,
        fallback="",
        model={"name": "test", "sha256": ""},
    )
    whole = SurveyView([coarse], [enhanced], [region(4, 4, 4, 4)], title="a survey")
    return replace(whole, **changed)


def without_model(maps: EnhancedMaps) -> EnhancedMaps:
    dataset = maps.dataset.assign_attrs(fallback="no model")
    dataset["sigma"] = dataset["sigma"] * np.nan
    return EnhancedMaps(dataset, maps.grid)


def test_numbers_are_outside_all_boxes_and_apart_and_lead_to_their_own():
    regions = [region(x, y) for x in (4, 20, 36, 48) for y in (3, 14, 25)]
    places = number_places(regions, EXTENT, 1.2, 1.8)
    assert [place.number for place in places] == list(range(1, 13))
    for place, own in zip(places, regions, strict=True):
        half = 0.6 * len(str(place.number))
        for box in regions:
            apart_x = place.x_um + half <= box.x_low_um or place.x_um - half >= box.x_high_um
            apart_y = place.y_um + 0.9 <= box.y_low_um or place.y_um - 0.9 >= box.y_high_um
            assert apart_x or apart_y
        assert own.x_low_um <= place.anchor_x_um <= own.x_high_um
        assert own.y_low_um <= place.anchor_y_um <= own.y_high_um
        assert EXTENT.x_low_um <= place.x_um <= EXTENT.x_high_um
        assert EXTENT.y_low_um <= place.y_um <= EXTENT.y_high_um
    middles = np.array([(place.x_um, place.y_um) for place in places])
    apart = np.abs(middles[:, None] - middles[None])
    np.fill_diagonal(apart[..., 0], 99)
    assert ((apart[..., 0] >= 1.2) | (apart[..., 1] >= 1.8)).all()


def test_a_region_as_large_as_the_map_still_gets_its_number():
    (place,) = number_places([region(0, 0, 60, 40)], EXTENT, 1.2, 1.8)
    assert np.isfinite([place.x_um, place.y_um]).all()


@pytest.mark.parametrize(
    ("width_um", "words"),
    [(80, "20 µm"), (60, "10 µm"), (1.1, "200 nm"), (25_000, "5 mm"), (0.04, "10 nm")],
)
def test_the_scale_bar_has_a_round_length_in_a_handy_unit(width_um: float, words: str):
    assert length_in_words(scale_bar_um(width_um)) == words


def test_what_nothing_is_known_of_has_no_column():
    whole = view()
    assert [layer.name for layer in whole.layers()] == ["coarse", "baseline", "enhanced", "sigma"]
    plain = view(enhanced=[without_model(whole.enhanced[0])])
    assert [layer.name for layer in plain.layers()] == ["coarse", "enhanced"]
    assert [layer.name for layer in view(enhanced=[]).layers()] == ["coarse"]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def test_axes_have_the_names_of_the_beamline_and_there_is_one_scale_bar():
    figure = Figure()
    draw_into(figure, view(notes=["K: 88 % inside the 90 % interval"]))
    said = texts(figure)
    assert said.count("m2.samX (µm)") == 1
    assert sum("m3.samY (µm)" in text for text in said) == 1
    assert said.count("2 µm") == 1
    assert "a survey\nK: 88 % inside the 90 % interval" in said
    assert sum("6 % not trusted (hatched)" in text for text in said) == 1
    assert sum("all of it trusted" in text for text in said) == 1


def test_what_is_said_above_the_maps_lies_within_the_picture():
    figure = Figure(layout="constrained")
    verdict = "rescan 0cbd9d11: " + "; ".join(
        f"{name}: 88 % inside the 90 % interval, +0.4 dB over bicubic: collect pairs"
        for name in ("Si", "Mg", "K", "Fe", "Ca")
    )
    draw_into(figure, view(notes=[verdict] * 4))
    FigureCanvasAgg(figure).draw()
    assert figure._suptitle is not None
    said = figure._suptitle.get_window_extent()
    assert said.x0 >= 0
    assert said.x1 <= figure.bbox.x1
    assert said.y0 >= max(axis.bbox.y1 for axis in figure.axes)


def test_one_element_is_drawn_alone():
    figure = Figure()
    draw_into(figure, view(), ["Zn"])
    assert not any(text.startswith("Fe") for text in texts(figure))


def test_nothing_to_draw_is_refused():
    with pytest.raises(RefusedError, match="coarse map"):
        draw_into(Figure(), view(coarse=[]))


@pytest.mark.parametrize("name", COLOR_MAPS.values())
def test_color_maps_become_brighter_evenly_for_every_kind_of_eye(name: str):
    from matplotlib import colormaps

    red, green, blue = colormaps[name](np.linspace(0, 1, 64))[:, :3].T
    # Machado, Oliveira and Fernandes (2009): what people without red or green cones see.
    protan = np.array([0.152286, 1.052583, -0.204868]), np.array([0.114503, 0.786281, 0.099216])
    deutan = np.array([0.367322, 0.860646, -0.227968]), np.array([0.280085, 0.672501, 0.047413])
    for matrix in (protan, deutan):
        seen = [row @ np.stack([red, green, blue]) for row in matrix]
        assert (np.diff(0.2126 * seen[0] + 0.7152 * seen[1] + 0.0722 * blue) > -1e-3).all()
