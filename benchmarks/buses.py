"""Rows a second, and seconds a row, that documents take from a publisher through a bus.

    python benchmarks/buses.py [--rows 500] [--pixels 256] [--elements 10] [--json OUT]

A process publishes the rows of one map through bluesky's 0MQ proxy, in another process, in msgpack
and in JSON. The intake of `xrf-sr listen` reads, checks and puts them in order here, and submits
them to an analysis that does nothing. A row is late by the time from its publication to that;
first one row is published at a time, then all at once.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from xrf_sr_plans.intake.addresses import BusAddress
from xrf_sr_plans.intake.listener import Listener
from xrf_sr_plans.intake.serializers import to_json, to_msgpack
from xrf_sr_plans.intake.zmq_bus import ZmqIntake

SERIALIZERS = {"msgpack": to_msgpack, "json": to_json}
PAUSE_S = 0.01
_WAIT_S = 120.0


class Nothing:
    """An analysis link that only notes when rows come."""

    def __init__(self) -> None:
        self.late_s: list[float] = []
        self.over = threading.Event()

    def submit(self, run: str, name: str, doc: Mapping[str, Any]) -> None:
        """Note how long a row was under way."""
        if name == "event":
            self.late_s.append(time.time() - doc["time"])
        elif name == "stop":
            self.over.set()

    def request(self, source_uid: str) -> Future[Any]:
        """Return what never comes."""
        return Future()


def rows(options: argparse.Namespace, run: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the documents of a map, each row with counts and positions as lists of numbers."""
    photons = np.random.default_rng(0).poisson(20.0, (options.elements, options.pixels))
    position = np.linspace(0.0, 1.0, options.pixels).tolist()
    columns = ("xrf_i0", "xrf_live_time", "xrf_fast_um", "xrf_slow_um")
    data = {"xrf_counts": photons.astype(float).tolist(), **dict.fromkeys(columns, position)}
    keys = {key: {"dtype": "array", "shape": [], "source": "benchmark"} for key in data}
    yield "start", {"uid": run, "time": time.time(), "xrf_sr": {"analysis": {}}}
    yield "descriptor", {"uid": f"{run}-d", "run_start": run, "name": "primary", "data_keys": keys}
    for number in range(1, options.rows + 1):
        uid = f"{run}-{number}"
        yield "event", {"uid": uid, "descriptor": f"{run}-d", "seq_num": number, "data": data}
    yield "stop", {"uid": f"{run}-s", "run_start": run, "num_events": {"primary": options.rows}}


def publish(port: int, options: argparse.Namespace, serializer: str, pause_s: float) -> None:
    """Publish a map, as a RunEngine does."""
    from bluesky.callbacks.zmq import Publisher

    publisher = Publisher(f"127.0.0.1:{port}", serializer=SERIALIZERS[serializer])
    # A publisher drops what it is given before the proxy has subscribed.
    time.sleep(1.0)
    for name, doc in rows(options, f"{serializer} {pause_s}"):
        publisher(name, {**doc, "time": time.time()})
        time.sleep(pause_s)
    time.sleep(1.0)
    publisher.close()


def serve(ports: Any) -> None:
    """Run bluesky's proxy."""
    from bluesky.callbacks.zmq import Proxy

    proxy = Proxy("127.0.0.1:*", "127.0.0.1:*")
    ports.put([int(str(port).rsplit(":", 1)[1]) for port in (proxy.in_port, proxy.out_port)])
    proxy.start()


def measure(ports: list[int], options: argparse.Namespace, serializer: str, pause_s: float) -> Any:
    """Return the figures of one map."""
    link, told = Nothing(), []
    intake = ZmqIntake(BusAddress.parse(f"0mq://127.0.0.1:{ports[1]}"), told.append)
    listener = Listener(intake, link, told.append, patience_s=_WAIT_S)  # type: ignore[arg-type]
    context = multiprocessing.get_context("spawn")
    speaker = context.Process(target=publish, args=(ports[0], options, serializer, pause_s))
    speaker.start()
    began, deadline = 0.0, time.monotonic() + _WAIT_S
    while not link.over.is_set() and time.monotonic() < deadline:
        listener.step(0.1)
        began = began or (time.perf_counter() if link.late_s else 0.0)
    took_s = time.perf_counter() - began
    speaker.join(_WAIT_S)
    intake.close()
    problems = [words for words in told if "run" not in words and "connect" not in words]
    return {
        "messages": serializer,
        "pause_ms": pause_s * 1e3,
        "row_kb": len(SERIALIZERS[serializer](list(rows(options, "x"))[2][1])) / 1e3,
        "rows": len(link.late_s),
        "rows_per_s": len(link.late_s) / took_s,
        "late_ms_median": statistics.median(link.late_s) * 1e3,
        "late_ms_max": max(link.late_s) * 1e3,
        "problems": problems,
    }


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--elements", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    proxy = context.Process(target=serve, args=(answers,), daemon=True)
    proxy.start()
    ports = answers.get(timeout=_WAIT_S)
    try:
        found = [
            measure(ports, options, serializer, pause_s)
            for serializer in SERIALIZERS
            for pause_s in (PAUSE_S, 0.0)
        ]
    finally:
        proxy.terminate()
        proxy.join(10.0)
    print(
        f"{'messages':>9} {'pause':>7} {'row':>8} {'rows':>6} {'rows/s':>7} {'late':>9} {'most':>9}"
    )
    for one in found:
        print(
            f"{one['messages']:>9} {one['pause_ms']:>4.0f} ms {one['row_kb']:>5.1f} kB "
            f"{one['rows']:>6} {one['rows_per_s']:>7.0f} {one['late_ms_median']:>6.1f} ms "
            f"{one['late_ms_max']:>6.1f} ms"
        )
        for problem in one["problems"]:
            print(f"  {problem}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
