"""The stage ``quality``: how good the model is on rows never seen, and whether it beats the yardstick."""

from base64 import b64encode
from pathlib import Path
from typing import Literal

from pydantic import Field

from lepton_platform.data.dataset import Dataset
from lepton_platform.stage import Params, Progress, StageFailed, StageResult
from lepton_platform.training.evaluation import HEADLINE, Evaluation, MetricsPart, Sampling
from lepton_platform.training.page import page
from lepton_platform.training.part import ModelPart
from lepton_platform.training.predict import predict_scores
from lepton_platform.training.weights import read_config, write_json


class QualityParams(Params):
    """``quality`` in params.yaml."""

    min_gain: float = Field(
        0.0,
        le=1,
        description="The gate: the lower 95 % bound of (model - yardstick), in units of the headline figure, must be above this.",
    )
    bootstrap_repeats: int = Field(2_000, ge=100, description="Draws behind every interval.")
    seed: int = Field(0, ge=0, description="Of the draws.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the network answers.")
    batch_size: int = Field(64, ge=1, description="Rows at a time.")
    threads: int = Field(1, ge=1, description="On a CPU the last bits depend on it: a number, not the machine's.")


def quality(
    *,
    dataset: Path,
    model: Path,
    out: Path,
    params: QualityParams,
    model_part: ModelPart,
    metrics: MetricsPart,
    progress: Progress,
) -> StageResult:
    """Evaluate the model on the test rows and fail unless it is surely better than the yardstick on the same rows.

    Leaves metrics.json (figures and 95 % intervals), headline.json (those named first), quality.html (all of it to read)
    and predictions/ (a row each).
    """
    rows = Dataset(dataset / "test").read()
    train = Dataset(dataset / "train").read()
    if not rows.num_rows:
        raise StageFailed(f"There are no test rows in {dataset.name}/test: nothing can be said about the model.")
    labels = read_config(model)["labels"]
    scores = predict_scores(
        model,
        rows,
        model_part,
        batch_size=params.batch_size,
        threads=params.threads,
        device=params.device,
        progress=progress,
    )
    answers = metrics.EVALUATOR.answers(rows, scores, labels)
    yardstick = metrics.EVALUATOR.yardstick(train, rows, labels)
    evaluation = metrics.EVALUATOR.evaluate(
        rows, answers, yardstick, Sampling(repeats=params.bootstrap_repeats, seed=params.seed)
    )
    passed, verdict = _verdict(evaluation, params.min_gain)
    if not passed:
        raise StageFailed(verdict, details={"figures": dict(evaluation.figures)})
    Dataset(out / "predictions").write(answers)
    write_json(out / "metrics.json", {**evaluation.figures, "min_gain": params.min_gain, "verdict": verdict})
    shown = [*(name for name, _ in evaluation.headline), "gain", "n_test"]
    write_json(out / HEADLINE, {name: evaluation.figures[name] for name in shown if name in evaluation.figures})
    (out / "quality.html").write_text(page(evaluation, "Quality on rows never seen", verdict, passed), encoding="utf-8")
    return _result(rows.num_rows, evaluation, verdict)


def _verdict(evaluation: Evaluation, min_gain: float) -> tuple[bool, str]:
    name, figure = evaluation.headline[0]
    gain, low, high = evaluation.gain
    measured = (
        f"{name} {figure.estimate:.3f}; {gain:+.3f} against the yardstick on the same rows "
        f"(95 % interval {low:+.3f} to {high:+.3f})"
    )
    if low > min_gain:
        return True, f"Beats the yardstick: {measured}."
    return False, (
        f"The model does not surely beat the yardstick: {measured}. The lower bound must be above {min_gain:+.3f} "
        "(quality.min_gain). Train longer or on more rows, or look at the learning curve for over-fitting."
    )


def _result(rows: int, evaluation: Evaluation, verdict: str) -> StageResult:
    figures = {name: value for name, value in evaluation.figures.items() if isinstance(value, int | float)}
    lines = [f"| {n} | {f.estimate:.3f} | {f.low:.3f} to {f.high:.3f} |" for n, f in evaluation.headline]
    return StageResult(
        rows=rows,
        metrics={name: float(value) for name, value in figures.items()},
        metadata={
            "verdict": verdict,
            "summary_md": "\n".join(["| figure | value | 95 % interval |", "|---|---|---|", *lines]),
            "report_path": "quality.html",
            "gain_ci95": [evaluation.gain.low, evaluation.gain.high],
            **{f"{name}_png": b64encode(png).decode() for name, png in evaluation.pngs.items()},
        },
    )
