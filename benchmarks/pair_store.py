"""What a pair store takes, and whether it stays whole when its writers are killed.

    python benchmarks/pair_store.py [--kills 200] [--pairs 1000] [--folder FOLDER]
        [--json OUT]

Two processes add pairs to one store, and are killed (SIGKILL) at a random moment, again and again.
Whatever a writer said is in must be in, every pair must be whole, and no sample may be both learnt
from and held out. Then a store of many small pairs is made, opened and read, and a map is added
that is as large as maps are. The script fails if anything is lost or not whole.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.registration.pair_registration import PairRegistration
from xrf_sr_plans.store.pairs import MapOrigin, PairStore
from xrf_sr_plans.store.pairs.survey_maps import SurveyMaps

LARGE = (8, 400, 400)
"""Elements, rows and columns of a large fine map."""


def maps_of(seed: int, shape: tuple[int, int, int], step_um: float) -> ElementalMaps:
    """Return maps of nothing but noise."""
    elements, rows, columns = shape
    ends = ((columns - 1) * step_um, columns, 0, (rows - 1) * step_um, rows)
    grid = ScanGrid.from_start_stop(0, *ends)
    counts = np.random.default_rng(seed).poisson(50, shape).astype(float)
    return ElementalMaps.from_arrays(counts, grid, [f"E{number}" for number in range(elements)])


def add(store: PairStore, uid: str, seed: int, sample: str, pixels: int = 8) -> str:
    """Add a pair of noise and return its uid."""
    coarse, fine = (2, pixels // 2, pixels // 2), (2, pixels, pixels)
    origin = MapOrigin(run_uid=uid, beamline="sim", time=1.8e9)
    store.save_map(uid, 0, 2, maps_of(seed, coarse, 2.0), origin)
    store.save_map(uid, 1, 1, maps_of(seed, fine, 1.0), origin)
    drift = tuple(np.linspace(-1, 1, 48))
    registration = {0: PairRegistration(2, 0.1, 0.2, drift_x_um=drift, drift_y_um=drift)}
    return store.finish(uid, registration, sample=sample)


def write_on(folder: Path, name: str, seed: int, told: Connection) -> None:
    """Add pairs until killed."""
    store = PairStore(folder)
    for number in range(1_000_000):
        told.send(add(store, f"{name}-{number}", seed + number, f"sample {number % 7}"))


def writer(folder: Path, name: str, seed: int) -> tuple[Any, Connection]:
    """Start a process that adds pairs, and return it with what it says."""
    context = multiprocessing.get_context("fork")
    told, end = context.Pipe(duplex=False)
    process = context.Process(target=write_on, args=(folder, name, seed, end))
    process.start()
    end.close()
    return process, told


def said(told: Connection) -> list[str]:
    """Return all that a killed process had said."""
    received = []
    with contextlib.suppress(EOFError, OSError):
        while True:
            received.append(told.recv())
    return received


def killed(folder: Path, kills: int) -> dict[str, int]:
    """Kill writers and count what is wrong afterwards."""
    chance = random.Random(0)
    told = [add(PairStore(folder), "first", 0, "sample 0")]
    torn = 0
    for number in range(kills):
        pair = [writer(folder, f"{who}{number}", (2 * number + who) * 10_000) for who in (0, 1)]
        time.sleep(chance.uniform(0.0, 0.6))
        for process, pipe in pair:
            process.kill()
            told += said(pipe)
            process.join()
        torn += not (folder / "log.jsonl").read_bytes().endswith(b"\n")
    pairs = {pair.pair_uid: pair for pair in PairStore(folder).pairs()}
    splits: dict[str, set[str]] = {}
    for pair in pairs.values():
        splits.setdefault(pair.sample, set()).add(pair.split)
    return {
        "kills": 2 * kills,
        "pairs": len(pairs),
        "lost": len(set(told) - set(pairs)),
        "torn lines": torn,
        "not whole": sum(len(pair.coarse) != 1 for pair in pairs.values()),
        "samples in two splits": sum(len(one) > 1 for one in splits.values()),
    }


def timed(what: Callable[[], object]) -> float:
    """Return how many seconds something takes."""
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


def times(folder: Path, pairs: int) -> dict[str, str]:
    """Return what a store takes."""
    store = PairStore(folder)
    adding = timed(lambda: [add(store, f"p{n}", n, f"sample {n % 20}") for n in range(pairs)])
    opening = timed(lambda: PairStore(folder).version)
    reading = timed(lambda: sum(1 for _ in PairStore(folder).pairs()))
    large = maps_of(1, LARGE, 1.0)
    saving = timed(lambda: store.save_map("large", 1, 1, large))
    surveys = SurveyMaps(folder / "surveys")
    keeping = timed(lambda: surveys.keep(large, MapOrigin("large")))
    recalling = timed(lambda: surveys.recall("large"))
    return {
        f"add a pair, to a store of up to {pairs}": f"{1e3 * adding / pairs:.1f} ms",
        f"open a store of {pairs} pairs": f"{1e3 * opening:.0f} ms",
        "read a pair": f"{1e3 * reading / pairs:.1f} ms",
        f"save a map of {LARGE}": f"{1e3 * saving:.0f} ms",
        "keep it as that of a survey": f"{1e3 * keeping:.0f} ms",
        "find it again": f"{1e3 * recalling:.0f} ms",
        "log": f"{(folder / 'log.jsonl').stat().st_size / 1e6:.2f} MB",
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="Where to make the stores.")
    parser.add_argument("--json", type=Path, help="File to write the figures to.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        counted = killed(Path(folder) / "killed", given.kills)
        took = times(Path(folder) / "timed", given.pairs)
    for name, figure in {**counted, **took}.items():
        print(f"{name:45s} {figure}")
    if given.json is not None:
        given.json.write_text(json.dumps({**counted, **took}, indent=1))
    wrong = counted["lost"] + counted["not whole"] + counted["samples in two splits"]
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
