"""What follows the reproducible graph: assets that act on live state, and are Dagster's alone."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from lepton_platform.components.dead_runs import mark_process
from lepton_platform.pipeline import operate
from lepton_platform.pipeline.feedback import check_quality
from lepton_platform.pipeline.served import HOUR
from lepton_platform.pipeline.versioning import tree_hash
from lepton_platform.settings import get_settings
from lepton_platform.stage import StageFailed

LABELS, ONLINE, DEPLOYMENT, PREDICTIONS, DRIFT = "labels", "online_features", "deployment", "predictions", "drift"
SERVED_QUALITY = "served_quality"
DRIFT_CHECK, QUALITY_CHECK = "no_drift", "as_good_as_tested"
FIRST_HOUR = "2026-01-01-00:00"
HOURS = dg.HourlyPartitionsDefinition(start_date=FIRST_HOUR, end_offset=1)  # the hour that is going on counts


def _asset(
    task: str, name: str, owners: list[str], kinds: set[str], deps: list[str], description: str, **more: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Dagster's decorator, for the asset ``[task, name]``."""
    return dg.asset(
        key=dg.AssetKey([task, name]),
        deps=[dg.AssetKey([task, dep]) for dep in deps],
        description=description,
        group_name=task,
        owners=owners,
        kinds=kinds,
        **more,
    )


