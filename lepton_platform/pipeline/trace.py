"""From a prediction's id to everything that made it: deployment, Bento, model, data, rows, parameters, commit, run."""

from typing import Any

from lepton_platform.pipeline.ledger import Attempt, Ledger
from lepton_platform.pipeline.stages import STAGES, Stage
from lepton_platform.pipeline.versioning import Versions
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed

TRAINING_SPLIT = "train"


def _made_by(attempt: Attempt | None) -> dict[str, Any]:
    if attempt is None:
        return {"note": "made elsewhere: this ledger has no record of the run"}
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


def training_rows(settings: Settings, version: str) -> list[str]:
    """The ids of the rows that the model of this data set version learned from, in order."""
    import pyarrow.parquet as pq

    with Versions(settings) as versions:
        files = versions.files(version)
    shards = sorted(name for name in files if name.startswith(f"{TRAINING_SPLIT}/part-"))
    return [row for name in shards for row in pq.read_table(files[name], columns=["id"])["id"].to_pylist()]


def _stage_entry(ledger: Ledger, task: str, stage: Stage, version: str) -> dict[str, Any]:
    return {"version": version, "made_by": _made_by(ledger.maker(task, stage.name, version))}


def chain(settings: Settings, task: str, versions: dict[str, str]) -> dict[str, Any]:
    """The ledger's account of each stage version that a Bento was made of."""
    ledger = Ledger(settings)
    return {s.name: _stage_entry(ledger, task, s, versions[s.name]) for s in STAGES if s.name in versions}


def all_versions(settings: Settings, task: str, versions: dict[str, str]) -> dict[str, str]:
    """The manifest's versions and, through the ledger, those of the stages before them (raw, clean …)."""
    ledger, found = Ledger(settings), dict(versions)
    for stage in reversed(STAGES):
        maker = ledger.maker(task, stage.name, found[stage.name]) if stage.name in found else None
        for name, version in (maker.inputs if maker else {}).items():
            found.setdefault(name, version)
    return found


def trace(settings: Settings, prediction_id: str) -> dict[str, Any]:
    """One call: the prediction and its whole past. ``StageFailed`` where the id is unknown."""
    from lepton_platform.serving.lineage import deployed_bento, find_prediction

    prediction = find_prediction(settings, prediction_id)
    if prediction is None:
        raise StageFailed(f"No prediction has the id {prediction_id!r} in the logs of {settings.predictions_dir}.")
    task = prediction["task"]
    bento = deployed_bento(settings, task, prediction["model"])
    versions = all_versions(settings, task, bento["manifest"].get("versions", {}))
    rows = training_rows(settings, versions["dataset"]) if "dataset" in versions else []
    return {
        "prediction": prediction,
        "deployment": bento["deployment"],
        "bento": {"tag": prediction["model"], "manifest": bento["manifest"]},
        "stages": chain(settings, task, versions),
        "training_rows": {"count": len(rows), "ids": rows},
    }
