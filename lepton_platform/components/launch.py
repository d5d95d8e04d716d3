"""A run of selected assets in this process, seen in Dagster's UI; and Dagster brought level with dvc.lock."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from lepton_platform.components import retraining, stage_asset
from lepton_platform.components.dead_runs import end_dead_runs, process_tags
from lepton_platform.components.failures import words
from lepton_platform.components.sync import sync
from lepton_platform.pipeline.ended import Ended
from lepton_platform.pipeline.params import workspace_tasks
from lepton_platform.pipeline.synced import mark_synced
from lepton_platform.settings import Settings
from lepton_platform.stage import Progress

Watch = Callable[[str, str], Progress]


@contextmanager
def _instance(settings: Settings) -> Iterator[dg.DagsterInstance]:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    settings.dagster_home.mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        yield instance


def _sync(settings: Settings, instance: dg.DagsterInstance) -> list[str]:
    told = [f"{task}/{stage}" for task in workspace_tasks(settings.workspace) for stage in sync(instance, task)]
    mark_synced(settings)
    return told


def sync_tasks(settings: Settings) -> list[str]:
    with _instance(settings) as instance:
        return _sync(settings, instance)


def materialize(
    settings: Settings, definitions: dg.Definitions, selected: list[str], force: bool, watch: Watch
) -> Ended:
    """Run the selected assets (``task/stage``) in this process and in the graph's order."""
    with _instance(settings) as instance:
        end_dead_runs(instance)
        _sync(settings, instance)
        ended = _execute(instance, definitions, selected, force, watch)
        mark_synced(settings)
    return ended


def _execute(
    instance: dg.DagsterInstance, definitions: dg.Definitions, selected: list[str], force: bool, watch: Watch
) -> Ended:
    job = definitions.resolve_implicit_global_asset_job_def()
    stage_asset.watcher = watch
    tags = {stage_asset.FORCE_TAG: str(force).lower()}
    return _ended(_in_process(job, instance, tags, [dg.AssetKey(name.split("/")) for name in selected]))


def _in_process(
    job: dg.JobDefinition, instance: dg.DagsterInstance, tags: dict[str, str], selected: list[dg.AssetKey] | None = None
) -> dg.ExecuteInProcessResult:
    return job.execute_in_process(
        instance=instance,
        asset_selection=selected,
        raise_on_error=False,
        tags={**process_tags(), **tags},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},  # the UI keeps every line
    )


def _ended(result: dg.ExecuteInProcessResult) -> Ended:
    ran = set()
    for event in result.get_asset_materialization_events():
        materialization = event.step_materialization_data.materialization
        reused = materialization.metadata.get("reused")
        if reused is None or not reused.value:
            ran.add("/".join(materialization.asset_key.path))
    return Ended(ran, [words(event) for event in result.all_events if event.is_step_failure])


def tick(
    settings: Settings, definitions: dg.Definitions, task: str, watch: Watch, cooldown_hours: float = 0.0
) -> Ended | str:
    """One look of the task's retraining sensor, as the daemon's, and the run that it asks for, in this process.

    Where it asks for none, why.
    """
    with _instance(settings) as instance:
        end_dead_runs(instance)
        jobs = retraining.jobs(task)
        sensor = retraining.retrain_sensor(task, jobs, cooldown_hours)
        repository = definitions.get_repository_def()
        with dg.build_sensor_context(instance=instance, repository_def=repository) as context:
            found = sensor.evaluate_tick(context)
        if not found.run_requests:
            return found.skip_message or "Nothing was asked for."
        stage_asset.watcher = watch
        _sync(settings, instance)
        job = definitions.resolve_job_def(f"{task}_retrain")
        ended = _ended(_in_process(job, instance, dict(found.run_requests[0].tags)))
        sensor_done(instance, settings, task)
        mark_synced(settings)
    return ended


def sensor_done(instance: dg.DagsterInstance, settings: Settings, task: str) -> None:
    """What became of the request is noted at once."""
    retraining.close_ended(settings, instance, task)
