"""Phantoms: samples whose structure is known, in families that XRF microprobes look at.

`phantom(family, seed, ...)` is a pure function of its arguments. Splits are by seed: training
uses seeds below `VALIDATION_SEED`, validation and calibration their own ranges above it. Elements
of one phantom share phases (a mineral, an organelle) through a random composition, so that they
are correlated, anti-correlated or unrelated in turn, and no element can be had from another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from xrf_sr_plans.errors import ConfigError
from xrf_sr_plans.training.shapes import (
    covered,
    crooked_line,
    dome,
    ellipse_distance,
    fractal_field,
    grains,
    line_distance,
    pixel_axes,
    smooth_field,
)

VALIDATION_SEED = 1_000_000
CALIBRATION_SEED = 2_000_000
TEST_SEED = 3_000_000


def composition(rng: np.random.Generator, n_phases: int, n_elements: int) -> np.ndarray:
    """Return how much of each element each phase holds, (phase, element), largest about 1.

    Log-normal amounts, about half of them absent; every element is in one phase at least.
    """
    amount = np.exp(rng.normal(0, 1.0, (n_phases, n_elements)))
    present = rng.random((n_phases, n_elements)) < rng.uniform(0.35, 0.8)
    present[rng.integers(n_phases, size=n_elements), np.arange(n_elements)] = True
    amount = amount * present + rng.uniform(0, 0.03)
    return amount / amount.max(axis=0)


def _paint(canvas: np.ndarray, alpha: np.ndarray, content: np.ndarray, add: bool = False) -> None:
    """Cover (or, in projection, add to) the canvas (element, y, x) where `alpha` is above 0."""
    layer = alpha * content.reshape(-1, 1, 1)
    canvas[:] = canvas + layer if add else canvas * (1 - alpha) + layer


def _cells(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    mix = composition(rng, 6, n_elements)
    canvas = np.zeros((n_elements, size, size)) + mix[5].reshape(-1, 1, 1) * rng.uniform(0, 0.1)
    for _ in range(rng.integers(1, 7)):
        center = tuple(rng.uniform(0.1, 0.9, 2) * size)
        radii = tuple(rng.uniform(0.06, 0.28, 2) * size)
        angle = rng.uniform(0, np.pi)
        rough = smooth_field(rng, size, rng.uniform(4, 14)) * rng.uniform(0.3, 2.5)
        body = covered((ellipse_distance(size, center, radii, angle) + rough) / rng.uniform(1, 4))
        texture = np.clip(1 + 0.2 * smooth_field(rng, size, rng.uniform(1.5, 6)), 0, None)
        _paint(canvas, body * texture, mix[0] * rng.uniform(0.2, 0.6), add=True)
        shift = rng.normal(0, 0.2, 2) * radii
        inner = ellipse_distance(
            size,
            (center[0] + shift[0], center[1] + shift[1]),
            (radii[0] * 0.45, radii[1] * 0.4),
            angle,
        )
        _paint(canvas, covered(inner / rng.uniform(1, 2)) * body, mix[1] * 0.6, add=True)
        for _ in range(rng.integers(2, 25)):
            spot = np.asarray(center) + rng.normal(0, 0.5, 2) * radii
            radius = rng.uniform(0.8, 5.0)
            organelle = dome(
                ellipse_distance(
                    size, (spot[0], spot[1]), (radius, radius * rng.uniform(1, 2)), angle
                ),
                radius,
            )
            _paint(
                canvas, organelle * body, mix[rng.integers(2, 5)] * rng.uniform(0.3, 2), add=True
            )
    return canvas


def _thin_section(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    n_minerals = int(rng.integers(3, 8))
    mix = composition(rng, n_minerals, n_elements)
    n_grains = int(np.exp(rng.uniform(np.log(6), np.log(250))))
    label, second, share = grains(rng, size, n_grains)
    mineral = rng.integers(n_minerals, size=n_grains)
    variation = np.clip(rng.normal(1, 0.08, (n_grains, n_elements)), 0.5, None)
    grain_mix = mix[mineral] * variation
    own, other = (np.moveaxis(grain_mix[index], -1, 0) for index in (label, second))
    canvas = own * share + other * (1 - share)
    zoning = np.stack([fractal_field(rng, size, 3.0) for _ in range(n_elements)])
    zoned = rng.random((n_grains, n_elements)) < 0.3
    canvas *= np.clip(1 + 0.25 * zoning * np.moveaxis(zoned[label], -1, 0), 0.1, None)
    for _ in range(rng.integers(0, 60)):
        radius = np.exp(rng.uniform(np.log(0.7), np.log(6)))
        place = tuple(rng.uniform(0, size, 2))
        inclusion = covered(
            ellipse_distance(size, place, (radius, radius * rng.uniform(1, 3)), rng.uniform(0, 3))
        )
        _paint(canvas, inclusion, mix[rng.integers(n_minerals)] * rng.uniform(0.5, 1.2))
    for _ in range(rng.integers(0, 5)):
        crack = covered(line_distance(size, crooked_line(rng, size)) - rng.uniform(0.2, 1.5))
        canvas *= 1 - crack * rng.uniform(0.5, 1)
    return canvas


def _cathode(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    mix = composition(rng, 4, n_elements)
    canvas = np.zeros((n_elements, size, size)) + mix[3].reshape(-1, 1, 1) * rng.uniform(0.02, 0.3)
    for _ in range(rng.integers(5, 40)):
        radius = rng.uniform(0.02, 0.14) * size
        center = tuple(rng.uniform(0, 1, 2) * size)
        distance = ellipse_distance(size, center, (radius, radius * rng.uniform(0.85, 1.15)), 0.0)
        distance = distance + rng.uniform(0, 1.2) * smooth_field(rng, size, 3.0)
        grainy = np.clip(1 + 0.1 * smooth_field(rng, size, 1.2), 0.3, None)
        _paint(canvas, covered(distance) * grainy, mix[0] * rng.uniform(0.6, 1))
        rim = rng.uniform(0.8, 4.0)
        _paint(canvas, covered(np.abs(distance + rim) - rim / 2), mix[1])
        for _ in range(rng.integers(0, 4)):
            reach = rng.normal(0, 0.6 * radius, (3, 2))
            reach[0] = 0
            crack = covered(line_distance(size, np.asarray(center) + reach) - rng.uniform(0.2, 0.9))
            canvas *= 1 - crack * covered(distance) * 0.8
    return canvas


def _particles(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    n_kinds = int(rng.integers(3, 9))
    mix = composition(rng, n_kinds, n_elements)
    haze = np.exp(0.5 * fractal_field(rng, size, 2.5))
    canvas = haze * (mix[0] * rng.uniform(0, 0.15)).reshape(-1, 1, 1)
    clumps = rng.uniform(0, size, (int(rng.integers(1, 8)), 2))
    spread = rng.uniform(0.05, 0.5) * size
    for _ in range(int(np.exp(rng.uniform(np.log(8), np.log(160))))):
        place = clumps[rng.integers(len(clumps))] + rng.normal(0, spread, 2)
        radius = np.exp(rng.normal(np.log(2.0), 0.7))
        box = _window(size, place, 4 * radius + 3)
        if box is None:
            continue
        y0, y1, x0, x1, half = box
        center = (place[0] - y0, place[1] - x0)
        radii = (radius, radius * rng.uniform(1, 1.8))
        local = dome(ellipse_distance(half, center, radii, rng.uniform(0, 3)), radius)
        local = local[: y1 - y0, : x1 - x0]
        content = mix[rng.integers(n_kinds)] * rng.uniform(0.3, 1.0)
        canvas[:, y0:y1, x0:x1] += local * content.reshape(-1, 1, 1)
    return canvas


def _window(size: int, place: np.ndarray, reach: float) -> tuple[int, int, int, int, int] | None:
    low = np.clip(np.floor(place - reach).astype(int), 0, size)
    high = np.clip(np.ceil(place + reach).astype(int), 0, size)
    if (high - low).min() < 2:
        return None
    y0, x0, y1, x1 = int(low[0]), int(low[1]), int(high[0]), int(high[1])
    return y0, y1, x0, x1, max(y1 - y0, x1 - x0)


def _gratings(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    mix = composition(rng, 4, n_elements)
    canvas = np.zeros((n_elements, size, size)) + mix[0].reshape(-1, 1, 1) * rng.uniform(0, 0.4)
    y, x = pixel_axes(size)
    for phase in range(1, int(rng.integers(2, 5))):
        place = rng.uniform(0.2, 0.8, 2) * size
        if rng.random() < 0.35:
            spokes = int(rng.integers(8, 40))
            radius = np.hypot(y - place[0], x - place[1]) + 1e-6
            wave = np.sin(spokes * np.arctan2(y - place[0], x - place[1]))
            width = radius * 2 / spokes
            pattern = covered(-wave * width / 2) * covered(radius - rng.uniform(0.2, 0.5) * size)
        else:
            angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(2.5), np.log(40)))
            chirp = rng.uniform(-0.5, 0.5) / size
            along = np.cos(angle) * y + np.sin(angle) * x
            wave = np.sin(2 * np.pi * along * (1 + chirp * along) / period)
            pattern = covered(-wave * period / (2 * np.pi) * 2)
            where = ellipse_distance(
                size, tuple(place), tuple(rng.uniform(0.15, 0.7, 2) * size), angle
            )
            pattern = pattern * covered(where)
        _paint(canvas, pattern, mix[phase], add=bool(rng.random() < 0.5))
    return canvas


def _tissue(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    n_phases = 4
    mix = composition(rng, n_phases, n_elements)
    canvas = np.zeros((n_elements, size, size))
    for phase in range(n_phases):
        field = fractal_field(rng, size, rng.uniform(2.0, 3.6))
        if rng.random() < 0.5:
            width = np.exp(rng.uniform(np.log(0.05), np.log(0.6)))
            density = 1 / (1 + np.exp(-(field - rng.normal(0, 0.7)) / width))
        else:
            density = np.exp(rng.uniform(0.3, 1.0) * field)
        _paint(canvas, density, mix[phase], add=True)
    for _ in range(rng.integers(0, 8)):
        fibre = covered((line_distance(size, crooked_line(rng, size)) - rng.uniform(0.5, 4)) / 1.5)
        _paint(canvas, fibre, mix[rng.integers(n_phases)] * rng.uniform(0.3, 1.5), add=True)
    return canvas


FAMILIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    "cells": _cells,
    "thin_section": _thin_section,
    "cathode": _cathode,
    "particles": _particles,
    "gratings": _gratings,
    "tissue": _tissue,
}


def _speckle(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    """Grain as fine as a pixel or two on patches of different density, as in many nano-maps."""
    mix = composition(rng, 4, n_elements)
    canvas = np.zeros((n_elements, size, size)) + mix[3].reshape(-1, 1, 1) * rng.uniform(0, 0.2)
    for phase in range(3):
        patch = 1 / (1 + np.exp(-3 * (fractal_field(rng, size, 3.2) - rng.normal(0, 0.8))))
        grain = smooth_field(rng, size, np.exp(rng.uniform(np.log(0.4), np.log(3.0))))
        _paint(canvas, patch * np.exp(rng.uniform(0.1, 0.9) * grain), mix[phase], add=True)
    # Counting noise and instrument leave some grain that no element shares with another.
    for plane in canvas:
        own = smooth_field(rng, size, np.exp(rng.uniform(np.log(0.4), np.log(1.2))))
        plane *= np.clip(1 + rng.uniform(0, 0.35) * own, 0, None)
    return canvas


def _gradients(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    """Smooth concentration profiles, with a few soft bodies on them."""
    mix = composition(rng, 5, n_elements)
    y, x = pixel_axes(size)
    canvas = np.zeros((n_elements, size, size))
    for phase in range(3):
        angle = rng.uniform(0, 2 * np.pi)
        along = (np.cos(angle) * y + np.sin(angle) * x) / size
        wave = smooth_field(rng, size, size * rng.uniform(0.08, 0.35))
        _paint(canvas, np.exp(rng.uniform(0.2, 2) * along + 0.6 * wave), mix[phase], add=True)
    for _ in range(rng.integers(0, 25)):
        radius = np.exp(rng.uniform(np.log(2), np.log(0.2 * size)))
        body = ellipse_distance(
            size,
            tuple(rng.uniform(0, size, 2)),
            (radius, radius * rng.uniform(0.5, 1)),
            rng.uniform(0, np.pi),
        )
        soft = covered(body / (radius * rng.uniform(0.1, 1.5)))
        _paint(canvas, soft, mix[rng.integers(3, 5)] * rng.uniform(0.2, 2), add=True)
    return canvas


def _texture(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    """Dense fine structure everywhere: fibres, pores and bands of a few pixels."""
    mix = composition(rng, 4, n_elements)
    canvas = np.zeros((n_elements, size, size)) + mix[0].reshape(-1, 1, 1) * rng.uniform(0, 0.3)
    for phase in range(1, 4):
        long, short = np.exp(rng.uniform(np.log(2), np.log(15))), np.exp(rng.uniform(-0.7, 1.1))
        field = ndimage.gaussian_filter(
            rng.standard_normal((size, size)), (long, short), mode="wrap"
        )
        turned = ndimage.rotate(
            np.tile(field, (2, 2)), rng.uniform(0, 180), reshape=False, order=1, mode="wrap"
        )[size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        turned = (turned - turned.mean()) / (turned.std() + 1e-12)
        width = np.exp(rng.uniform(np.log(0.08), np.log(1.0)))
        density = 1 / (1 + np.exp(-(turned - rng.normal(0.3, 0.7)) / width))
        _paint(canvas, density, mix[phase] * rng.uniform(0.4, 1.2), add=bool(rng.random() < 0.6))
    return canvas


def _mixture(rng: np.random.Generator, size: int, n_elements: int) -> np.ndarray:
    """Two kinds of samples, side by side or on top of each other."""
    kinds = list(ALL_FAMILIES)
    first, second = rng.choice([kind for kind in kinds if kind != "mixture"], 2, replace=False)
    one, other = (ALL_FAMILIES[str(kind)](rng, size, n_elements) for kind in (first, second))
    one, other = (
        maps / np.maximum(np.quantile(maps, 0.999, axis=(1, 2), keepdims=True), 1e-6)
        for maps in (one, other)
    )
    if rng.random() < 0.5:
        return one * rng.uniform(0.3, 1) + other * rng.uniform(0.3, 1)
    where = fractal_field(rng, size, 3.5)
    share = 1 / (1 + np.exp(-where / np.exp(rng.uniform(-3, 0))))
    return one * share + other * (1 - share)


ALL_FAMILIES: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    **FAMILIES,
    "speckle": _speckle,
    "gradients": _gradients,
    "texture": _texture,
    "mixture": _mixture,
}
"""What training paints: `FAMILIES`, on which figures are measured, and what they lack."""


def phantom(family: str, seed: int, *, size: int = 192, n_elements: int = 5) -> np.ndarray:
    """Return a phantom (element, y, x), non-negative, the 99.9 % quantile of each element at 1.

    Parameters
    ----------
    family
        One of `ALL_FAMILIES`.
    seed
        The same seed gives the same phantom on every machine.
    size
        Pixels along each side; features are from under one pixel to the whole field.

    Raises
    ------
    ConfigError
        A family that doesn't exist.
    """
    if family not in ALL_FAMILIES:
        raise ConfigError(f"phantom family {family!r}; one of {sorted(ALL_FAMILIES)} is needed")
    # The numbers of `FAMILIES` stay what they were before there were others.
    number = [*sorted(FAMILIES), *list(ALL_FAMILIES)[len(FAMILIES) :]].index(family)
    rng = np.random.default_rng([seed, number])
    maps = np.clip(ALL_FAMILIES[family](rng, size, n_elements), 0, None)
    if rng.random() < 0.3:
        # Some samples are thicker here than there.
        maps = maps * np.clip(1 + 0.3 * smooth_field(rng, size, size / 6), 0.2, None)
    if rng.random() < 0.3:
        maps = ndimage.gaussian_filter(maps, (0, *[rng.uniform(0.3, 1.5)] * 2))
    top = np.quantile(maps, 0.999, axis=(1, 2), keepdims=True)
    return maps / np.maximum(top, 1e-6)
