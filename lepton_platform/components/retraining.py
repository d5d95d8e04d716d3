"""When a task is built, watched and retrained: its jobs, schedules and sensors."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition as AssetJob

from lepton_platform.components.dead_runs import end_dead_runs, was_killed
from lepton_platform.components.failures import failed_steps, words
from lepton_platform.components.live import (
    DEPLOYMENT,
    DRIFT,
    DRIFT_CHECK,
    LABELS,
    ONLINE,
    PREDICTIONS,
    QUALITY_CHECK,
    SERVED_QUALITY,
)
from lepton_platform.components.stage_asset import stage_keys
from lepton_platform.components.sync import sync
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.retraining import OPEN, Kind, RetrainBook, Wish
from lepton_platform.pipeline.feedback import enough_labels
from lepton_platform.settings import Settings, get_settings

CHECKS: dict[Kind, tuple[str, str]] = {  # whose failure is a wish: asset, check
    "drift": (DRIFT, DRIFT_CHECK),
    "quality": (SERVED_QUALITY, QUALITY_CHECK),
}
COUNTED_DAYS = 30  # labels that are older wait for another reason
MOST_TRIES = 3  # of a retraining whose process was killed
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
            f"{task}_watch",
            selection=[key(DRIFT), key(SERVED_QUALITY)],
            description="Compare what is served with what was trained on, and how good it is with what was tested.",
        ),
    )


def schedules(task: str, made: Jobs, retrain_cron: str, drift_cron: str) -> list:
    """Retrain whatever happens, keep the hours, look for drift. UTC."""
    return [
        weekly_retrain(task, made, retrain_cron),
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


def weekly_retrain(task: str, made: Jobs, cron: str) -> dg.ScheduleDefinition:
    """The schedule asks the book, like everyone; the sensor launches, so that it never doubles what drift asked for."""

    @dg.schedule(
        name=f"{task}_weekly_retrain",
        job=made.retrain,
        cron_schedule=cron,
        execution_timezone="UTC",
        default_status=RUNNING,
        description="Asks for a retrain whatever happens.",
    )
    def on_time(context: dg.ScheduleEvaluationContext) -> dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        RetrainBook(get_settings()).wish(task, Wish("schedule", at, f"It is {at:%A, %H:%M} UTC."))
        return dg.SkipReason("Asked for; the sensor of the retraining launches it.")

    return on_time


def alarms(instance: dg.DagsterInstance, task: str) -> list[Wish]:
    """The checks whose last word was no."""
    keys: dict[Kind, dg.AssetCheckKey] = {
        kind: dg.AssetCheckKey(dg.AssetKey([task, asset]), check) for kind, (asset, check) in CHECKS.items()
    }
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys.values()))
    found = []
    for kind, key in keys.items():
        record = records.get(key)
        event = record.event if record else None
        said = event.dagster_event.asset_check_evaluation_data if event and event.dagster_event else None
        if event is not None and said is not None and not said.passed:
            found.append(Wish(kind, datetime.fromtimestamp(event.timestamp, UTC), said.description or kind))
    return found


def wishes(settings: Settings, instance: dg.DagsterInstance, book: RetrainBook, task: str) -> list[Wish]:
    """What asks for a retraining now, beside what is written in the book."""
    last = book.last(task)
    long_ago = datetime.now(UTC) - timedelta(days=COUNTED_DAYS)
    counted = enough_labels(settings, task, long_ago if last is None else max(last.requested_at, long_ago))
    return [*alarms(instance, task), *([counted] if counted else [])]


def close_ended(settings: Settings, instance: dg.DagsterInstance, task: str) -> int:
    """Note what became of the request whose run has ended; how many runs it has had.

    One whose process was killed is asked for again: what its stages had finished is not done again. One that failed is
    told to people, until one ends as it should.
    """
    book = RetrainBook(settings)
    last = book.last(task)
    if last is None or last.state not in OPEN:
        return 0
    runs = instance.get_runs(dg.RunsFilter(tags={REQUEST_TAG: last.id}))
    if not runs:
        if last.state == "running":
            book.mark(last.id, "failed")
            _alert(settings, task, f"Its run {last.run_id} is in Dagster no more; whether it ended nobody knows.")
        return 0
    newest = runs[0]
    if newest.status in GOING:
        book.mark(last.id, "running", newest.run_id)
    elif newest.status == dg.DagsterRunStatus.SUCCESS:
        book.mark(last.id, "done", newest.run_id)
        Alerts(settings).cleared(task, "retrain", "A retraining has ended as it should.")
    elif newest.status == dg.DagsterRunStatus.CANCELED:
        book.mark(last.id, "failed", newest.run_id)  # whoever did that knows
    elif was_killed(instance, newest) and len(runs) < MOST_TRIES:
        book.mark(last.id, "requested", newest.run_id)
    else:
        book.mark(last.id, "failed", newest.run_id)
        _alert(settings, task, _why_failed(instance, newest, len(runs)))
    return len(runs)


def _why_failed(instance: dg.DagsterInstance, run: dg.DagsterRun, tries: int) -> str:
    if was_killed(instance, run):
        return f"Its process ended {tries} times before it was done."
    return " ".join(words(event) for event in failed_steps(instance, run.run_id))


def _alert(settings: Settings, task: str, why: str) -> None:
    Alerts(settings).raised(task, "retrain", why)


def retrain_sensor(task: str, made: Jobs, cooldown_hours: float) -> dg.SensorDefinition:
    """Launches what drift, quality, labels and the schedule ask for: once, never two at a time, with a cooldown."""

    @dg.sensor(
        name=f"{task}_retrain_on_request",
        job=made.retrain,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Drift, a loss of quality, new labels and the schedule ask for a retrain; all that ask get one.",
    )
    def on_request(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        settings, instance = get_settings(), context.instance
        book = RetrainBook(settings)
        end_dead_runs(instance)
        tries = close_ended(settings, instance, task)
        going = bool(instance.get_runs(dg.RunsFilter(job_name=f"{task}_retrain", statuses=GOING), limit=1))
        asked = wishes(settings, instance, book, task)
        answer = book.ask(task, asked, datetime.now(UTC), going, timedelta(hours=cooldown_hours))
        if answer.request is None:
            yield dg.SkipReason(answer.why)
            return
        identifier = answer.request.id
        key = identifier if not tries else f"{identifier}-{tries + 1}"  # Dagster launches a key once
        yield dg.RunRequest(run_key=key, tags={REQUEST_TAG: identifier})

    return on_request


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
