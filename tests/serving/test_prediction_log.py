"""The durable log by itself: ids, segments, torn ends, a full disk, compaction."""

import json
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.serving import log_reader, prediction_log
from lepton_platform.serving.compaction import compact_hour, hour_end
from lepton_platform.serving.ids import Ids, hour_of, time_of
from lepton_platform.serving.log_reader import (
    FEEDBACK,
    PREDICTIONS,
    compacted,
    find,
    hours,
    read_all,
    read_log,
    read_rows,
    rows_of,
    segments,
)
from lepton_platform.serving.prediction_log import DurableLog

TASK = "sentiment"
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def row(text: str, **values: Any) -> dict[str, Any]:
    scores = {"rotten": 0.25, "fresh": 0.75}
    made = {"model": f"{TASK}:1", "deployment": "7", "text": text, "label": "fresh", "score": 0.75, "scores": scores}
    return {**made, "latency_ms": 1.5, **values}


def write(folder: Path, *texts: str, kind: str = PREDICTIONS) -> list[str]:
    log = DurableLog(folder / TASK, kind)
    try:
        return [identifier for text in texts for identifier in log.append([row(text)])]
    finally:
        log.close()


def only_hour(folder: Path) -> str:
    [hour] = hours(folder, TASK)
    return hour


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), max_size=5))
def test_ids_increase_and_tell_their_time(counts: list[int]) -> None:
    ids, before = Ids(), datetime.now(UTC)
    taken = [identifier for count in counts for identifier in ids.take(count)]
    assert taken == sorted(set(taken))
    for identifier in taken[:: max(1, len(taken) // 20)]:
        moment = time_of(identifier)
        assert moment is not None and abs((moment - before).total_seconds()) < 60
        assert hour_of(identifier) == moment.strftime("%Y-%m-%dT%H")


def test_ids_do_not_go_back_with_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, now = Ids(), time.time_ns()
    first = ids.take(1)
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    assert ids.take(1) > first


@pytest.mark.parametrize(
    "text", ["", "x", "01a20d27-e790-40b7-9608-134bd1ddc0b7", "01A20D27-E790-70B7-9608-134BD1DDC0B7"]
)
def test_what_is_no_id_has_no_time(text: str) -> None:
    assert time_of(text) is None


@settings(max_examples=40, deadline=None)  # each writes to the disk
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=30))
def test_every_row_is_read_and_found_as_it_was_written(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = write(folder, *texts)
        rows = [r for hour in hours(folder, TASK) for r in read_rows(folder, TASK, hour)]
        assert [(r["id"], r["text"]) for r in rows] == list(zip(ids, texts, strict=True))
        assert [find(folder, TASK, i) for i in ids] == rows


def test_an_unknown_id_is_not_found(tmp_path: Path) -> None:
    known = write(tmp_path, *map(str, range(100)))
    later = Ids().take(3)
    between = known[50][:-1] + ("0" if known[50][-1] != "0" else "1")
    assert all(find(tmp_path, TASK, i) is None for i in [*later, between, "nonsense"])


def test_a_row_cut_short_and_an_unused_end_are_not_rows(tmp_path: Path) -> None:
    ids = write(tmp_path, "one", "two", "three")
    [segment] = segments(tmp_path, TASK, only_hour(tmp_path))
    whole = segment.read_bytes()
    for cut in range(len(whole)):
        for tail in (b"", b"\0" * 4096):
            segment.write_bytes(whole[:cut] + tail)
            kept = whole[:cut].count(b"\n")
            assert [r["id"] for r in rows_of(segment)] == ids[:kept]
            assert [find(tmp_path, TASK, i) is not None for i in ids] == [n < kept for n in range(3)]


def test_an_open_log_can_be_read(tmp_path: Path) -> None:
    log = DurableLog(tmp_path / TASK, PREDICTIONS)
    [identifier] = log.append([row("now")])
    [segment] = segments(tmp_path, TASK, only_hour(tmp_path))
    assert segment.stat().st_size == prediction_log.ALLOCATED_BYTES
    found = find(tmp_path, TASK, identifier)
    assert found is not None and found["text"] == "now"
    log.close()
    assert segment.read_bytes().count(b"\0") == 0


def test_many_writers_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one flush is on its way the others gather: far fewer flushes than rows."""
    import os

    flushes: list[int] = []
    real = os.fdatasync

    def slow(handle: int) -> None:
        flushes.append(handle)
        time.sleep(0.005)
        real(handle)

    monkeypatch.setattr(os, "fdatasync", slow)
    log = DurableLog(tmp_path / TASK, PREDICTIONS)
    ids: list[str] = []
    threads = [threading.Thread(target=lambda n=n: ids.extend(log.append([row(str(n))]))) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert len(set(ids)) == 64 and len(flushes) < 32
    assert sorted(r["id"] for r in read_rows(tmp_path, TASK, only_hour(tmp_path))) == sorted(ids)


def test_a_new_segment_when_one_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction_log, "SEGMENT_BYTES", 1000)
    ids = write(tmp_path, *["x" * 300] * 10)
    assert len(segments(tmp_path, TASK, only_hour(tmp_path))) > 2
    assert all(find(tmp_path, TASK, i) for i in ids)


FULL_DISK = """
import json, resource, signal, sys
from pathlib import Path
from lepton_platform.serving.prediction_log import DurableLog, LogUnavailable
log = DurableLog(Path(sys.argv[1]), "predictions")
good = log.append([{"text": "before"}])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    log.append([{"text": "x" * 2_000_000}])
    refused = False
except LogUnavailable:
    refused = True
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
good += log.append([{"text": "after"}])
log.close()
print(json.dumps({"refused": refused, "good": good}))
"""


def test_a_disk_that_refuses_is_an_error_and_then_forgotten(tmp_path: Path) -> None:
    """A write fails half-way (a real limit of the kernel): that row is refused, earlier and later rows are whole."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / TASK)], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["refused"]
    rows = [r for hour in hours(tmp_path, TASK) for r in read_rows(tmp_path, TASK, hour)]
    assert [r["id"] for r in rows] == said["good"] and [r["text"] for r in rows] == ["before", "after"]


def test_an_hour_becomes_parquet(tmp_path: Path) -> None:
    ids = write(tmp_path, "one", "two")
    hour = only_hour(tmp_path)
    before = read_log(tmp_path, TASK, hour)
    assert before.column_names[:2] == ["id", "at"] and {"text", "label", "p_fresh", "p_rotten"} <= set(
        before.column_names
    )
    path = compact_hour(tmp_path, TASK, hour, now=hour_end(hour))  # not settled yet: the segments stay
    assert segments(tmp_path, TASK, hour) and read_log(tmp_path, TASK, hour) == before
    ids += write(tmp_path, "three")
    assert compact_hour(tmp_path, TASK, hour, now=LATER) == path == compacted(tmp_path, TASK, hour)
    assert not segments(tmp_path, TASK, hour)
    assert read_log(tmp_path, TASK, hour)["id"].to_pylist() == ids
    found = find(tmp_path, TASK, ids[1])
    assert found is not None and found["text"] == "two" and found["scores"] == {"rotten": 0.25, "fresh": 0.75}
    content = path.read_bytes()
    assert compact_hour(tmp_path, TASK, hour, now=LATER).read_bytes() == content
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_feedback_reads_as_labels_of_predictions(tmp_path: Path) -> None:
    [prediction] = write(tmp_path, "one")
    log = DurableLog(tmp_path / TASK, FEEDBACK)
    log.append([{"prediction_id": prediction, "label": "rotten"}])
    log.close()
    for now in (None, LATER):  # from segments, then from Parquet
        if now:
            compact_hour(tmp_path, TASK, only_hour(tmp_path), now)
        [table] = read_all(tmp_path, TASK, FEEDBACK)
        assert table.select(["id", "label"]).to_pylist() == [{"id": prediction, "label": "rotten"}]


def test_an_hour_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    assert read_log(tmp_path, TASK, "2026-01-01T00").column_names == ["id", "at"]
    path = compact_hour(tmp_path, TASK, "2026-01-01T00")
    assert path.is_file() and read_log(tmp_path, TASK, "2026-01-01T00").num_rows == 0


@pytest.mark.parametrize("reader", ["read_rows", "read_log", "find"])
def test_an_hour_that_is_compacted_between_a_look_and_the_next_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    log = DurableLog(tmp_path / TASK, PREDICTIONS)
    ids = log.append([row(f"film {number}") for number in range(40)])
    log.close()
    hour, listed = only_hour(tmp_path), log_reader.segments

    def compacted_then(*given: Any) -> list[Path]:
        found = listed(*given)
        monkeypatch.setattr(log_reader, "segments", listed)
        compact_hour(tmp_path, TASK, hour, now=LATER)
        return found

    monkeypatch.setattr(log_reader, "segments", compacted_then)
    if reader == "find":
        found = find(tmp_path, TASK, ids[7])
        assert found is not None and found["text"] == "film 7"
    else:
        rows = read_rows(tmp_path, TASK, hour) if reader == "read_rows" else read_log(tmp_path, TASK, hour).to_pylist()
        assert [one["id"] for one in rows] == ids
    assert not listed(tmp_path, TASK, hour)
