"""Rows and maps that keep their grid: shapes, units, places, and what a model can't read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

import xrf_sr_plans  # noqa: E402
from support.models import FOLDED, made_model  # noqa: E402
from xrf_sr_plans.errors import GridError, ModelError  # noqa: E402
from xrf_sr_plans.maps.elemental import ElementalMaps  # noqa: E402
from xrf_sr_plans.maps.grid import AxisGrid, ScanGrid  # noqa: E402
from xrf_sr_plans.measurement import Measurement, Sampling  # noqa: E402
from xrf_sr_plans.physics.smoothing import chosen_widths, smoothed  # noqa: E402
from xrf_sr_plans.sr import tiled_inference  # noqa: E402
from xrf_sr_plans.sr.bicubic import enhance_bicubic  # noqa: E402
from xrf_sr_plans.sr.estimate import SUMMED, run_network  # noqa: E402
from xrf_sr_plans.sr.network import conditions_of  # noqa: E402
from xrf_sr_plans.sr.predict import enhance_maps  # noqa: E402
from xrf_sr_plans.sr.registry import Architecture, load_model  # noqa: E402
from xrf_sr_plans.sr.scale import Scale, per_coarse_pixel  # noqa: E402
from xrf_sr_plans.training.phantoms import phantom  # noqa: E402
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate  # noqa: E402

torch.set_num_threads(1)
NAMES = ["Fe", "Zn"]
READINGS: list[tuple[int, Sampling]] = [
    (1, "fly"),
    (1, "rows"),
    (2, "rows"),
    (4, "rows"),
    (2, "fly"),
    (4, "area"),
]
SEED = 1_500_000


def measured(factor: int, sampling: Sampling, n99: float = 200.0, coarse: int = 24) -> Pair:
    sample = phantom("cells", SEED, size=max(64, coarse * factor), n_elements=2)
    side = coarse * factor
    simulation = Simulation.plain(Measurement(factor, sampling), n99, 2)
    return simulate(sample[:, :side, : side - 2 * factor], simulation, np.random.default_rng(0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folded network whose heads are zero."""
    return str(made_model(tmp_path_factory.mktemp("untrained")))


