"""The window of a drift check agrees with the log: hour by hour, while it grows, and after kill -9 of whoever was writing."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lepton_platform.monitoring import counted
from lepton_platform.pipeline import served
from lepton_platform.pipeline.served import HOUR, count_hour, window
from lepton_platform.serving import compaction
from lepton_platform.serving.compaction import compact_hour
from lepton_platform.serving.log_reader import hours, read_rows
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.settings import Settings, use_workspace

TASK, TAG, MOST = "sentiment", "sentiment:aaaa", 40
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
WRITER = """
import sys
from pathlib import Path
from lepton_platform.serving.prediction_log import DurableLog
log = DurableLog(Path(sys.argv[1]), "predictions")
while True:
    log.append([{"model": "sentiment:aaaa", "text": "A fine film.", "label": "fresh", "score": 0.75}] * 7)
    print("written", flush=True)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "params.yaml").write_text("sentiment: {}\n")
    return use_workspace(tmp_path)


def write(settings: Settings, count: int, tag: str = TAG, label: str = "fresh") -> list[str]:
    log = DurableLog(settings.predictions_dir / TASK, "predictions")
    made = {"model": tag, "deployment": "1", "text": "A fine film.", "label": label, "score": 0.75, "latency_ms": 1.0}
    ids = log.append([made] * count)
    log.close()
    return ids


def rows_in_the_log(settings: Settings) -> int:
    return sum(len(read_rows(settings.predictions_dir, TASK, hour)) for hour in hours(settings.predictions_dir, TASK))


def since(settings: Settings, moment: datetime = LONG_AGO):
    found = window(settings, TASK, moment, TAG, MOST)
    assert found is not None
    return found


def test_no_log_is_no_window(settings: Settings):
    assert window(settings, TASK, LONG_AGO, TAG, MOST) is None


def test_rows_that_join_the_hour_are_counted_and_other_models_are_not(settings: Settings):
    write(settings, 100)
    write(settings, 50, "sentiment:bbbb")
    assert since(settings).n_served == 100 and since(settings).sample.num_rows == MOST
    write(settings, 30, label="rotten")
    found = since(settings)
    assert found.n_served == found.counted.rows("label") == found.counted.rows("score") == 130
    assert set(found.sample["model"].to_pylist()) == {TAG}
    other = window(settings, TASK, LONG_AGO, "sentiment:cccc", MOST)
    assert other is not None and other.n_served == other.sample.num_rows == 0


def test_a_moment_within_the_hour_parts_it(settings: Settings):
    write(settings, 20)
    time.sleep(0.01)
    moment = datetime.now(UTC)
    ids = write(settings, 10)
    found = since(settings, moment)
    assert found.n_served == 10 and sorted(found.sample["id"].to_pylist()) == ids
    assert since(settings).n_served == 30


def test_a_count_that_holds_is_read_and_compaction_does_not_change_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    write(settings, 200)
    (hour,) = hours(settings.predictions_dir, TASK)
    before = count_hour(settings, TASK, hour, MOST)[TAG]
    with monkeypatch.context() as patched:
        patched.setattr(served, "_count", lambda *_: pytest.fail("it was counted twice"))
        assert count_hour(settings, TASK, hour, MOST)[TAG].ids == before.ids
    later = datetime.now(UTC) + timedelta(hours=2)
    path = compact_hour(settings.predictions_dir, TASK, hour, later)
    after = count_hour(settings, TASK, hour, MOST)[TAG]
    assert (after.rows, after.ids) == (before.rows, before.ids) and pq.read_metadata(path).num_rows == 200
    assert since(settings).sample.num_rows == MOST


def test_an_hour_that_is_compacted_while_it_is_counted_is_counted_whole(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    write(settings, 60)
    (hour,) = hours(settings.predictions_dir, TASK)
    count, later = served._count, datetime.now(UTC) + timedelta(hours=2)

    def compacted_meanwhile(*given):
        if not compaction.compacted(settings.predictions_dir, TASK, hour).is_file():
            compact_hour(settings.predictions_dir, TASK, hour, later)
        return count(*given)

    monkeypatch.setattr(served, "_count", compacted_meanwhile)
    assert count_hour(settings, TASK, hour, MOST)[TAG].rows == 60


def test_after_kill_9_of_the_writer_counts_and_log_agree(settings: Settings):
    """Counted while it is written, killed in mid-row, written on by another process."""
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(settings.predictions_dir / TASK)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for turn in range(30):
            assert writer.stdout.readline()
            if turn == 10:
                assert since(settings).n_served > 0
        writer.kill()
        writer.wait()
        writer.stdout.close()
        known = rows_in_the_log(settings)
        found = since(settings)
        assert known >= 7 * 30 and found.n_served == found.counted.rows("label") == known
    for hour in hours(settings.predictions_dir, TASK):
        compact_hour(settings.predictions_dir, TASK, hour, datetime.now(UTC) + timedelta(hours=2))
    assert since(settings).n_served == rows_in_the_log(settings) == known


def test_a_count_that_is_killed_leaves_nothing_that_counts(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    write(settings, 50)
    (hour,) = hours(settings.predictions_dir, TASK)
    child = os.fork()
    if child == 0:  # dies between the file and its name
        monkeypatch.setattr(counted.os, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        count_hour(settings, TASK, hour, MOST)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert since(settings).n_served == 50


def test_old_counts_make_room(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served, "KEPT_HOURS", 3)
    folder = settings.state_dir / "drift" / TASK / "hours"
    for number in range(6):
        moment = LONG_AGO + timedelta(hours=number)
        counted.save({}, folder / f"{moment.strftime(HOUR)}.parquet", "stamp")
    write(settings, 5)
    since(settings)
    kept = sorted(path.stem for path in folder.glob("*.parquet"))
    assert len(kept) == 3 and kept[-1] == hours(settings.predictions_dir, TASK)[-1]
