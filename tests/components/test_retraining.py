"""The sensor that launches retrainings, as the daemon calls it: one run for all that ask, or none and why."""

import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from lepton_platform.components import live, retraining
from lepton_platform.components.dead_runs import BORN_TAG, HOST_TAG, PID_TAG, mark_process, process_tags
from lepton_platform.monitoring.alerts import Alerts
from lepton_platform.monitoring.retraining import RetrainBook, RetrainRequest
from lepton_platform.settings import Settings

TASK = "sentiment"
JOB = f"{TASK}_retrain"
COOLDOWN_H = 24.0


def definitions(cooldown_hours: float, does: Callable[[], None] = lambda: None) -> dg.Definitions:
    """The task's jobs and sensor, over assets of the same keys that do nothing, or the same."""
    jobs = retraining.jobs(TASK)
    drift = dg.AssetKey([TASK, live.DRIFT])
    operated = {asset.key: asset for asset in live.assets(TASK, [], 24.0)}
    others = [*retraining.stage_keys(TASK), *(key for key in operated if key != drift)]

    def idle(key: dg.AssetKey) -> dg.AssetsDefinition:
        return dg.asset(key=key)(does)

    return dg.Definitions(
        assets=[*map(idle, others), operated[drift]],
        jobs=[jobs.retrain, jobs.watch],
        schedules=[retraining.weekly_retrain(TASK, jobs, "0 3 * * 1")],
        sensors=[retraining.retrain_sensor(TASK, jobs, cooldown_hours)],
    )


class Daemon:
    """Ticks the sensor and launches what it asks for, as Dagster's daemon does."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance, definitions: dg.Definitions) -> None:
        self.book, self.instance, self.definitions = RetrainBook(settings), instance, definitions

    def check_says(self, passed: bool, why: str = "Drift in 1 of 15 signals.") -> None:
        """The drift check's word, as its asset leaves it."""
        key = dg.AssetKey([TASK, live.DRIFT])
        said = dg.AssetCheckEvaluation(
            check_name=live.DRIFT_CHECK, asset_key=key, passed=passed, description=why, metadata={}
        )
        self.instance.report_runless_asset_event(said)

    def tick(self):
        repository = self.definitions.get_repository_def()
        sensor = repository.get_sensor_def(f"{TASK}_retrain_on_request")
        with dg.build_sensor_context(instance=self.instance, repository_def=repository) as context:
            return sensor.evaluate_tick(context)

    def schedule_says(self, at: datetime) -> None:
        """The tick of the weekly schedule, which launches nothing itself."""
        repository = self.definitions.get_repository_def()
        schedule = repository.get_schedule_def(f"{TASK}_weekly_retrain")
        with dg.build_schedule_context(instance=self.instance, scheduled_execution_time=at) as context:
            assert not schedule.evaluate_tick(context).run_requests

    def asks(self) -> list[dg.RunRequest]:
        return list(self.tick().run_requests)

    def why_not(self) -> str:
        found = self.tick()
        assert not found.run_requests
        return found.skip_message

    def launch(self, request: dg.RunRequest) -> dg.DagsterRun:
        """Queue the run with the request's tags, as the daemon does."""
        job = self.definitions.resolve_job_def(JOB)
        return self.instance.create_run_for_job(job, tags=dict(request.tags), status=dg.DagsterRunStatus.STARTED)

    def execute(self, request: dg.RunRequest, raise_on_error: bool = True) -> bool:
        """Run the request's job to its end; did it succeed?"""
        job = self.definitions.resolve_job_def(JOB)
        return job.execute_in_process(
            instance=self.instance, tags=dict(request.tags), raise_on_error=raise_on_error
        ).success

    def end_as_code_server(self, run: dg.DagsterRun) -> None:
        """What Dagster's code server writes, within a second, of a run whose process is gone."""
        self.instance.report_engine_event(f"Run execution process for {run.run_id} unexpectedly exited.", run)
        self.instance.report_run_failed(run)

    def requests(self) -> list[RetrainRequest]:
        return self.book.requests(TASK)


