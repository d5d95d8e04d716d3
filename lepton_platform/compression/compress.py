"""The stage ``compressed``: the model as int8 ONNX, and proof that it still says the same.

What makes it smaller has a module each (``export``, ``quantise``), and so has what proves that it is as good (``verify``,
``judge``, ``measure``); this one puts them in order.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.compression.calibrate import calibration
from lepton_platform.compression.export import export, opset_of
from lepton_platform.compression.judge import Judge, judge
from lepton_platform.compression.measure import cpu, latencies, latency_table
from lepton_platform.compression.params import CompressParams
from lepton_platform.compression.quantise import quantise_dynamic, quantise_static
from lepton_platform.compression.session import SLOW_FUSIONS, Session, file_of
from lepton_platform.compression.verify import check_export
from lepton_platform.data.dataset import Dataset
from lepton_platform.models.graph import Run
from lepton_platform.stage import Progress, StageFailed, StageResult
from lepton_platform.training.evaluation import HEADLINE, MetricsPart
from lepton_platform.training.part import ModelPart
from lepton_platform.training.predict import load
from lepton_platform.training.weights import CONFIG, HISTORY, WEIGHTS, read_config, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray


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

    Leaves model.onnx (int8), the float weights and all that goes with them, report.json, headline.json and predictions/.
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
        check_export(graphs, floats, samples, answers, params.export_tolerance)
        quantised = 0
        for name in graphs:
            feeds = functools.partial(calibration, name, floats, dataset, model, params, model_part)
            quantised += _quantise(plain / file_of(name), out / file_of(name), params, feeds)
        progress(2, 4)
        judged = judge(Judge(rows, before, samples, config, model, out, params, model_part, metrics, tuple(graphs)))
        progress(3, 4)
        timed = latencies(graphs, plain, out, samples, answers, params)
        exported_bytes = sum((plain / file_of(name)).stat().st_size for name in graphs)
    sizes = {
        "float_bytes": (model / WEIGHTS).stat().st_size,
        "float_onnx_bytes": exported_bytes,
        "int8_bytes": sum((out / file_of(name)).stat().st_size for name in graphs),
    }
    report = {**judged, **sizes, "opset": opset, "method": params.method, "weights_quantised": quantised}
    _leave(model, out, config, report, _headline(report, metrics.EVALUATOR.headline_name), tuple(graphs))
    progress(4, 4)
    figures = {name: float(value) for name, value in report.items() if isinstance(value, int | float)}
    return StageResult(
        rows=rows.num_rows,
        metrics={**figures, "compression": round(sizes["float_bytes"] / sizes["int8_bytes"], 2)},
        metadata={"latency": timed, "latency_md": latency_table(timed), "cpu": cpu(), "threads": params.threads},
    )


def _quantise(source: Path, target: Path, params: CompressParams, calibration: Callable[[], Iterable[Any]]) -> int:
    """By the method asked for; returns how many weights are in eight bits."""
    kept: dict[str, Any] = {name: getattr(params, name) for name in ("per_channel", "reduce_range", "keep_float")}
    if params.method == "dynamic":
        kept["unsigned"] = params.unsigned
    if params.method == "dynamic":
        return quantise_dynamic(source, target, **kept)
    return quantise_static(source, target, calibration(), **kept)


def _headline(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The int8 model's figure under the name that the float model's has, and what eight bits changed."""
    shown = {name: f"int8_{name}", "change": f"{name}_change", "agreement": "agreement", "n_test": "n_test"}
    return {ours: report[theirs] for ours, theirs in {**shown, "int8_bytes": "int8_bytes"}.items()}


def _leave(
    model: Path,
    out: Path,
    config: Mapping[str, Any],
    report: Mapping[str, Any],
    headline: Mapping[str, Any],
    graphs: tuple[str, ...],
) -> None:
    """The float weights and what else the model needs, the config with how to run the graphs, the report."""
    for path in sorted(model.iterdir()):
        if path.is_file() and path.name not in {CONFIG, HISTORY}:
            shutil.copyfile(path, out / path.name)
    files = {name: file_of(name) for name in graphs}
    runtime = {"graphs": files, "opset": report["opset"], "disabled_optimizers": list(SLOW_FUSIONS)}
    write_json(out / CONFIG, {**config, "runtime": runtime})
    write_json(out / "report.json", report)
    write_json(out / HEADLINE, headline)