def labels_asset(task: str, owners: list[str]) -> dg.AssetsDefinition:
    about = "Labelled feedback from the service's log, as rows that the next training set takes in."

    @_asset(task, LABELS, owners, {"json"}, [], about)
    def labels(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        mark_process(context.instance, context.run.run_id)
        done = operate.export_labels(get_settings(), task)
        figures = {name: getattr(done, name) for name in ("added", "changed", "contradicted", "unknown", "missing")}
        version = dg.DataVersion(tree_hash(operate.labels_file(get_settings(), task)))
        return dg.MaterializeResult(metadata={"dagster/row_count": done.total, **figures}, data_version=version)

    return labels


def online_features_asset(task: str, owners: list[str]) -> dg.AssetsDefinition:
    about = "The feature views as Feast knows them, and the latest values of every key where a service reads them."

    @_asset(task, ONLINE, owners, {"feast"}, ["features"], about)
    def online_features(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        mark_process(context.instance, context.run.run_id)
        try:
            version, keys = operate.publish_features(get_settings(), task)
        except StageFailed as failure:
            raise dg.Failure(failure.message, metadata=failure.details, allow_retries=False) from None
        figures = {f"{view}_keys": count for view, count in keys.items()}
        return dg.MaterializeResult(metadata=figures, data_version=dg.DataVersion(version))

    return online_features


def deployment_asset(task: str, owners: list[str]) -> dg.AssetsDefinition:
    about = "Which Bento serves: a challenger takes over unless it is worse on the same frozen rows."

    @_asset(task, DEPLOYMENT, owners, {"bentoml"}, ["bento", "dataset"], about)
    def deployment(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        mark_process(context.instance, context.run.run_id)
        try:
            decision = operate.deploy(get_settings(), task, context.run.run_id)
        except StageFailed as failure:
            raise dg.Failure(failure.message, metadata=failure.details, allow_retries=False) from None
        context.log.info(decision.reason)
        row = decision.deployment
        figures = {"tag": row.tag, "state": row.state, "promoted": decision.promoted, "reason": decision.reason}
        compared = {"comparison": dg.MetadataValue.json(row.comparison)} if row.comparison else {}
        version = dg.DataVersion(f"{row.tag}/{row.state}")
        return dg.MaterializeResult(metadata={**figures, **compared}, data_version=version)

    return deployment


def _kept(path: Path) -> dict[str, Any]:
    """What is told of an hour's file; of an hour without answers there is none."""
    import pyarrow.parquet as pq

    rows = pq.read_metadata(path).num_rows if path.is_file() else 0
    return {"dagster/row_count": rows, "file": dg.MetadataValue.path(str(path))}


def predictions_asset(task: str, owners: list[str]) -> dg.AssetsDefinition:
    about = "What the service answered within the hour, as one Parquet file, and hours before that were missed; times are UTC."

    @_asset(task, PREDICTIONS, owners, {"parquet"}, [DEPLOYMENT], about, partitions_def=HOURS)
    def predictions(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        mark_process(context.instance, context.run.run_id)
        settings, start = get_settings(), context.partition_time_window.start
        for missed in operate.missed_hours(settings, task, start.strftime(HOUR)):
            partition = datetime.strptime(missed, HOUR).strftime(HOURS.fmt)
            known = partition if HOURS.has_partition_key(partition) else None
            kept = _kept(operate.keep_hour(settings, task, missed))
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=known, metadata=kept))
        return dg.MaterializeResult(metadata=_kept(operate.keep_hour(settings, task, start.strftime(HOUR))))

    return predictions


def drift_asset(task: str, owners: list[str], window_hours: float) -> dg.AssetsDefinition:
    about = f"What was served in the last {window_hours:g} hours, compared with what the model was trained on."
    key = dg.AssetKey([task, DRIFT])

    @_asset(
        task,
        DRIFT,
        owners,
        {"evidently"},
        [PREDICTIONS],
        about,
        check_specs=[dg.AssetCheckSpec(DRIFT_CHECK, asset=key, description="No signal has drifted.")],
    )
    def drift(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        mark_process(context.instance, context.run.run_id)
        try:
            found = operate.check_drift(get_settings(), task, timedelta(hours=window_hours), datetime.now(UTC))
        except StageFailed as failure:
            raise dg.Failure(failure.message, metadata=failure.details, allow_retries=False) from None
        figures = {"state": found.state, "why": found.why, "rows": found.n_served, "share": found.share}
        report = {"report": dg.MetadataValue.path(found.html)} if found.html else {}
        signals = {s.name: dg.MetadataValue.float(s.distance) for s in found.signals}
        result = dg.AssetCheckResult(
            check_name=DRIFT_CHECK,
            asset_key=key,
            passed=not found.failed,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.why,
            metadata={**figures, **report},
        )
        yield dg.MaterializeResult(metadata={**figures, **report, **signals}, check_results=[result])

    return drift


def served_quality_asset(task: str, owners: list[str], window_hours: float) -> dg.AssetsDefinition:
    about = f"How good the answers of the last {window_hours:g} hours were by what people said of them since."
    key = dg.AssetKey([task, SERVED_QUALITY])
    said = "Not below what the frozen test said, beyond the intervals."

    @_asset(
        task,
        SERVED_QUALITY,
        owners,
        {"python"},
        [PREDICTIONS],
        about,
        check_specs=[dg.AssetCheckSpec(QUALITY_CHECK, asset=key, description=said)],
    )
    def served_quality(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        mark_process(context.instance, context.run.run_id)
        try:
            found = check_quality(get_settings(), task, timedelta(hours=window_hours), datetime.now(UTC))
        except StageFailed as failure:
            raise dg.Failure(failure.message, metadata=failure.details, allow_retries=False) from None
        plain = {name: value for name, value in found.as_dict().items() if value is not None and name != "counts"}
        figures = {**plain, **vars(found.counts)}
        result = dg.AssetCheckResult(
            check_name=QUALITY_CHECK,
            asset_key=key,
            passed=not found.failed,
            severity=dg.AssetCheckSeverity.WARN,
            description=found.why,
            metadata=figures,
        )
        yield dg.MaterializeResult(metadata=figures, check_results=[result])

    return served_quality


def assets(
    task: str, owners: list[str], window_hours: float, quality_window_hours: float = 168.0
) -> list[dg.AssetsDefinition]:
    return [
        labels_asset(task, owners),
        online_features_asset(task, owners),
        deployment_asset(task, owners),
        predictions_asset(task, owners),
        drift_asset(task, owners, window_hours),
        served_quality_asset(task, owners, quality_window_hours),
    ]
