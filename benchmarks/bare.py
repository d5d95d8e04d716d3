"""The limit: ONNX Runtime in a loop, inputs encoded beforehand, nothing around it.

``python -m benchmarks.bare MODEL BODIES CLIENTS SECONDS`` tries the ways in which CLIENTS inputs at a time can be
run on this machine, SECONDS each, and prints the best one's figures as ``benchmarks.load`` does, with ``way``.
"""

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.peers import Model, field_of, load


def ways(clients: int, cores: int) -> list[tuple[int, int, int]]:
    """(inputs a call, calls side by side, threads a call)."""
    if clients == 1:
        return [(1, 1, 1), (1, 1, cores)]
    return [(1, cores, 1), (-(-clients // cores), cores, 1), (clients, 1, cores)]


def measure(
    model: Path, values: list[str], way: tuple[int, int, int], clients: int, seconds: float
) -> dict[str, object]:
    batch, lanes, threads = way
    loaded: Model = load(model, threads)
    blocks = [sorted(values[i : i + clients], key=len) for i in range(0, len(values) - clients + 1, clients)]
    groups = [block[i : i + batch] for block in blocks for i in range(0, clients, batch)]
    calls = [(loaded.encode(group), len(group)) for group in groups]  # the feeds that answer that many inputs
    loaded.session.run(None, calls[0][0][0])
    started, cpu = time.perf_counter(), time.process_time()

    def lane(number: int) -> list[float]:
        taken, turn = [], number
        while (at := time.perf_counter()) < started + seconds:
            feeds, count = calls[turn % len(calls)]
            for feed in feeds:
                loaded.session.run(None, feed)
            taken += [time.perf_counter() - at] * count
            turn += lanes
        return taken

    with ThreadPoolExecutor(lanes) as pool:
        latencies = [1e3 * s for found in pool.map(lane, range(lanes)) for s in found]
    found = {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu, "failed": 0}
    return {**found, "latencies_ms": latencies, "way": way}


if __name__ == "__main__":
    field = field_of(Path(sys.argv[1]))
    inputs = [json.loads(line)[field][0] for line in Path(sys.argv[2]).read_bytes().splitlines()]
    asked, cores = int(sys.argv[3]), len(os.sched_getaffinity(0))
    tried = ways(asked, cores)
    found = [measure(Path(sys.argv[1]), inputs, way, asked, float(sys.argv[4])) for way in tried]
    rates = [len(np.asarray(one["latencies_ms"])) / float(str(one["seconds"])) for one in found]
    print(json.dumps(found[int(np.argmax(rates))]))
