"""The stage ``compressed``: the model as int8 ONNX, and proof that it still says the same.

What makes it smaller has a module each (``export``, ``quantise``); this one puts them in order and keeps the gate.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from lepton_platform.compression.export import export, opset_of
from lepton_platform.compression.measure import cpu, latency
from lepton_platform.compression.quantise import quantise_dynamic, quantise_static
from lepton_platform.compression.session import MODEL, SLOW_FUSIONS, Session
from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import Params, Progress, StageFailed, StageResult
from lepton_platform.training.batches import by_size
from lepton_platform.training.evaluation import MetricsPart, Sampling
from lepton_platform.training.part import ModelPart, Samples
from lepton_platform.training.predict import in_order, load
from lepton_platform.training.weights import CONFIG, HISTORY, WEIGHTS, read_config, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

_CHECKED_ROWS = 64  # of the export against the network


class CompressParams(Params):
    """``compress`` in params.yaml."""

    min_agreement: float = Field(0.97, ge=0, le=1, description="Share of test rows answered as the float model does.")
    max_loss: float = Field(0.01, ge=0, le=1, description="Of the headline figure: 0.01 is one point.")
    export_tolerance: float = Field(
        1e-4, gt=0, description="The most that an exported output y may differ from torch's, as a share of 1 + |y|."
    )
    method: Literal["dynamic", "static"] = Field(
        "dynamic", description="dynamic: for products of matrices; static: for convolutions, with calibration rows."
    )
    calibration_rows: int = Field(64, ge=1, description="Static: training rows that ranges are measured on.")
    per_channel: bool = Field(True, description="A scale for every column of a matrix, or channel of a convolution.")
    reduce_range: bool = Field(True, description="7-bit weights: the same answers on CPUs with and without VNNI.")
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
    config = read_config(model)
    samples = model_part.LEARNER.encode(config, model, rows)
    network = load(model, model_part)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / MODEL
        progress(0, 4)
        export(network, *model_part.LEARNER.examples(config), plain)
        progress(1, 4)
        _check_export(network, Session(plain), samples, params.export_tolerance)
        quantised = _quantise(plain, out / MODEL, params, lambda: _calibration(dataset, model, params, model_part))
        progress(2, 4)
        judged = _judge(Judge(rows, before, samples, config, out, params, model_part, metrics))
        progress(3, 4)
        timed = _latencies(network, plain, out / MODEL, samples, params)
        exported_bytes = plain.stat().st_size
    sizes = {
        "float_bytes": (model / WEIGHTS).stat().st_size,
        "float_onnx_bytes": exported_bytes,
        "int8_bytes": (out / MODEL).stat().st_size,
    }
    report = {**judged, **sizes, "opset": opset_of(network), "method": params.method, "weights_quantised": quantised}
    _leave(model, out, config, report)
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
    out: Path
    params: CompressParams
    part: ModelPart
    metrics: MetricsPart


def _judge(it: Judge) -> dict[str, Any]:
    """Answer all test rows, write predictions/, apply the gate; the report's figures."""
    session = Session(it.out / MODEL, it.params.threads)
    evaluator = it.metrics.EVALUATOR

    def answers(batch_rows: int) -> Any:
        return evaluator.answers(it.rows, _scores(session, it, batch_rows), it.config["labels"])

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


def _scores(session: Session, it: Judge, batch_rows: int) -> NDArray[np.float32]:
    """The learner's scores (N, …) of all rows, in their order."""
    import torch

    found: list[NDArray[np.float32]] = []
    batches = by_size(it.samples.sizes, batch_rows)
    for batch in batches:
        outputs = torch.from_numpy(session.run(_arrays(it.samples.batch(batch).inputs)))
        found.append(it.part.LEARNER.scores(outputs, it.config).numpy())
    return in_order(found, batches)


