"""Whether a model comes into use that has learnt from spoilt pairs: it should never.

    python benchmarks/poison.py [--steps 80] [--samples 6] [--kinds NAME ...] [--guards]
                                [--honest] [--json OUT]

For each kind of mishap (`poisons.py`) a store in which *every* pair is spoilt that way, those that
are held out included: the worst case. Two lines of defence stand in the way.

refused      how many pairs `register` refuses, or hold nothing to learn from: the first line
guards       the model learns and is compared with the shipped one, the second line: the gain on the
             held-out (spoilt) pairs, in how many guards it is worse, and whether it would have been
             promoted
promoted     not refused and not worse. It should be none.

Kinds of which all pairs are refused aren't learnt from. With --guards all are, as if registration
found nothing wrong, which takes half an hour on one core. --honest adds a store with nothing wrong,
to be told beside it. Displaced maps count with --guards only, since registration moves them back.
Phantoms of seeds that nothing else uses.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from poisons import POISONS, Poison

from xrf_sr_plans.learning.compare_models import Effort, compare_models
from xrf_sr_plans.learning.stored_areas import lessons_from
from xrf_sr_plans.learning.train_on_pairs import LearningSettings, train_on_pairs
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.physics.forward import coarsen
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.registration.register import register
from xrf_sr_plans.store.pairs import StoredMap, StoredPair
from xrf_sr_plans.training.phantoms import VALIDATION_SEED, phantom

FIRST_SEED = VALIDATION_SEED + 80_000
FAMILIES = ("cells", "thin_section", "particles", "tissue")
FACTOR, SIDE_PX, PEAK, DWELL_RATIO = 2, 96, 150.0, 4.0
HONEST = "nothing wrong"
CURED = "displaced by 5 pixels"
"""What registration finds and takes out: then these are good pairs, and no mishap."""
EFFORT = Effort(
    phantom_px=64,
    counts=(50.0,),
    feature_repeats=1,
    features={"counts": (20,), "diameters": (1.0, 2.0), "contrasts": (0.8,)},
)


@dataclass(frozen=True)
class Told:
    """What became of one kind of mishap."""

    kind: str
    pairs: int
    refused: int
    """By `register`, or because nothing can be learnt from the maps."""
    gain_db: float
    low_db: float
    worse: int
    """Guards in which the model is worse."""
    passes_guards: bool
    promoted: bool
    seconds: float


def as_maps(coarse: np.ndarray, fine: np.ndarray) -> tuple[ElementalMaps, ElementalMaps]:
    """Return counts as maps of one area, with a fine step of 1 um."""
    ny, nx = coarse.shape[1:]
    grid = ScanGrid.from_start_stop(
        0, FACTOR * (nx - 1.0), nx, 0, FACTOR * (ny - 1.0), ny, snake=False
    )
    names = ["P", "Fe", "Zn"]
    known = {"sampling": "fly", "complete": True, "probe_fwhm_um": None}
    return (
        ElementalMaps.from_arrays(
            coarse, grid, names, step_um=float(FACTOR), dwell_ms=10.0, **known
        ),
        ElementalMaps.from_arrays(
            fine, grid.refined(FACTOR), names, step_um=1.0, dwell_ms=10.0 * DWELL_RATIO, **known
        ),
    )


def pairs_of(poison: Poison | None, samples: int, *, guards: bool) -> tuple[list[StoredPair], int]:
    """Return spoilt pairs, and how many registration refuses; `guards`: as if it found nothing."""
    pairs, refused = [], 0
    for number in range(samples):
        seed = FIRST_SEED + number
        rng = np.random.default_rng(seed)
        truth = PEAK * phantom(FAMILIES[number % len(FAMILIES)], seed, size=SIDE_PX, n_elements=3)
        coarse, fine = rng.poisson(coarsen(truth, FACTOR, "fly")), rng.poisson(DWELL_RATIO * truth)
        if poison is not None:
            coarse, fine = poison(coarse, fine, rng)
        maps = as_maps(coarse, fine)
        found = register(*maps)
        refused += bool(found.problem)
        pairs.append(
            StoredPair(
                f"pair-{number}",
                StoredMap(1, 1, maps[1]),
                (StoredMap(0, FACTOR, maps[0]),),
                {0: PairRegistration(FACTOR, 0.0, 0.0) if guards else found},
                sample=f"sample {number}",
                split="held out" if number % 3 == 2 else "learn",
            )
        )
    return pairs, refused


def tried(kind: str, samples: int, steps: int, *, guards: bool) -> Told:
    """Learn from spoilt pairs and compare."""
    began = time.monotonic()
    pairs, refused = pairs_of(POISONS.get(kind), samples, guards=guards)
    lessons = lessons_from(pairs)
    nothing = Told(kind, samples, refused, np.nan, np.nan, 0, False, False, 0.0)
    if (not guards and refused == samples) or not (lessons.learn and lessons.held_out):
        unusable = refused if lessons.learn and lessons.held_out else samples
        return Told(**{**asdict(nothing), "refused": unusable, "seconds": _since(began)})
    with tempfile.TemporaryDirectory() as folder:
        settings = LearningSettings(
            pairs=Path(folder),
            out=Path(folder),
            steps=steps,
            check_every=max(1, steps // 4),
            n_phantoms=20,
            n_judged=5,
            calibrate_per_family=1,
        )
        candidate = train_on_pairs(settings, lessons)
        comparison = compare_models(candidate, None, lessons.held_out, effort=EFFORT)
    return Told(
        kind,
        samples,
        refused,
        comparison.gain.difference,
        comparison.gain.low,
        sum(guard.worse for guard in comparison.guards),
        comparison.promotes,
        comparison.promotes and refused < samples,
        _since(began),
    )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def main() -> None:
    """Try each kind, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--kinds", nargs="*", choices=sorted(POISONS))
    parser.add_argument("--guards", action="store_true", help="learn from what is refused too")
    parser.add_argument("--honest", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    kinds = [*([HONEST] if options.honest else []), *(options.kinds or POISONS)]
    found: list[dict[str, Any]] = []
    print(f"{'kind':26} refused  gain dB  (low)  worse  guards  promoted     s")
    for kind in kinds:
        told = tried(kind, options.samples, options.steps, guards=options.guards)
        found.append(asdict(told))
        passed, promoted = told.passes_guards, told.promoted
        print(
            f"{kind:26} {told.refused:3}/{told.pairs:<3} {told.gain_db:8.3f} {told.low_db:6.2f}"
            f" {told.worse:6}  {'pass' if passed else 'stop':6}"
            f"  {'YES' if promoted else 'no':8} {told.seconds:5.0f}",
            flush=True,
        )
    good = {HONEST} if options.guards else {HONEST, CURED}
    spoilt = [one for one in found if one["kind"] not in good]
    print(f"promoted: {sum(one['promoted'] for one in spoilt)} of {len(spoilt)} kinds")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
