"""What acts on live state after the reproducible graph: deployment, the served hours, drift, labels. No orchestrator here."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_platform.pipeline.lineage import all_versions
from lepton_platform.pipeline.params import section
from lepton_platform.pipeline.run import alone, exclusive
from lepton_platform.pipeline.stages import get_stage
from lepton_platform.pipeline.versioning import tree_hash
from lepton_platform.settings import Settings
from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    from lepton_platform.monitoring.drift import DriftResult
    from lepton_platform.monitoring.feedback import Exported
    from lepton_platform.serving.deployments import Deployment
    from lepton_platform.serving.offers import Decision
    from lepton_platform.serving.params import RolloutParams


def publish_features(settings: Settings, task: str) -> tuple[str, dict[str, int]]:
    """Register the task's feature views with Feast and fill the online store; the version, and keys a view.

    What is published already is not published again.
    """
    from lepton_platform.features.store import publish

    stage = get_stage("features")
    with exclusive(settings, stage, task):  # no other run changes the folder while it is read
        folder = settings.path(stage.path(task))
        if not folder.is_dir():
            raise StageFailed(f"{task} has no features in {folder}. `lepton run {task} --upto features` makes them.")
        version = tree_hash(folder)
        return version, publish(settings, task, version=version)


def is_published(settings: Settings, task: str) -> bool:
    """Can the features in the workspace be read online, or are there none?"""
    from lepton_platform.features.store import is_published as known

    folder = settings.path(get_stage("features").path(task))
    return not folder.is_dir() or known(settings, task, version=tree_hash(folder))


def bento_folder(settings: Settings, task: str) -> Path:
    return settings.path(get_stage("bento").path(task))


def rollout_params(settings: Settings, task: str) -> "RolloutParams":
    """The section ``serve.rollout``."""
    from lepton_platform.serving.params import ServeParams

    return section(settings.workspace, task, "serve", ServeParams).rollout


def deploy(
    settings: Settings,
    task: str,
    run_id: str | None,
    *,
    bento: Path | None = None,
    steps: Sequence[float] | None = None,
    every_s: float | None = None,
    again: bool = False,
) -> "Decision":
    """Offer a Bento, else the one in the workspace: it serves if there is no other, or if it is not worse.

    ``steps`` and ``every_s``: by a canary's shares; else those of ``serve.rollout``. ``again``: see ``offers.deploy``.
    """
    from lepton_platform.serving import offers

    rollout = rollout_params(settings, task)
    decision = offers.deploy(
        settings,
        task,
        bento=bento or _built(settings, task),
        test=settings.path(get_stage("dataset").path(task), "test"),
        recent=settings.path(get_stage("dataset").path(task), "production"),
        params=rollout,
        judge=load_part(task, "metrics").EVALUATOR,
        run_id=run_id,
        steps=rollout.canary if steps is None else steps,
        every_s=every_s or rollout.every_s,
        again=again,
    )
    if decision.promoted and decision.changed:  # at once; of a canary its ramp tells
        from lepton_platform.monitoring.alerts import Alerts

        Alerts(settings).promoted(task, decision.deployment.tag)
    return decision


def shadow(settings: Settings, task: str, *, bento: Path | None = None) -> "Deployment":
    """Let a Bento, else the one in the workspace, be asked beside the champion."""
    from lepton_platform.serving import offers

    return offers.shadow(settings, task, bento or _built(settings, task))


def _built(settings: Settings, task: str) -> Path:
    bento = bento_folder(settings, task)
    if not bento.is_dir():
        raise StageFailed(f"{task} has no Bento in {bento}. `lepton run {task}` builds it.")
    return bento


def is_judged(settings: Settings, task: str) -> bool:
    """Has the Bento in the workspace been offered, or is there none?"""
    from lepton_platform.serving.deployments import Deployments
    from lepton_platform.serving.store import tag_of

    bento = bento_folder(settings, task)
    return not bento.is_dir() or Deployments(settings).by_tag(task, tag_of(bento)) is not None


def champion_tag(settings: Settings, task: str) -> str:
    """The Bento that serves; ``StageFailed`` where none does."""
    from lepton_platform.serving.deployments import champion

    serving = champion(settings, task)
    if serving is None:
        raise StageFailed(f"{task} has no deployment yet. `lepton run {task}` deploys it.")
    return serving.tag


def champion_versions(settings: Settings, task: str) -> dict[str, str]:
    """The stage versions that the serving Bento was made of; ``StageFailed`` where nothing is deployed."""
    from lepton_platform.serving.lineage import stored_manifest

    return all_versions(settings, task, stored_manifest(settings, champion_tag(settings, task))["versions"])


def check_drift(settings: Settings, task: str, window: timedelta, now: datetime) -> "DriftResult":
    """Compare what was served within the window with what the serving model was trained on."""
    import pyarrow as pa

    from lepton_platform.monitoring import drift as room
    from lepton_platform.monitoring.painter import Painter
    from lepton_platform.pipeline.references import reference_of
    from lepton_platform.pipeline.served import any_since
    from lepton_platform.pipeline.served import window as served

    params = section(settings.workspace, task, "drift", room.DriftParams)
    versions, since = champion_versions(settings, task), now - window
    out = settings.path("reports", task, "drift")
    out.mkdir(parents=True, exist_ok=True)
    with Painter() if any_since(settings, task, since) else nullcontext() as painter:  # it takes longest to get ready
        current = served(settings, task, since, champion_tag(settings, task), params.max_rows)
        found = room.drift(
            known=reference_of(settings, task, versions),
            window=current or room.Window(pa.table({"id": pa.array([], pa.string())}), 0),
            part=load_part(task, "drift"),  # pyright: ignore[reportArgumentType]
            params=params,
            downloads=settings.cache_dir,
            out=out,
            at=now,
            workspace=settings.evidently_dir,
            project=task,
            metadata={"dataset": versions["dataset"]},
            painter=painter,
        )
    _alert(settings, task, found, now)
    return found


def keep_hour(settings: Settings, task: str, hour: str) -> Path:
    """The hour of the log as one Parquet file, its path, and what was served in it counted for the drift checks to come.

    One process at a time: several partitions that are caught up with find the same hours missed.
    """
    from lepton_platform.serving.compaction import compact_hour

    with alone(settings, f"hours@{task}"):
        path = compact_hour(settings.predictions_dir, task, hour)
        count_served(settings, task, hour)
    return path


def missed_hours(settings: Settings, task: str, before: str) -> list[str]:
    """Earlier hours that nobody has kept, as where the machine was off when it was their turn.

    No media are swept that came after the first of them.
    """
    from lepton_platform.serving.log_reader import FEEDBACK, MIRRORED, PREDICTIONS, hours, segments

    logs, kinds = settings.predictions_dir, (PREDICTIONS, MIRRORED, FEEDBACK)
    return [hour for hour in hours(logs, task) if hour < before and any(segments(logs, task, hour, k) for k in kinds)]


def count_served(settings: Settings, task: str, hour: str) -> int:
    """Count what was served in the hour, for the drift checks to come; how many rows."""
    from lepton_platform.monitoring.drift import DriftParams
    from lepton_platform.pipeline.served import count_hour

    most = section(settings.workspace, task, "drift", DriftParams).max_rows
    return sum(one.rows for one in count_hour(settings, task, hour, most).values())


def _alert(settings: Settings, task: str, found: "DriftResult", at: datetime) -> None:
    """Drift is told once, and once when it is over; a window that was not judged says neither."""
    from lepton_platform.monitoring.alerts import Alerts

    alerts = Alerts(settings)
    if found.failed:
        alerts.raised(task, "drift", found.why, at)
    elif found.state == "passed":
        alerts.cleared(task, "drift", found.why, at)


def labels_file(settings: Settings, task: str) -> Path:
    """The labelled feedback that the stage ``raw`` reads."""
    return settings.path(dict(get_stage("raw").files)["labels"].format(task=task))


def export_labels(settings: Settings, task: str) -> "Exported":
    """Bring labelled feedback into ``data/<task>/labels.jsonl``, which the stage ``raw`` reads."""
    import pyarrow as pa

    from lepton_platform.monitoring import feedback as room
    from lepton_platform.pipeline.served import undisturbed
    from lepton_platform.serving.log_reader import FEEDBACK, read_all, read_log

    logs, labels = settings.predictions_dir, labels_file(settings, task)
    content, truth = load_part(task, "preprocess").CONTENT, getattr(load_part(task, "api"), "TRUTH", room.LABEL)

    def export() -> "Exported":
        said = list(read_all(logs, task, FEEDBACK))
        words = pa.concat_tables(said, promote_options="default") if said else read_log(logs, task, "never", FEEDBACK)
        predictions = read_all(logs, task, ids=set(words["id"].to_pylist()))
        return room.export_labels(predictions=predictions, feedback=words, labels=labels, inputs=[content], truth=truth)

    return undisturbed(export, logs / task)
