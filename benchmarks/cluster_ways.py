"""How a map gets to a worker of a Dask cluster and back: bytes and time by way, and batches.

    python benchmarks/cluster_ways.py [--times 15]

One scheduler and one worker on loopback, a task that returns the bytes of an enhanced map without
enhancing anything. ``task``: the request lies in the task, the reply is fetched by way of the
scheduler, whose port is all that must be reachable. ``direct``: the reply is fetched from the
worker, which must be reachable. ``scattered``: so, and the request is put on the worker first. The
median of all times is shown.

Then the network alone, on this machine's CPU or GPU: maps one by one, and four in one batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from distributed import Client, LocalCluster

from xrf_sr_plans.cluster.packed_maps import plain_of_maps
from xrf_sr_plans.cluster.task import request_of
from xrf_sr_plans.maps.elemental import ElementalMaps
from xrf_sr_plans.maps.grid import ScanGrid
from xrf_sr_plans.measurement import Measurement
from xrf_sr_plans.packing import pack
from xrf_sr_plans.sr.bicubic import enhance_bicubic
from xrf_sr_plans.sr.registry import load_model
from xrf_sr_plans.sr.scale import Scale

SIZES = ((64, 5), (128, 10), (256, 10))
"""Pixels along each axis and elements of measured maps."""
BATCH = 4


def measured(size: int, elements: int) -> ElementalMaps:
    """Return a measured map with one bright blob."""
    counts = np.random.default_rng(size).poisson(30.0, (elements, size, size))
    grid = ScanGrid.from_start_stop(0, size - 1, size, 0, size - 1, size)
    names = [f"E{number}" for number in range(elements)]
    return ElementalMaps.from_arrays(counts, grid, names, step_um=1.0, probe_fwhm_um=0.5)


def answered(_request: bytes, reply: Any) -> Any:
    """Return the reply: what the task does without a map."""
    return bytes(reply)


def seconds(function: Callable[[], object], times: int) -> float:
    """Return the median time of a function, after one call that doesn't count."""
    function()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def ways(client: Client, times: int) -> None:
    """Print bytes and times of each way."""
    heads = ("measured", "request", "reply", "packed", "task", "direct", "scattered")
    print(" ".join(f"{head:>10}" for head in heads))
    for size, elements in SIZES:
        maps = measured(size, elements)
        enhanced = enhance_bicubic(maps, 2, "")

        def request(maps: ElementalMaps = maps) -> bytes:
            return request_of(maps, 2, "0" * 64, lane="live", threads=1, within_s=1.0)

        def reply(enhanced: Any = enhanced) -> bytes:
            return pack({"state": "done", "maps": plain_of_maps(enhanced)})

        asked = request()
        # The reply's bytes are made there, so that they are not sent there.
        held = client.submit(bytes, len(reply()), pure=False)

        def in_task(direct: bool, asked: bytes = asked, held: Any = held) -> None:
            client.direct_to_workers = direct
            client.submit(answered, asked, held, pure=False).result(60)

        def scattered(asked: bytes = asked, held: Any = held) -> None:
            there = client.scatter(asked, direct=True, hash=False)
            client.gather(client.submit(answered, there, held, pure=False), direct=True)

        packing = seconds(request, times) + seconds(reply, times)
        took = [packing, *(seconds(lambda d=d: in_task(d), times) for d in (False, True))]
        took.append(seconds(scattered, times))
        sizes = f"{f'{elements}x{size}x{size}':>10} {len(asked):>10} {len(reply()):>10}"
        print(sizes, *(f"{1e3 * each:>7.0f} ms" for each in took))


def batches(times: int) -> None:
    """Print what the network takes for maps one by one, and in one batch."""
    import torch

    from xrf_sr_plans.sr.network import conditions_of
    from xrf_sr_plans.sr.tiled_inference import run_tiled

    where = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _, _, network = load_model(None)
    network = network.to(where)
    measurement = Measurement(2, probe_steps=0.5, deblur=False)
    print(f"\nnetwork on {where}, {torch.get_num_threads()} threads, per map")
    for size, elements in SIZES[:2]:
        counts = measured(size, elements).counts.values
        scale = Scale.of(counts)

        def told(number: int, scale: Scale = scale) -> Any:
            many = (np.repeat(values[None], number, axis=0) for values in (scale.low, scale.span))
            made = conditions_of(*many, [measurement] * number)
            return type(made)(*(values.to(where) for values in made))

        def as_now(counts: np.ndarray = counts, told: Any = told) -> None:
            run_tiled(network, counts, told(1), 2, where)

        def in_one(number: int, counts: np.ndarray = counts, told: Any = told) -> None:
            part = torch.from_numpy(counts.astype(np.float32)).to(where)
            with torch.inference_mode():
                network(part.expand(number, *part.shape), told(number), 2).stabilised.cpu()

        alone = seconds(as_now, times)
        batch = [seconds(lambda n=n: in_one(n), times) / n for n in (1, BATCH)]
        print(
            f"{elements:>4}x{size}x{size:<3} as now {1e3 * alone:.0f} ms,"
            f" batch of 1 {1e3 * batch[0]:.0f} ms, of {BATCH} {1e3 * batch[1]:.0f} ms"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=15)
    times = parser.parse_args().times
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        ways(client, times)
    batches(times)


if __name__ == "__main__":
    main()
