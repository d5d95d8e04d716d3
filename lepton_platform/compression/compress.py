"""The stage ``compressed``: the model as int8 ONNX, and proof that it still says the same.

What makes it smaller has a module each (``export``, ``quantise``); this one puts them in order and keeps the gate.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from lepton_platform.compression.export import export, opset_of
from lepton_platform.compression.measure import cpu, latency
from lepton_platform.compression.quantise import quantise_dynamic, quantise_static
from lepton_platform.compression.session import SLOW_FUSIONS, Session, file_of, runs
from lepton_platform.data.dataset import Dataset
from lepton_platform.models.graph import Graph, Run
from lepton_platform.stage import Params, Progress, StageFailed, StageResult
from lepton_platform.training.batches import by_size
from lepton_platform.training.evaluation import MetricsPart, Sampling
from lepton_platform.training.part import ModelPart, Samples
from lepton_platform.training.predict import as_arrays, in_order, load, torch_runs
from lepton_platform.training.weights import CONFIG, HISTORY, WEIGHTS, read_config, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

Answer = Callable[[Mapping[str, Run], Mapping[str, Any]], Any]  # the learner's, of graphs and a batch's inputs
_CHECKED_ROWS = 64  # of the export against the network


class CompressParams(Params):
    """``compress`` in params.yaml."""

    min_agreement: float = Field(0.97, ge=0, le=1, description="Share of test rows answered as the float model does.")
    max_loss: float = Field(0.01, ge=0, description="Of the headline figure: 0.01 is one point.")
    export_tolerance: float = Field(
        1e-4, gt=0, description="The most that an exported output y may differ from torch's, as a share of 1 + |y|."
    )
    method: Literal["dynamic", "static"] = Field(
        "dynamic", description="dynamic: for products of matrices; static: for convolutions, with calibration rows."
    )
    calibration_rows: int = Field(64, ge=1, description="Static: training rows that ranges are measured on.")
    per_channel: bool = Field(True, description="A scale for every column of a matrix, or channel of a convolution.")
    reduce_range: bool = Field(True, description="7-bit weights: the same answers on CPUs with and without VNNI.")
    unsigned: bool = Field(
        False, description="dynamic: weights of 8 bits that overflow on no CPU, at up to twice the time of 7 bits."
    )
    keep_float: list[str] = Field(
        default_factory=list, description="Patterns of operators, or of their weights, that stay float."
    )
    batch_rows: int = Field(
        1, ge=1, description="Rows at a time where the int8 model is judged; see agreement_batched."
    )
    threads: int = Field(1, ge=1, description="Of the int8 model, where it is judged and timed.")
    latency_rows: int = Field(32, ge=2, description="Rows of the batch that is timed and held against single rows.")
    bootstrap_repeats: int = Field(2_000, ge=100, description="Draws behind the interval of the change.")
    seed: int = Field(0, ge=0, description="Of the draws.")


def compressed(
    *,
    dataset: Path,
    model: Path,
    quality: Path,
    out: Path,
    params: CompressParams,
    model_part: ModelPart,
    metrics: MetricsPart,
    progress: Progress,
) -> StageResult:
    """Export, quantise, and answer the test rows again: fail where too many answers change or the headline falls.

    Leaves model.onnx (int8), the float weights and all that goes with them, report.json and predictions/.
    """
    rows = Dataset(dataset / "test").read()
    if not rows.num_rows:
        raise StageFailed(f"There are no test rows in {dataset.name}/test to hold the int8 model against.")
    before = Dataset(quality / "predictions").read()
    config, learner = read_config(model), model_part.LEARNER
    samples = learner.encode(config, model, rows)
    network = load(model, model_part)
    graphs = learner.graphs(network, config)

    def answers(run: Mapping[str, Run], inputs: Mapping[str, NDArray]) -> NDArray:
        return learner.answer(run, inputs, config, model)

    opset = opset_of(network)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder)
        progress(0, 4)
        for name, graph in graphs.items():
            export(graph, plain / file_of(name), opset)
        progress(1, 4)
        floats = {name: Session(plain / file_of(name)) for name in graphs}
        _check_export(graphs, floats, samples, answers, params.export_tolerance)
        quantised = 0
        for name in graphs:
            feeds = functools.partial(_calibration, name, floats, dataset, model, params, model_part)
            quantised += _quantise(plain / file_of(name), out / file_of(name), params, feeds)
        progress(2, 4)
        judged = _judge(Judge(rows, before, samples, config, model, out, params, model_part, metrics, tuple(graphs)))
        progress(3, 4)
        timed = _latencies(graphs, plain, out, samples, answers, params)
        exported_bytes = sum((plain / file_of(name)).stat().st_size for name in graphs)
    sizes = {
        "float_bytes": (model / WEIGHTS).stat().st_size,
        "float_onnx_bytes": exported_bytes,
        "int8_bytes": sum((out / file_of(name)).stat().st_size for name in graphs),
    }
    report = {**judged, **sizes, "opset": opset, "method": params.method, "weights_quantised": quantised}
    _leave(model, out, config, report, tuple(graphs))
    progress(4, 4)
    figures = {name: float(value) for name, value in report.items() if isinstance(value, int | float)}
    return StageResult(
        rows=rows.num_rows,
        metrics={**figures, "compression": round(sizes["float_bytes"] / sizes["int8_bytes"], 2)},
        metadata={"latency": timed, "latency_md": _latency_table(timed), "cpu": cpu(), "threads": params.threads},
    )


@dataclass(frozen=True)
class Judge:
    """What the int8 model is held against."""

    rows: Any
    before: Any
    samples: Samples
    config: Mapping[str, Any]
    model: Path
    out: Path
    params: CompressParams
    part: ModelPart
    metrics: MetricsPart
    graphs: tuple[str, ...]


def _judge(it: Judge) -> dict[str, Any]:
    """Answer all test rows, write predictions/, apply the gate; the report's figures."""
    run = runs({name: Session(it.out / file_of(name), it.params.threads) for name in it.graphs})
    evaluator = it.metrics.EVALUATOR

    def answers(batch_rows: int) -> Any:
        return evaluator.answers(it.rows, _scores(run, it, batch_rows), it.config["labels"])

    after = answers(it.params.batch_rows)
    many = it.params.latency_rows
    batched = after if it.params.batch_rows == many else answers(many)
    name = evaluator.headline_name
    change = evaluator.compare(after, it.before, Sampling(it.params.bootstrap_repeats, it.params.seed))
    report = {
        "agreement": round(evaluator.agreement(after, it.before), 6),
        "agreement_batched": round(evaluator.agreement(after, batched), 6),
        f"float_{name}": round(evaluator.headline(it.before), 6),
        f"int8_{name}": round(evaluator.headline(after), 6),
        f"{name}_change": round(change.estimate, 6),
        f"{name}_change_ci95": [round(change.low, 6), round(change.high, 6)],
        "n_test": it.rows.num_rows,
    }
    _gate(report, name, it.params)
    Dataset(it.out / "predictions").write(after)
    return report