@pytest.fixture(scope="module")
def stirred(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a folded network whose weights are random."""
    return str(made_model(tmp_path_factory.mktemp("stirred"), stir=0.1))


def enhanced(counts: np.ndarray, factor: int, sampling: Sampling, model: str | None, **more):
    known = {"elements": NAMES, "step_um": 1.0, "device": "cpu"} | more
    return xrf_sr_plans.enhance(counts, factor=factor, sampling=sampling, model=model, **known)


@pytest.mark.parametrize(("factor", "sampling"), READINGS)
def test_an_untrained_network_is_the_smoothed_map_in_photons_per_measured_pixel(
    factor, sampling, model
):
    pair = measured(factor, sampling)
    how = pair.measurement
    made = enhanced(pair.counts, factor, sampling, model)
    rows, columns = pair.counts.shape[1] * factor, pair.counts.shape[2] * how.refinement[1]
    assert made.estimate.shape == (2, rows, columns) == pair.truth.shape
    expected = np.clip(smoothed(pair.counts, how), 0, None)
    # What is off by more than noise is taken back, pixel by pixel.
    off = np.abs(made.estimate.values - expected) / np.sqrt(expected + 1)
    assert np.median(off) < 0.05
    total = made.estimate.values.mean((1, 2))
    np.testing.assert_allclose(total, pair.counts.mean((1, 2)), rtol=0.01)
    assert made.refinement == how.refinement


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_the_baseline_of_rows_and_of_the_same_grid_is_smoothed(factor, model):
    pair = measured(factor, "rows")
    made = enhanced(pair.counts, factor, "rows", model)
    expected = np.clip(smoothed(pair.counts, pair.measurement), 0, None)
    np.testing.assert_allclose(made.baseline.values, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("factor", "sampling"), [(2, "rows"), (4, "rows"), (1, "fly"), (2, "fly")])
@pytest.mark.parametrize("axes", [(1,), (2,), (1, 2)])
def test_a_mirrored_map_gives_a_mirrored_result(factor, sampling, axes, stirred, monkeypatch):
    # Rounding in bfloat16 doesn't commute with mirroring to the bit.
    monkeypatch.setattr(tiled_inference, "has_fast_bf16", lambda device: False)
    counts = measured(factor, sampling).counts
    straight = enhanced(counts, factor, sampling, stirred)
    turned = enhanced(np.flip(counts, axes), factor, sampling, stirred)
    for name in ("estimate", "sigma", "lower", "upper", "baseline"):
        one, other = straight.dataset[name].values, np.flip(turned.dataset[name].values, axes)
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize(("factor", "sampling"), [(2, "rows"), (4, "rows"), (1, "fly"), (4, "fly")])
def test_tiles_of_rows_leave_no_seams(factor, sampling, tmp_path, monkeypatch):
    monkeypatch.setattr(tiled_inference, "has_fast_bf16", lambda device: False)
    small = FOLDED.model_copy(update={"blocks": 1, "sigma_dilations": ()})
    _, _, network = load_model(made_model(tmp_path, small, stir=0.1))
    pair = measured(factor, sampling, coarse=75)
    how = pair.measurement
    scale = Scale.of(per_coarse_pixel(pair.counts, how))
    widths = chosen_widths(pair.counts, how)[None]
    known = conditions_of(scale.low[None], scale.span[None], [how], widths)
    cpu = torch.device("cpu")
    whole = tiled_inference.run_tiled(network, pair.counts, known, factor, cpu, tile=256)
    # An odd size of tiles is made even: blocks of 2 x 2 coarse pixels stay what they are.
    tiled = tiled_inference.run_tiled(network, pair.counts, known, factor, cpu, tile=17)
    assert network.reach < 30
    for one, other in zip(whole, tiled, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_a_doubtful_pixel_of_one_element_has_no_say_in_the_others_on_rows(stirred):
    counts = measured(2, "rows", coarse=40).counts
    counts[0] = np.random.default_rng(3).poisson(40.0, counts[0].shape)
    struck = counts.copy()
    struck[0, 20, 21] = 1500.0
    plain, made = (enhanced(maps, 2, "rows", stirred) for maps in (counts, struck))
    if not any("particle" in note or "hot" in note for note in made.dataset.attrs["notes"]):
        pytest.skip("the pixel counts as a defect")
    before, after = (maps.estimate.values[1, 36:46, 16:26] for maps in (plain, made))
    np.testing.assert_allclose(before, after, rtol=0.05, atol=1.0)


def test_the_network_sees_photons_per_coarse_pixel(model):
    pair = measured(4, "rows")
    _, _, network = load_model(model)
    scale = Scale.of(per_coarse_pixel(pair.counts, pair.measurement))
    stabilised, _ = run_network(pair.counts, scale, pair.measurement, network, "cpu")
    np.testing.assert_allclose(
        (stabilised.astype(float) ** 2 / 4 - 0.375).mean(), pair.truth.mean(), rtol=0.05
    )


@pytest.mark.parametrize("factor", [2, 4])
def test_rows_are_summed_for_a_model_that_reads_squares_and_a_note_says_so(factor):
    pair = measured(factor, "rows")
    made = enhanced(pair.counts, factor, "rows", "set-small")
    assert SUMMED in made.dataset.attrs["notes"]
    assert made.estimate.shape == pair.truth.shape
    squares = enhanced(per_coarse_pixel(pair.counts, pair.measurement), factor, "fly", "set-small")
    for name in ("estimate", "sigma", "lower", "upper"):
        np.testing.assert_allclose(
            made.dataset[name].values * factor, squares.dataset[name].values, rtol=1e-5
        )
    np.testing.assert_array_equal(made.trusted, squares.trusted)
    expected = np.clip(smoothed(pair.counts, pair.measurement), 0, None)
    np.testing.assert_allclose(made.baseline.values, expected, rtol=1e-5, atol=1e-3)


def test_only_the_pixel_that_was_not_measured_is_nan(model):
    counts = measured(2, "rows").counts
    counts[:, 5] = np.nan
    counts[1, 10, 7] = np.nan
    for name in (model, "set-small"):
        made = enhanced(counts, 2, "rows", name)
        missing = np.isnan(made.estimate.values)
        assert missing[:, 10:12].all()
        assert missing[1, 20:22, 7].all()
        assert missing.sum() == 2 * 2 * counts.shape[2] + 2


def test_a_model_of_squares_refuses_the_same_grid_by_name():
    with pytest.raises(ModelError, match=r"'set-small' can't enhance by 1.*'2', '4'"):
        enhanced(measured(1, "fly").counts, 1, "fly", "set-small")


def test_a_network_refuses_what_it_does_not_read():
    pair = measured(2, "rows")
    _, _, network = load_model("set-small")
    scale = Scale.of(per_coarse_pixel(pair.counts, pair.measurement))
    with pytest.raises(ModelError, match="SetNetwork reads maps of factor 2 or 4, not 2 rows"):
        run_network(pair.counts, scale, pair.measurement, network, "cpu")


@pytest.mark.parametrize(("factor", "step"), [(1, 2.0), (2, 1.0), (4, 0.5)])
def test_coordinates_keep_their_places(factor, step, model):
    pair = measured(factor, "rows")
    height, width = pair.counts.shape[1:]
    counts = xr.DataArray(
        pair.counts,
        dims=("element", "y", "x"),
        coords={"y": 100 + 2.0 * np.arange(height), "x": -7 + step * np.arange(width)},
    )
    made = enhanced(counts, factor, "rows", model, step_um=2.0)
    np.testing.assert_allclose(made.estimate.x.values, counts.x.values)
    first = 100 - 1 + 1 / factor
    np.testing.assert_allclose(
        made.estimate.y.values, first + 2 / factor * np.arange(len(made.estimate.y))
    )
    plain = enhanced(pair.counts, factor, "rows", model, step_um=2.0)
    np.testing.assert_allclose(np.diff(plain.estimate.x.values), 2 / factor)
    np.testing.assert_allclose(np.diff(plain.estimate.y.values), 2 / factor)


def rows_map(factor: int, pixels: int, **attributes) -> ElementalMaps:
    counts = measured(factor, "rows").counts
    grid = ScanGrid(
        AxisGrid("x", 0.0, 2.0 / pixels, counts.shape[2]), AxisGrid("y", 0.0, 2.0, counts.shape[1])
    )
    known = {"sampling": "rows", "step_um": 2.0, "dwell_ms": 5.0}
    return ElementalMaps.from_arrays(counts, grid, NAMES, **(known | attributes))


@pytest.mark.parametrize("factor", [2, 4])
def test_maps_say_that_they_are_rows(factor, model):
    maps = rows_map(factor, factor)
    made = enhance_maps(maps, factor, model=model, device="cpu")
    assert made.grid == maps.grid.refined((factor, 1))
    attrs = made.dataset.attrs
    known = (attrs["sampling"], attrs["step_um"], attrs["dwell_ms"])
    assert known == ("rows", 2.0, 5.0)
    assert made.grid.fast.step_um == made.grid.slow.step_um
    fallback = enhance_bicubic(maps, factor, "no torch")
    assert fallback.grid == made.grid
    np.testing.assert_allclose(fallback.estimate.values, made.baseline.values, rtol=1e-5, atol=1e-3)
    assert fallback.model["name"] == "smoothed"


def test_rows_of_another_factor_are_refused(model):
    with pytest.raises(GridError, match=r"2 um apart and their pixels 0\.5 um.*factor 4, not 2"):
        enhance_maps(rows_map(4, 4), 2, model=model)
    with pytest.raises(GridError, match=r"2 um apart and their pixels 0\.5 um.*factor 4, not 2"):
        enhance_bicubic(rows_map(4, 4), 2, "")


def test_rows_that_do_not_fill_their_steps_are_refused(model):
    with pytest.raises(GridError, match="rows of 23 pixels; at factor 2 a multiple of 2"):
        enhanced(np.ones((2, 8, 23)), 2, "rows", model)


@pytest.mark.parametrize("shape", [(1, 4), (1, 8), (5, 4), (2, 36)])
def test_tiny_maps_of_rows_are_possible(shape, model):
    made = enhanced(np.full((2, *shape), 7.0), 4, "rows", model)
    assert made.estimate.shape == (2, 4 * shape[0], shape[1])
    assert np.isfinite(made.estimate.values).all()


def test_a_peer_of_rows_reads_its_rows_only(tmp_path):
    pair = measured(2, "rows")
    scale = Scale.of(per_coarse_pixel(pair.counts, pair.measurement))
    for kind in ("notes", "srcnn"):
        size = Architecture(kind=kind, filters=8, blocks=2, elements=2, scale=2, fast_pixels=2)
        _, _, network = load_model(made_model(tmp_path, size, name=kind))
        made, _ = run_network(pair.counts, scale, pair.measurement, network, "cpu")
        assert made.shape == pair.truth.shape
        squares = per_coarse_pixel(pair.counts, pair.measurement)
        with pytest.raises(ModelError, match="reads maps of factor 2 rows, not 2"):
            run_network(squares, scale, Measurement(2), network, "cpu")
