"""Time and memory of the enhancement against map size, beside the notes' network in eager torch.

    python benchmarks/inference.py [--largest 256] [--factor 2] [--device auto] [--json OUT]

Every line is a process of its own, so that peak memory is that of one method and one map. On the
CPU the process may not allocate more than --memory-gb; what doesn't fit is shown as such.
`xrf-sr` is everything a user waits for: numpy counts in, estimate, sigma, interval and trust out.
`network only` leaves out intervals and consistency. `notes` is the notes' network (16 x 64, all
elements as channels, float32, eager, whole map, untrained weights) with numpy in and out.
`ns/px` is the best time per output pixel and element: the same for all sizes where time is
linear. `x notes` compares the best times, since other work on the machine only ever adds to them.
How good either is: `xrf-sr evaluate` and `benchmarks/enhancement.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.measurement import COARSER_FACTORS, Measurement

METHODS = ("xrf-sr", "network only", "notes")
SMALLEST = 64
PASSED_ON = (
    "factor", "elements", "device", "threads", "repeats", "seconds", "memory_gb", "model",
)  # fmt: skip


def counts(size: int, elements: int) -> np.ndarray:
    """Return a map (element, y, x) of counting noise on something smooth."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] * (8 * np.pi / size)
    mean = [20 * (1.5 + np.sin(x + k) * np.cos(y - k)) for k in range(elements)]
    return np.stack([rng.poisson(plane).astype(np.float32) for plane in mean])


def task(options: argparse.Namespace, maps: np.ndarray) -> Callable[[], object]:
    """Return what is timed."""
    import torch

    method, factor, device = options.method, options.factor, options.device
    model = options.model or None
    names = [f"element {index}" for index in range(len(maps))]
    if method == "xrf-sr":
        from xrf_sr_plans.sr.predict import enhance

        known = {"elements": names, "factor": factor, "step_um": 1.0}
        return lambda: enhance(maps, **known, device=device, model=model)
    if method == "network only":
        from xrf_sr_plans.sr.estimate import run_network
        from xrf_sr_plans.sr.registry import load_model
        from xrf_sr_plans.sr.scale import Scale

        network = load_model(model)[2]
        measurement, scale = Measurement(factor), Scale.of(maps)
        return lambda: run_network(maps, scale, measurement, network, device)
    from xrf_sr_plans.sr.peer_networks import NotesNetwork

    notes = NotesNetwork(len(maps), factor).eval().to(device)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return notes.maps(torch.as_tensor(maps, device=device)[None]).cpu().numpy()

    return run


def peak_mb() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time one method on one map in this process."""
    import torch

    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(options.threads)
        limit = int(options.memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    maps = counts(options.size, options.elements)
    run = task(options, maps)
    before = peak_mb()
    begin = time.perf_counter()
    run()
    first = time.perf_counter() - begin
    times = []
    # The first time is slower (it loads and prepares), but not where it takes that long anyway.
    while first + sum(times) < options.seconds and len(times) < options.repeats:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    times = times or [first]
    found = {
        "first_s": first,
        "median_s": statistics.median(times),
        "best_s": min(times),
        "worst_s": max(times),
        "repeats": len(times),
        "peak_mb": peak_mb() - before,
    }
    if device.type == "cuda":
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def one_line(options: argparse.Namespace, method: str, size: int) -> dict[str, Any]:
    """Run `measure` in a process of its own."""
    arguments = [sys.executable, __file__, "--method", method, "--size", str(size)]
    for name in PASSED_ON:
        arguments += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(
        arguments, capture_output=True, text=True, env=environment, timeout=options.timeout_s
    )
    line = {"method": method, "coarse_px": size, "output_px": size * options.factor}
    line["elements"] = options.elements
    if done.returncode:
        tail = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        out = "memory" in done.stderr.lower() or done.returncode < 0
        return {**line, "failed": "does not fit in memory" if out else tail[:200]}
    return {**line, **json.loads(done.stdout)}


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--largest", type=int, default=256, help="largest side, coarse pixels")
    parser.add_argument("--factor", type=int, default=2, choices=COARSER_FACTORS)
    parser.add_argument("--elements", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="stop repeating after so long")
    parser.add_argument("--timeout-s", type=float, default=900.0, help="longest for one line")
    parser.add_argument("--memory-gb", type=float, default=8.0, help="CPU memory allowed")
    parser.add_argument("--model", default="", help="name or file; else the default model")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def row(line: dict[str, Any], notes_s: float | None) -> str:
    """Return a line of the table."""
    start = f"{line['coarse_px']:>6} {line['output_px']:>6}  {line['method']:<14}"
    if "failed" in line:
        return f"{start} {line['failed']}"
    ratio = f"{notes_s / line['best_s']:8.2f}" if notes_s else f"{'-':>8}"
    pixels = line["output_px"] ** 2 * line["elements"]
    gpu = f"{line['peak_gpu_mb']:9.0f}" if "peak_gpu_mb" in line else ""
    return (
        f"{start} {line['median_s'] * 1e3:10.1f} {line['best_s'] * 1e3:9.1f}"
        f" {line['best_s'] * 1e9 / pixels:7.0f} {ratio}"
        f" {line['peak_mb']:9.0f}{gpu}"
    )


def main() -> None:
    """Print the table, and JSON where asked."""
    options = parse()
    if options.device == "auto":
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.method:
        print(json.dumps(measure(options)))
        return
    where = f"{options.device}, {options.threads} CPU threads, {platform.processor() or '?'}"
    print(f"{options.elements} elements, factor {options.factor}, {where}")
    print(
        f"{'coarse':>6} {'output':>6}  {'method':<14} {'median ms':>10} {'best ms':>9}"
        f" {'ns/px':>7} {'x notes':>8} {'+RSS MB':>9}"
        f"{'   GPU MB' if options.device != 'cpu' else ''}"
    )
    lines, size = [], SMALLEST
    while size <= options.largest:
        some = [one_line(options, method, size) for method in METHODS]
        notes_s = some[-1].get("best_s")
        print("\n".join(row(line, notes_s) for line in some), flush=True)
        lines += some
        size *= 2
    if options.json:
        facts = {name: getattr(options, name) for name in ("elements", "factor", "device")}
        result = {**facts, "threads": options.threads, "lines": lines}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