def _gate(report: Mapping[str, Any], name: str, params: CompressParams) -> None:
    loss = -report[f"{name}_change"]
    measured = (
        f"the int8 model agrees with the float model on {report['agreement']:.1%} of {report['n_test']} test rows; "
        f"{name} {report[f'int8_{name}']:.4f} against {report[f'float_{name}']:.4f}"
    )
    if report["agreement"] < params.min_agreement or loss > params.max_loss:
        raise StageFailed(
            f"Compression changed the model too much: {measured}. Asked for: agreement of at least "
            f"{params.min_agreement:.1%} (compress.min_agreement), a loss of at most {params.max_loss} of {name} "
            "(compress.max_loss). Leave sensitive operators float with compress.keep_float, e.g. the last "
            "layer's.",
            details=dict(report),
        )


def _scores(run: Mapping[str, Run], it: Judge, batch_rows: int) -> NDArray:
    """The learner's answers (N, …) to all rows, in their order."""
    batches = by_size(it.samples.sizes, batch_rows)
    found = [
        it.part.LEARNER.answer(run, as_arrays(it.samples.batch(batch).inputs), it.config, it.model) for batch in batches
    ]
    return in_order(found, batches)


def _quantise(source: Path, target: Path, params: CompressParams, calibration: Callable[[], Iterable[Any]]) -> int:
    """By the method asked for; returns how many weights are in eight bits."""
    kept: dict[str, Any] = {name: getattr(params, name) for name in ("per_channel", "reduce_range", "keep_float")}
    if params.method == "dynamic":
        kept["unsigned"] = params.unsigned
    if params.method == "dynamic":
        return quantise_dynamic(source, target, **kept)
    return quantise_static(source, target, calibration(), **kept)


