"""From a prediction's id to everything that made it: deployment, Bento, model, data, rows, parameters, commit, run."""

from collections.abc import Mapping
from typing import Any

from lepton_platform.pipeline.elsewhere import Elsewhere, made_elsewhere
from lepton_platform.pipeline.ledger import Attempt, Ledger
from lepton_platform.pipeline.lineage import all_versions, table
from lepton_platform.pipeline.stages import STAGES
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.serving.deployments import Deployments
from lepton_platform.serving.lineage import find_prediction, stored_manifest
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed


class UnknownPrediction(StageFailed):
    """No log has an answer of this id."""


def _made_by(attempt: Attempt | None, elsewhere: Elsewhere | None) -> dict[str, Any]:
    if attempt is None:
        told: dict[str, Any] = {"note": "made elsewhere: this ledger has no record of the run"}
        if elsewhere and elsewhere.metrics:
            told["metrics"] = dict(elsewhere.metrics)
        if elsewhere and elsewhere.commit and elsewhere.committed_at:
            told |= {"recorded_in": elsewhere.commit, "recorded_at": elsewhere.committed_at}
            told["note"] += f"; in dvc.lock since the commit {elsewhere.commit[:12]}"
        return told
    return {
        "run_id": attempt.run_id,
        "face": attempt.face,
        "git_commit": attempt.git_commit,
        "started_at": attempt.started_at,
        "seconds": round(attempt.seconds, 3),
        "rows": attempt.rows,
        "params": dict(attempt.params),
        "code": attempt.code,
        "metrics": dict(attempt.metrics),
    }


def _stage_entries(settings: Settings, task: str, versions: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Stage → version and who made it: the ledger knows, or what DVC and git hold is told."""
    ledger, stages = Ledger(settings), [stage for stage in STAGES if stage.name in versions]
    makers = {stage.name: ledger.maker(task, stage.name, versions[stage.name]) for stage in stages}
    with Versions(settings) as recorded:
        unknown = [(stage, versions[stage.name]) for stage in stages if makers[stage.name] is None]
        elsewhere = made_elsewhere(recorded, unknown)
    return {
        name: {"version": versions[name], "made_by": _made_by(maker, elsewhere.get(versions[name]))}
        for name, maker in makers.items()
    }


def _prediction(settings: Settings, identifier: str, of: str | None) -> dict[str, Any]:
    """The log's row, with ``task`` and the ``feedback`` on it."""
    found = find_prediction(settings, identifier, of)
    if found is None:
        raise UnknownPrediction(
            f"No prediction{f' of {of}' if of else ''} has the id {identifier!r} in the logs of {settings.predictions_dir}. "
            "An id is what `POST /predict` answered with."
        )
    return found


def trace(settings: Settings, identifier: str, of: str | None = None) -> dict[str, Any]:
    """One call: the prediction and its whole past. ``of``: the task that must have given it; else any.

    ``UnknownPrediction`` where no log has the id, ``StageFailed`` where its past is gone.
    """
    prediction = _prediction(settings, identifier, of)
    task, tag = prediction.pop("task"), prediction["model"]
    deployment, manifest = Deployments(settings).by_tag(task, tag), stored_manifest(settings, tag)
    versions = all_versions(settings, task, manifest["versions"])
    rows = table(settings, versions["dataset"], "train", ["id"])["id"].to_pylist()
    return {
        "task": task,
        "prediction": prediction,
        "deployment": deployment.as_dict() if deployment else None,
        "bento": {"tag": tag, "manifest": manifest},
        "stages": _stage_entries(settings, task, versions),
        "training_rows": {"count": len(rows), "ids": rows},
    }