@pytest.fixture
def daemon(settings: Settings) -> Iterator[Daemon]:
    with dg.DagsterInstance.local_temp(str(settings.workspace)) as instance:
        yield Daemon(settings, instance, definitions(COOLDOWN_H))


def test_a_failed_check_asks_for_one_run_of_the_retraining(daemon):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    [asked] = daemon.requests()
    assert request.run_key == asked.id == request.tags[retraining.REQUEST_TAG]
    assert asked.reason == "drift: Drift in 1 of 15 signals."
    [again] = daemon.asks()  # the daemon was killed before it launched: the same key, which it launches once
    assert again.run_key == request.run_key and len(daemon.requests()) == 1


def test_a_silent_or_passed_check_asks_for_nothing(daemon):
    assert "Nothing asks" in daemon.why_not()
    daemon.check_says(passed=True)
    assert "Nothing asks" in daemon.why_not()
    assert daemon.requests() == []


def test_nothing_is_asked_while_the_run_goes_on(daemon):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    run = daemon.launch(request)
    daemon.check_says(passed=False)
    assert "in progress" in daemon.why_not()
    [asked] = daemon.requests()
    assert (asked.state, asked.run_id) == ("running", run.run_id)


def test_a_retraining_that_somebody_else_started_holds_the_alarm_until_it_ends(daemon):
    run = daemon.launch(dg.RunRequest(tags={}))
    daemon.check_says(passed=False)
    assert "in progress" in daemon.why_not()
    assert daemon.requests() == []
    daemon.instance.report_run_failed(run)
    assert len(daemon.asks()) == 1


def test_the_same_alarm_is_not_answered_again_after_the_run(daemon):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    daemon.execute(request)
    assert "Nothing asks" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["done"]


def test_a_new_alarm_waits_for_the_cooldown(daemon):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    daemon.execute(request)
    daemon.check_says(passed=False)
    assert "cooling down" in daemon.why_not()
    daemon.definitions = definitions(cooldown_hours=0)
    [next_request] = daemon.asks()
    assert next_request.run_key != request.run_key and len(daemon.requests()) == 2


def refuse() -> None:
    raise dg.Failure("The rows are too few. Add some.", allow_retries=False)


def alerts(settings: Settings) -> list[tuple[str, str, bool]]:
    """Of the task's retrainings: why each began, and why it is over, and whether it is."""
    found = Alerts(settings, []).of(TASK, "retrain")
    return [(one.why, one.resolved_why or "", one.resolved_at is not None) for one in found]


def test_a_retraining_that_failed_is_told_once_its_cooldown_holds_and_the_next_that_does_not_ends_it(daemon, settings):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    daemon.definitions = definitions(COOLDOWN_H, refuse)
    assert not daemon.execute(request, raise_on_error=False)
    daemon.check_says(passed=False)
    for _ in range(2):
        assert "cooling down" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["failed"]
    [(why, _, over)] = alerts(settings)
    assert "The rows are too few. Add some." in why and not over
    daemon.definitions = definitions(cooldown_hours=0)
    [request] = daemon.asks()
    assert daemon.execute(request)
    assert "Nothing asks" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["done", "failed"]
    assert [over for _, _, over in alerts(settings)] == [True]


def test_a_retraining_that_somebody_cancels_is_not_launched_again_and_alarms_nobody(daemon, settings):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    daemon.instance.report_run_canceled(daemon.launch(request))
    assert "Nothing asks" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["failed"] and alerts(settings) == []


def test_a_run_that_dagster_has_no_more_holds_up_nobody(daemon, settings):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    run = daemon.launch(request)
    assert "in progress" in daemon.why_not()
    daemon.instance.delete_run(run.run_id)
    assert "Nothing asks" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["failed"]
    daemon.check_says(passed=False)
    daemon.definitions = definitions(cooldown_hours=0)
    assert len(daemon.asks()) == 1