def _calibration(
    name: str, floats: Mapping[str, Session], dataset: Path, model: Path, params: CompressParams, part: ModelPart
) -> Iterator[Mapping[str, NDArray]]:
    """What the graph is fed while training rows, spread evenly, are answered one at a time."""
    rows = Dataset(dataset / "train").read(list(part.LEARNER.columns))
    if not rows.num_rows:
        raise StageFailed(f"There are no training rows in {dataset.name}/train to calibrate on.")
    many = min(params.calibration_rows, rows.num_rows)
    rows = rows.take(np.unique(np.linspace(0, rows.num_rows - 1, many).astype(np.int64)))
    config, learner = read_config(model), part.LEARNER
    samples = learner.encode(config, model, rows)
    for row in range(rows.num_rows):
        inputs = as_arrays(samples.batch([row]).inputs)
        if len(floats) == 1:
            yield inputs
            continue
        fed: list[Mapping[str, NDArray]] = []
        learner.answer(_noted(runs(floats), name, fed), inputs, config, model)
        yield from fed


def _noted(run: Mapping[str, Run], name: str, fed: list[Mapping[str, NDArray]]) -> dict[str, Run]:
    """The same graphs; what ``name`` is fed is written down."""

    def noting(feeds: Mapping[str, NDArray]) -> Sequence[NDArray]:
        fed.append(dict(feeds))
        return run[name](feeds)

    return {**run, name: noting}


def _check_export(
    graphs: Mapping[str, Graph],
    sessions: Mapping[str, Session],
    samples: Samples,
    answer: Answer,
    tolerance: float,
) -> None:
    """The exported graphs against the network, on rows of all sizes: whatever is asked of one is asked of the other."""
    import torch

    worst = dict.fromkeys(graphs, 0.0)

    def both(name: str, ours: Run) -> Run:
        def run(feeds: Mapping[str, NDArray]) -> Sequence[NDArray]:
            outputs = ours(feeds)
            for wanted, found in zip(outputs, sessions[name].run(feeds), strict=True):
                gap = np.abs(wanted - found) / (1 + np.abs(wanted))
                worst[name] = max(worst[name], float(gap.max(initial=0.0)))
            return outputs

        return run

    chosen = np.argsort(samples.sizes, kind="stable")
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(_CHECKED_ROWS, len(chosen))).astype(int)]
    checked = {name: both(name, ours) for name, ours in torch_runs(graphs).items()}
    with torch.inference_mode():
        for batch in (chosen[:1], chosen[-1:], *np.array_split(chosen, min(4, len(chosen)))):
            answer(checked, as_arrays(samples.batch(batch).inputs))
    for name, gap in worst.items():
        if not gap <= tolerance:
            raise StageFailed(
                f"The exported graph '{name}' does not compute what the network does: outputs differ by up to {gap:.2g} of "
                f"1 + their size, and {tolerance:.2g} is allowed (compress.export_tolerance). Some operation of the network "
                "is exported wrongly."
            )


def _latencies(
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


def _latency_table(timed: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {name} | {t['p50_ms']} | {t['p95_ms']} | {t['rows_per_s']} |" for name, t in timed.items()]
    return "\n".join(["| model | p50 ms, one row | p95 ms | rows/s, batch |", "|---|---|---|---|", *lines])


def _leave(
    model: Path, out: Path, config: Mapping[str, Any], report: Mapping[str, Any], graphs: tuple[str, ...]
) -> None:
    """The float weights and what else the model needs, the config with how to run the graphs, the report."""
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in {CONFIG, HISTORY}:
            shutil.copyfile(path, out / path.name)
    files = {name: file_of(name) for name in graphs}
    runtime = {"graphs": files, "opset": report["opset"], "disabled_optimizers": list(SLOW_FUSIONS)}
    write_json(out / CONFIG, {**config, "runtime": runtime})
    write_json(out / "report.json", report)
