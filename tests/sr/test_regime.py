"""Outside of what was calibrated nothing is trusted, and the notes say why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.metrics.standards import grating
from xrf_sr_plans.sr.conformal import Scores, fit
from xrf_sr_plans.sr.intervals import Regime
from xrf_sr_plans.sr.prepare import prepare
from xrf_sr_plans.sr.scale import Scale
from xrf_sr_plans.sr.trust_mask import untrust
from xrf_sr_plans.training.phantoms import phantom


def judged(counts, regime, *, factor=2, probe=0.0):
    """What is trusted of an estimate that is the measured map itself, and the notes."""
    fine = counts.repeat(factor, axis=1).repeat(factor, axis=2)
    names = ("estimate", "baseline", "lower", "upper", "sigma")
    fields = {name: fine.astype(float).copy() for name in names}
    fields["trusted"] = np.ones(fine.shape, dtype=bool)
    elements = [f"E{index}" for index in range(len(counts))]
    measurement = Measurement(factor, "fly", probe)
    notes = untrust(fields, elements, prepare(counts), Scale.of(counts), measurement, regime)
    return fields["trusted"], notes


def cells(number=3, counts=200.0):
    sample = phantom("cells", 1_700_001, size=64, n_elements=number)
    return np.random.default_rng(0).poisson(sample * counts).astype(float)


def test_more_elements_than_calibrated_are_untrusted_and_the_way_out_is_named():
    trusted, notes = judged(cells(4), Regime(most_elements=3, smallest_range=0))
    assert not trusted.any()
    assert len(notes) == 4
    assert "4 elements at once; calibrated up to 3: enhance fewer at a time" in notes[0]
    assert judged(cells(3), Regime(most_elements=3, smallest_range=0))[0].all()


def test_a_rougher_texture_than_calibrated_is_untrusted():
    rng = np.random.default_rng(1)
    maps = np.stack([cells(1)[0], rng.poisson(200 * rng.random((64, 64)))])
    trusted, notes = judged(maps, Regime(largest_roughness=0.5, smallest_range=0))
    assert trusted[0].all()
    assert not trusted[1].any()
    (note,) = notes
    assert note.startswith("E1: untrusted: neighbouring pixels have little in common")


def test_no_contrast_above_the_noise_is_untrusted():
    noise = np.random.default_rng(2).poisson(5.0, (1, 32, 32)).astype(float)
    trusted, notes = judged(noise, Regime(smallest_range=9.0))
    assert not trusted.any()
    assert "nothing above the counting noise" in notes[0]


def test_a_probe_wider_than_calibrated_falls_back_to_bicubic():
    trusted, notes = judged(cells(1), Regime(), probe=2.0)
    assert not trusted.any()
    assert "the probe is 2.00 steps wide" in notes[0]


def test_an_alias_is_untrusted_where_it_is():
    truth = grating(256, 1.5 * 4, 0.8)
    seen = truth.reshape(64, 4, 64, 4).mean(axis=(1, 3))
    counts = np.random.default_rng(3).poisson(200 * seen)[None].astype(float)
    trusted, notes = judged(counts, Regime(regularity=0.4))
    assert trusted.mean() < 0.05
    assert "regular, may be the alias" in notes[0]


def test_a_calibration_knows_the_roughest_map_and_the_number_of_elements():
    group = np.tile(np.arange(20), 500)
    score = np.random.default_rng(4).normal(size=group.size)
    plain = Scores(Measurement(2), group, score)
    regime = fit([replace(plain, roughness=0.31), plain], "0" * 64, "").regime
    assert regime.largest_roughness == pytest.approx(0.31)
    assert (regime.most_elements or 0) >= 24
