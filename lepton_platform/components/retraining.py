"""When a task is built, watched and retrained: its jobs, schedules and sensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob

from lepton_platform.components.dead_runs import end_dead_runs
from lepton_platform.components.live import DEPLOYMENT, DRIFT, DRIFT_CHECK, LABELS, ONLINE, PREDICTIONS
from lepton_platform.components.stage_asset import stage_keys
from lepton_platform.components.sync import sync
from lepton_platform.monitoring.retraining import Alarm, RetrainBook
from lepton_platform.settings import get_settings

REQUEST_TAG = "lepton/retrain_request"
RUNNING = dg.DefaultScheduleStatus.RUNNING  # a loop that someone must first switch on is none
GOING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Jobs:
    """A task's jobs. ``hours`` is apart because its asset is partitioned."""

    retrain: AssetJob
    hours: AssetJob
    watch: AssetJob

    def all(self) -> list[AssetJob]:
        return [self.retrain, self.hours, self.watch]


def jobs(task: str) -> Jobs:
    key = lambda name: dg.AssetKey([task, name])  # noqa: E731
    return Jobs(
        retrain=dg.define_asset_job(
            f"{task}_retrain",
            selection=[key(LABELS), *stage_keys(task), key(ONLINE), key(DEPLOYMENT)],
            description="Take in labelled feedback, bring the graph up to date, offer the new Bento.",
        ),
        hours=dg.define_asset_job(
            f"{task}_hours",
            selection=[key(PREDICTIONS)],
            description="The service's log of an hour as a Parquet file.",
        ),
        watch=dg.define_asset_job(
            f"{task}_watch", selection=[key(DRIFT)], description="Compare what is served with what was trained on."
        ),
    )


def schedules(task: str, made: Jobs, retrain_cron: str, drift_cron: str) -> list:
    """Retrain whatever happens, keep the hours, look for drift. UTC."""
    return [
        dg.ScheduleDefinition(
            name=f"{task}_weekly_retrain",
            job=made.retrain,
            cron_schedule=retrain_cron,
            execution_timezone="UTC",
            default_status=RUNNING,
        ),
        dg.build_schedule_from_partitioned_job(
            made.hours, name=f"{task}_hourly_predictions", minute_of_hour=5, default_status=RUNNING
        ),
        dg.ScheduleDefinition(
            name=f"{task}_hourly_drift",
            job=made.watch,
            cron_schedule=drift_cron,
            execution_timezone="UTC",
            default_status=RUNNING,
        ),
    ]


def last_alarm(instance: dg.DagsterInstance, task: str) -> Alarm | None:
    """The drift check's last word."""
    key = dg.AssetCheckKey(dg.AssetKey([task, DRIFT]), DRIFT_CHECK)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    event = record.event if record else None
    found = event.dagster_event.asset_check_evaluation_data if event and event.dagster_event else None
    if event is None or found is None:
        return None
    at = datetime.fromtimestamp(event.timestamp, UTC)
    return Alarm(failed=not found.passed, at=at, reason=found.description or "drift")


def _close_ended(instance: dg.DagsterInstance, book: RetrainBook, task: str) -> None:
    """Note what became of the request whose run has ended."""
    last = book.last(task)
    if last is None or last.state not in {"requested", "running"}:
        return
    runs = instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: last.id}), limit=1)
    if runs and runs[0].status in GOING:
        book.mark(last.id, "running", runs[0].run_id)
    elif runs:
        done = runs[0].status == dg.DagsterRunStatus.SUCCESS
        book.mark(last.id, "done" if done else "failed", runs[0].run_id)


def drift_sensor(task: str, made: Jobs, cooldown_hours: float) -> dg.SensorDefinition:
    """Asks for a retrain when the drift check fails: not twice, not while one runs, not within the cooldown."""

    @dg.sensor(
        name=f"{task}_retrain_on_drift",
        job=made.retrain,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Drift asks for a retrain, once.",
    )
    def on_drift(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        book = RetrainBook(get_settings())
        _close_ended(context.instance, book, task)
        going = bool(context.instance.get_runs(dg.RunsFilter(job_name=f"{task}_retrain", statuses=GOING), limit=1))
        alarm = last_alarm(context.instance, task)
        answer = book.ask(task, alarm, datetime.now(UTC), going, timedelta(hours=cooldown_hours))
        if answer.request is None:
            yield dg.SkipReason(answer.why)
            return
        yield dg.RunRequest(run_key=answer.request.id, tags={REQUEST_TAG: answer.request.id})

    return on_drift


def sync_sensor(task: str) -> dg.SensorDefinition:
    """Keeps Dagster level with ``dvc.lock``: what `dvc repro` made is reported within half a minute."""

    @dg.sensor(
        name=f"{task}_dvc",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=dg.AssetSelection.assets(*stage_keys(task)),
        description="Tells Dagster what `dvc repro` made; ends runs whose process is gone.",
    )
    def on_lock(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = end_dead_runs(context.instance)
        lock = get_settings().workspace / "dvc.lock"
        stamp = str(lock.stat().st_mtime_ns) if lock.is_file() else ""
        if stamp == (context.cursor or ""):
            return dg.SkipReason("dvc.lock has not changed." + (f" Ended dead runs: {ended}." if ended else ""))
        going = context.instance.get_runs(dg.RunsFilter(statuses=GOING), limit=1)
        if going:
            return dg.SkipReason("A run is going on; its own events come first.")
        told = list(sync(context.instance, task))
        context.update_cursor(stamp)
        return dg.SkipReason(f"Told Dagster of: {', '.join(told)}." if told else "Dagster knew it all.")

    return on_lock