def _arrays(inputs: Mapping[str, Tensor]) -> dict[str, NDArray]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def _quantise(source: Path, target: Path, params: CompressParams, calibration: Callable[[], Iterable[Any]]) -> int:
    """By the method asked for; returns how many weights are in eight bits."""
    kept: dict[str, Any] = {name: getattr(params, name) for name in ("per_channel", "reduce_range", "keep_float")}
    if params.method == "dynamic":
        return quantise_dynamic(source, target, **kept)
    return quantise_static(source, target, calibration(), **kept)


def _calibration(dataset: Path, model: Path, params: CompressParams, part: ModelPart) -> Iterator[dict[str, NDArray]]:
    """Training rows spread evenly, one at a time, as the network is fed."""
    rows = Dataset(dataset / "train").read(list(part.LEARNER.columns))
    if not rows.num_rows:
        raise StageFailed(f"There are no training rows in {dataset.name}/train to calibrate on.")
    many = min(params.calibration_rows, rows.num_rows)
    rows = rows.take(np.unique(np.linspace(0, rows.num_rows - 1, many).astype(np.int64)))
    samples = part.LEARNER.encode(read_config(model), model, rows)
    for row in range(rows.num_rows):
        yield _arrays(samples.batch([row]).inputs)


def _check_export(network: nn.Module, session: Session, samples: Samples, tolerance: float) -> None:
    """The exported graph against the network, on rows of all sizes."""
    import torch

    chosen = np.argsort(samples.sizes, kind="stable")
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(_CHECKED_ROWS, len(chosen))).astype(int)]
    worst = 0.0
    for batch in (chosen[:1], chosen[-1:], *np.array_split(chosen, min(4, len(chosen)))):
        inputs = samples.batch(batch).inputs
        with torch.inference_mode():
            wanted = network(**inputs).numpy()
        found = np.abs(wanted - session.run(_arrays(inputs))) / (1 + np.abs(wanted))
        worst = max(worst, float(found.max()))
    if not worst <= tolerance:
        raise StageFailed(
            f"The exported graph does not compute what the network does: outputs differ by up to {worst:.2g} of "
            f"1 + their size, and {tolerance:.2g} is allowed (compress.export_tolerance). Some operation of the network is "
            "exported wrongly."
        )


def _latencies(
    network: nn.Module, plain: Path, small: Path, samples: Samples, params: CompressParams
) -> dict[str, Any]:
    """torch, float ONNX and int8 ONNX on the median row and on a batch around it."""
    import torch

    order = np.argsort(samples.sizes, kind="stable")
    middle, half = len(order) // 2, max(min(params.latency_rows, len(order)) // 2, 1)
    one = samples.batch(order[middle : middle + 1]).inputs
    many = samples.batch(order[max(middle - half, 0) : middle + half]).inputs

    def by_torch(inputs: Mapping[str, Tensor]) -> object:
        with torch.inference_mode():
            return network(**inputs)

    before = torch.get_num_threads()
    torch.set_num_threads(params.threads)
    try:
        found = {"torch float": latency(by_torch, one, many)}
    finally:
        torch.set_num_threads(before)
    sessions: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "onnx float": Session(plain, params.threads).run,
        "onnx int8": Session(small, params.threads).run,
    }
    return found | {name: latency(run, _arrays(one), _arrays(many)) for name, run in sessions.items()}


def _latency_table(timed: Mapping[str, Mapping[str, float]]) -> str:
    lines = [f"| {name} | {t['p50_ms']} | {t['p95_ms']} | {t['rows_per_s']} |" for name, t in timed.items()]
    return "\n".join(["| model | p50 ms, one row | p95 ms | rows/s, batch |", "|---|---|---|---|", *lines])


def _leave(model: Path, out: Path, config: Mapping[str, Any], report: Mapping[str, Any]) -> None:
    """The float weights and what else the model needs, the config with how to run the graph, the report."""
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in {CONFIG, HISTORY}:
            shutil.copyfile(path, out / path.name)
    runtime = {"graph": MODEL, "opset": report["opset"], "disabled_optimizers": list(SLOW_FUSIONS)}
    write_json(out / CONFIG, {**config, "runtime": runtime})
    write_json(out / "report.json", report)
