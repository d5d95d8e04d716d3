"""The int8 model answers the test rows: how often as the float model does, and how well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.compression.params import CompressParams
from lepton_platform.compression.session import Session, file_of, runs
from lepton_platform.data.dataset import Dataset
from lepton_platform.models.graph import Run
from lepton_platform.stage import StageFailed
from lepton_platform.training.batches import by_size
from lepton_platform.training.evaluation import MetricsPart, Sampling
from lepton_platform.training.part import ModelPart, Samples
from lepton_platform.training.predict import as_arrays, in_order

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def judge(it: Judge) -> dict[str, Any]:
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
