"""How fast a model answers, and on which CPU: figures for the ledger, never for a hashed file."""

import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.compression.params import CompressParams
from lepton_platform.compression.session import Session, file_of, runs
from lepton_platform.models.graph import Graph, Run
from lepton_platform.training.part import Samples
from lepton_platform.training.predict import as_arrays, torch_runs

Answer = Callable[[Mapping[str, Run], Mapping[str, Any]], Any]  # the learner's, of graphs and a batch's inputs

# What decides the speed of eight-bit products, slowest first.
_INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
_CALLS = 25
_BATCHES = 5
_ENOUGH_S = 2.0  # a figure that takes longer is as good from fewer calls


def latencies(
    graphs: Mapping[str, Graph],
    plain: Path,
    out: Path,
    samples: Samples,
    answer: Answer,
    params: CompressParams,
) -> dict[str, Any]:
    """torch, float ONNX and int8 ONNX on the median row and on a batch around it."""
    import torch

    order = np.argsort(samples.sizes, kind="stable")
    middle, half = len(order) // 2, max(min(params.latency_rows, len(order)) // 2, 1)
    one = as_arrays(samples.batch(order[middle : middle + 1]).inputs)
    many = as_arrays(samples.batch(order[max(middle - half, 0) : middle + half]).inputs)

    def timed(run: Mapping[str, Run]) -> dict[str, Any]:
        return latency(lambda inputs: answer(run, inputs), one, many)

    before = torch.get_num_threads()
    torch.set_num_threads(params.threads)
    try:
        with torch.inference_mode():
            found = {"torch float": timed(torch_runs(graphs))}
    finally:
        torch.set_num_threads(before)
    for name, folder in (("onnx float", plain), ("onnx int8", out)):
        found[name] = timed(runs({graph: Session(folder / file_of(graph), params.threads) for graph in graphs}))
    return found


def latency_table(timed: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {name} | {t['p50_ms']} | {t['p95_ms']} | {t['rows_per_s']} |" for name, t in timed.items()]
    return "\n".join(["| model | p50 ms, one row | p95 ms | rows/s, batch |", "|---|---|---|---|", *lines])


def latency(answer: Callable[[Mapping[str, Any]], object], one: Mapping[str, Any], many: Mapping[str, Any]) -> dict:
    """``answer`` on one row and on many: the median milliseconds of a call, the rows a second of a batch.

    Slow models are asked less often: see ``_seconds``. ``one`` and ``many`` are inputs by name, of 1 and of B rows.
    """
    rows = len(next(iter(many.values())))
    alone, together = _seconds(answer, one, _CALLS), _seconds(answer, many, _BATCHES)
    return {
        "p50_ms": round(1e3 * float(np.median(alone)), 3),
        "p95_ms": round(1e3 * float(np.quantile(alone, 0.95)), 3),
        "rows_per_s": round(rows / float(np.median(together)), 1),
        "batch_rows": rows,
    }


def _seconds(answer: Callable[[Mapping[str, Any]], object], inputs: Mapping[str, Any], calls: int) -> list[float]:
    """How long each of at most ``calls`` took, one at least; no more are made once they have taken ``_ENOUGH_S``.

    The first call allocates, and counts only where that is nothing beside its length.
    """
    first = _timed(answer, inputs)
    taken = [first] if first > _ENOUGH_S else []
    while not taken or (len(taken) < calls and first + sum(taken) < _ENOUGH_S):
        taken.append(_timed(answer, inputs))
    return taken


def _timed(answer: Callable[[Mapping[str, Any]], object], inputs: Mapping[str, Any]) -> float:
    start = time.perf_counter()
    answer(inputs)
    return time.perf_counter() - start


def cpu() -> dict[str, Any]:
    """The CPU's name and which of the instructions that matter here it has."""
    name, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            if key.strip() in {"flags", "Features"}:
                flags = set(value.split())
                break
    return {"name": name, "instructions": [known for known in _INSTRUCTIONS if known in flags]}
