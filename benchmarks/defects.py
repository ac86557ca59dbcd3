"""How often defects are seen in clean maps, how often real ones are found, and what they cost.

Clean maps: phantoms of all families, measured at 2x and 4x from 1 to 10 000 photons and without
noise, with probes of several widths and the ripples and shifts of a real beamline. Found: defects
put into such maps. Cost: coverage of the *other* elements' 90 % intervals within two coarse pixels
of a hot pixel of 10 000 photons, which is found, and of one that is 3 or 10 times as bright as the
brightest of its map, which is kept because it may be a particle. Clean maps with such pixels are
counted too. No phantom is one of the test split.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from xrf_sr_plans.maps.defects import find_defects
from xrf_sr_plans.measurement import SAMPLINGS, Measurement
from xrf_sr_plans.training.phantoms import FAMILIES, VALIDATION_SEED, phantom
from xrf_sr_plans.training.simulated_pairs import Pair, Simulation, simulate

NAMES = ["Fe", "Zn", "Ca", "K"]


def phantoms(first: int, number: int, size: int = 192, n_elements: int = 4) -> Iterator[np.ndarray]:
    """Yield `number` phantoms of each family."""
    for family in sorted(FAMILIES):
        for seed in range(first, first + number):
            yield phantom(family, seed, size=size, n_elements=n_elements)


def false_alarms(first: int, number: int) -> None:
    """Print how many clean maps have a defect."""
    rng = np.random.default_rng(first)
    maps, struck, doubted = 0, 0, 0
    for painted in phantoms(first, number):
        for factor in (2, 4):
            for level in (1, 3, 10, 100, 1000, 1e4, np.inf):
                for width in (0.0, 0.3, 0.6, 1.0, 1.5):
                    elements = int(rng.choice([1, 2, 4]))
                    how = Simulation(
                        Measurement(factor, SAMPLINGS[rng.integers(3)], width),
                        (level,) * elements,
                        i0_rms=float(rng.uniform(0, 0.03)),
                        i0_corrected=bool(rng.random() < 0.5),
                        row_shift_steps=float(rng.uniform(-0.3, 0.3) * (rng.random() < 0.2)),
                    )
                    counts = simulate(painted[:elements], how, rng).counts
                    counts = counts if np.isfinite(level) else 1e5 * counts
                    found = find_defects(counts, NAMES[:elements], (width, width))
                    maps += 1
                    doubted += bool(found.doubts)
                    if found.notes:
                        struck += 1
                        print(f"  {level:g} photons, probe {width}: {'; '.join(found.notes)}")
    print(
        f"phantoms from seed {first}: defects in {struck} of {maps} clean maps,"
        f" doubtful pixels in {doubted}"
    )


def sensitivity(number: int) -> None:
    """Print what share of the defects in simulated maps is found, and nothing else."""
    rng = np.random.default_rng(0)
    found: dict[tuple[str, float], list[bool]] = defaultdict(list)
    for painted in phantoms(VALIDATION_SEED + 20, number, n_elements=3):
        for factor in (2, 4):
            for level in (10, 50, 200, 1000):
                how = Simulation.plain(Measurement(factor, "fly"), level, 3)
                clean = simulate(painted, how, rng).counts
                for what, counts, mask in _broken(clean, rng):
                    seen = find_defects(counts)
                    found[what, level].append(np.array_equal(seen.mask, mask))
                    if "pixel" in what:
                        kept = [(int(e), int(y), int(x)) for e, y, x in np.argwhere(mask)]
                        named = seen.mask[mask].all() or set(kept) <= {*seen.doubtful_pixels}
                        found[f"{what}, found or named as doubtful", level].append(bool(named))
    for (what, level), hits in found.items():
        print(f"{what}, {level:g} photons: {100 * np.mean(hits):.0f} % of {len(hits)}")


def _broken(
    clean: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    height, width = clean.shape[1:]
    y, x = int(rng.integers(2, height - 2)), int(rng.integers(2, width - 2))
    places = {
        "hot pixel of 10000": np.s_[0, y, x],
        "dead row": np.s_[:, y],
        "doubled row": np.s_[:, y],
        "two empty last columns": np.s_[:, :, -2:],
    }
    values = {"hot pixel of 10000": 1e4, "doubled row": clean[:, y - 1]}
    for what, place in places.items():
        counts, mask = clean.copy(), np.zeros(clean.shape, dtype=bool)
        counts[place], mask[place] = values.get(what, 0.0), True
        yield what, counts, mask


def coverage(number: int) -> None:
    """Print the coverage of other elements around a hot pixel, and of the same pixels without."""
    for factor in (2, 4):
        for level, times in ((50, None), (50, 10), (1000, 3), (1000, 10)):
            rng = np.random.default_rng(0)
            how = Simulation.plain(Measurement(factor, "fly"), level, 3)
            shares = []
            for painted in phantoms(VALIDATION_SEED + 50, number, 64 * factor, 3):
                pair = simulate(painted, how, rng)
                y, x = (int(place) for place in rng.integers(3, 61, 2))
                hot = pair.counts.copy()
                hot[0, y, x] = times * hot[0].max() if times else 1e4
                ways = ((hot, False), (hot, True), (pair.counts, False))
                shares.append([_covered(pair, *way, y, x) for way in ways])
            what = f"{times} times the brightest" if times else "10000 photons"
            _print_coverage(f"{factor}x, {level} photons, a pixel of {what}", np.array(shares))


def _print_coverage(what: str, shares: np.ndarray) -> None:
    """Print the mean of shares (map, way), the ways in the order of the words."""
    ways = ("coverage", "where it has a say in others", "without it")
    error = shares[:, 0].std() / np.sqrt(len(shares))
    text = ", ".join(
        f"{way} {mean:.3f}" for way, mean in zip(ways, shares.mean(axis=0), strict=True)
    )
    print(f"{what}, {len(shares)} maps: {text} (+- {error:.3f})", flush=True)


def _covered(pair: Pair, counts: np.ndarray, has_a_say: bool, y: int, x: int) -> float:
    """Return the coverage of all elements but the first within two coarse pixels of a place.

    `has_a_say`: doubtful pixels are not kept from the other elements.
    """
    from xrf_sr_plans.sr.estimate import estimate
    from xrf_sr_plans.sr.prepare import prepare
    from xrf_sr_plans.sr.registry import load_model

    _, calibration, network = load_model(None)
    ready = prepare(counts, elements=NAMES[:3])
    ready = replace(ready, doubtful_pixels=()) if has_a_say else ready
    made, _ = estimate(ready, NAMES[:3], pair.measurement, calibration, network, "cpu")
    inside = (made["lower"] <= pair.truth) & (pair.truth <= made["upper"])
    factor = pair.measurement.factor
    near = np.s_[1:, (y - 2) * factor : (y + 3) * factor, (x - 2) * factor : (x + 3) * factor]
    return float(inside[near].mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=3, help="phantoms of each family")
    number = parser.parse_args().number
    false_alarms(0, number)
    false_alarms(VALIDATION_SEED, number)
    sensitivity(number)
    coverage(5 * number)
