"""Tell Dagster what ``dvc repro`` made: a materialisation a stage whose version in ``dvc.lock`` is new to it.

A stage that is a check has passed it, else it would have left nothing: the check is told with it.
"""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.data_version import (  # the tags that a step's own materialisation carries
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    extract_data_version_from_entry,
    get_input_data_version_tag,
    get_input_event_pointer_tag,
)

from lepton_platform.components.metadata import check_metadata, outcome_metadata
from lepton_platform.components.stage_asset import code_version, open_versions
from lepton_platform.pipeline import dvcfile
from lepton_platform.pipeline.run import Outcome, known_result
from lepton_platform.pipeline.stages import STAGES, Stage
from lepton_platform.settings import get_settings


def _known(instance: dg.DagsterInstance, key: dg.AssetKey) -> tuple[str | None, str | None, int | None]:
    """Data version, code version and storage id of Dagster's latest materialisation."""
    event = instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None, None, None
    version = extract_data_version_from_entry(event)
    record = instance.get_latest_data_version_record(key)
    tags = event.asset_materialization.tags or {}
    return version.value if version else None, tags.get(CODE_VERSION_TAG), record.storage_id if record else None


def _event(instance: dg.DagsterInstance, stage: Stage, task: str, version: str) -> dg.AssetMaterialization:
    settings = get_settings()
    tags = {
        DATA_VERSION_TAG: version,
        DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
        CODE_VERSION_TAG: code_version(stage, task),
        "lepton/face": "dvc",
    }
    for name in stage.inputs:
        upstream = dg.AssetKey([task, name])
        known, _, storage_id = _known(instance, upstream)
        tags[get_input_data_version_tag(upstream)] = known or ""
        tags[get_input_event_pointer_tag(upstream)] = str(storage_id) if storage_id is not None else "NULL"
    outcome = Outcome(task, stage.name, version, True, 0.0, known_result(settings, task, stage, version))
    metadata = outcome_metadata(settings, stage, outcome)
    return dg.AssetMaterialization(dg.AssetKey([task, stage.name]), metadata=metadata, tags=tags)


def _passed(stage: Stage, task: str, version: str) -> dg.AssetCheckEvaluation:
    assert stage.check is not None
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey([task, stage.name]),
        check_name=stage.check,
        passed=True,
        metadata=check_metadata(known_result(get_settings(), task, stage, version)),
        blocking=True,
    )


def sync(instance: dg.DagsterInstance, task: str) -> Iterator[str]:
    """Report what is fresh in DVC and unknown to Dagster, in the graph's order; yields the stages' names.

    Nothing, while ``dvc.yaml`` is older than the code: what DVC calls fresh was then made by other code.
    """
    if dvcfile.stale_files(get_settings().workspace):
        return
    recorded = open_versions().recorded([task])[task]
    for stage in STAGES:
        version = recorded[stage.name].version
        if recorded[stage.name].state != "fresh":
            continue
        data_version, code, _ = _known(instance, dg.AssetKey([task, stage.name]))
        if version and (data_version, code) != (version, code_version(stage, task)):
            instance.report_runless_asset_event(_event(instance, stage, task, version))
            if stage.check:
                instance.report_runless_asset_event(_passed(stage, task, version))
            yield stage.name