def label(settings: Settings, count: int) -> None:
    """So many answers that people said the truth of, as the service logs it."""
    from lepton_platform.serving.prediction_log import DurableLog

    folder = settings.predictions_dir / TASK
    ids = DurableLog(folder, "predictions").append([{"text": "good", "label": "fresh"} for _ in range(count)])
    words = DurableLog(folder, "feedback")
    words.append([{"prediction_id": identity, "label": "rotten"} for identity in ids])
    words.close()


def test_two_alarms_new_labels_and_the_schedule_at_the_same_minute_make_one_run(daemon, settings):
    (settings.workspace / "params.yaml").write_text(f"{TASK}: {{retrain: {{new_labels: 20}}}}\n")
    label(settings, 19)
    assert "Nothing asks" in daemon.why_not()
    label(settings, 1)
    daemon.schedule_says(datetime.now(UTC))
    daemon.check_says(passed=False)
    [first] = daemon.asks()
    daemon.check_says(passed=False)  # drift again, before the run was launched
    [again] = daemon.asks()
    assert first.run_key == again.run_key
    [request] = daemon.requests()
    assert sorted(wish.kind for wish in daemon.book.reasons(request.id)) == ["drift", "drift", "labels", "schedule"]
    daemon.execute(again)
    assert "Nothing asks" in daemon.why_not()
    assert len(daemon.requests()) == 1
    daemon.definitions = definitions(cooldown_hours=0)
    assert "Nothing asks" in daemon.why_not(), "what was answered asks no more"
    label(settings, 20)
    assert len(daemon.asks()) == 1 and len(daemon.requests()) == 2


@pytest.mark.parametrize("who", ["code server", "next tick"])
def test_a_retraining_whose_process_was_killed_is_launched_again_and_not_for_ever(daemon, settings, who):
    daemon.check_says(passed=False)
    keys = []
    for _ in range(retraining.MOST_TRIES):
        assert alerts(settings) == []
        [request] = daemon.asks()
        keys.append(request.run_key)
        run = daemon.launch(request)
        if who == "code server":
            daemon.end_as_code_server(run)
        else:
            daemon.instance.add_run_tags(run.run_id, {PID_TAG: "999999999", HOST_TAG: socket.gethostname()})
    assert len(set(keys)) == retraining.MOST_TRIES, "Dagster launches a key once"
    assert "Nothing asks" in daemon.why_not()
    [request] = daemon.requests()
    assert request.state == "failed"
    assert [why for why, _, _ in alerts(settings)] == ["Its process ended 3 times before it was done."]


def test_a_retraining_that_lives_is_left_alone(daemon):
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    mark_process(daemon.instance, daemon.launch(request).run_id)
    assert "in progress" in daemon.why_not()
    assert daemon.requests()[0].state == "running"


def test_another_process_with_the_same_pid_is_not_the_runs(daemon):
    """As after a restart of the machine."""
    daemon.check_says(passed=False)
    [request] = daemon.asks()
    run = daemon.launch(request)
    daemon.instance.add_run_tags(run.run_id, {**process_tags(), BORN_TAG: "1000000.00"})
    [again] = daemon.asks()
    assert again.run_key != request.run_key and again.tags == request.tags


def test_a_step_that_was_stopped_from_outside_has_not_failed(daemon):
    """SIGTERM, as `lepton down` sends it."""
    daemon.check_says(passed=False)
    [request] = daemon.asks()

    def stopped() -> None:
        raise DagsterExecutionInterruptedError

    daemon.definitions = definitions(COOLDOWN_H, stopped)
    assert not daemon.execute(request, raise_on_error=False)
    daemon.definitions = definitions(COOLDOWN_H)
    [again] = daemon.asks()
    assert daemon.execute(again)
    assert "Nothing asks" in daemon.why_not()
    assert [r.state for r in daemon.requests()] == ["done"]
