"""The hourly partition: its hour is kept as Parquet, and so are those that were missed."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import pyarrow.parquet as pq

from lepton_platform.components import live
from lepton_platform.pipeline import operate
from lepton_platform.serving.log_reader import hours
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.settings import Settings

TASK = "sentiment"
MISSED = ("2026-03-01T10", "2026-03-01T12")  # the machine was off when it was their turn


def served(settings: Settings) -> None:
    """Ten answers, and a word on each, in hours long past."""
    folder = settings.predictions_dir / TASK
    predictions, feedback = DurableLog(folder, "predictions"), DurableLog(folder, "feedback")
    row = {"text": "good", "label": "fresh", "score": 0.9, "model": "sentiment:1", "deployment": "1"}
    ids = predictions.append([row] * 10)
    feedback.append([{"prediction_id": identity, "label": "fresh"} for identity in ids])
    for log in (predictions, feedback):
        log.close()
    for hour in hours(settings.predictions_dir, TASK):
        for missed in MISSED:
            shutil.copytree(folder / hour, folder / missed, dirs_exist_ok=True)
        shutil.rmtree(folder / hour)


def kept(asset: dg.AssetsDefinition, instance: dg.DagsterInstance, hour: str) -> dict[str, int]:
    """Run the hour's partition; by partition, the rows that Dagster was told of."""
    result = dg.materialize([asset], partition_key=hour, instance=instance, selection=[asset.key])
    told = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {str(one.partition): int(one.metadata["dagster/row_count"].value) for one in told}  # pyright: ignore


def test_an_hour_that_was_missed_is_kept_with_the_next(settings: Settings) -> None:
    served(settings)
    [asset] = [one for one in live.assets(TASK, [], 24.0) if one.key.path[-1] == live.PREDICTIONS]
    with dg.instance_for_test() as instance:
        told = kept(asset, instance, "2026-03-01-11:00")
        assert told == {"2026-03-01-10:00": 10, "2026-03-01-11:00": 0}, "what comes later has its turn yet"
        told = kept(asset, instance, "2026-03-02-09:00")
        assert told == {"2026-03-01-12:00": 10, "2026-03-02-09:00": 0}
        assert kept(asset, instance, "2026-03-02-10:00") == {"2026-03-02-10:00": 0}
    folder = settings.predictions_dir / TASK
    for missed in MISSED:
        assert {path.name for path in (folder / missed).iterdir()} == {"predictions.parquet", "feedback.parquet"}


def test_several_who_catch_up_at_once_do_not_disturb_each_other(settings: Settings) -> None:
    served(settings)
    with ThreadPoolExecutor(6) as pool:
        for path in pool.map(lambda _: operate.keep_hour(settings, TASK, MISSED[0]), range(6)):
            assert pq.read_metadata(path).num_rows == 10
