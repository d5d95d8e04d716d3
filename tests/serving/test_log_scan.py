"""Scanning an hour: every row once, from segments and Parquet alike, media apart; what the reader reads is what it gives."""

from pathlib import Path

import pyarrow as pa
import pytest

from lepton_platform.serving import log_scan
from lepton_platform.serving.compaction import compact_hour
from lepton_platform.serving.log_reader import hours, read_log, segments
from lepton_platform.serving.log_scan import extent, scan
from lepton_platform.serving.media_store import MediaStore
from lepton_platform.serving.prediction_log import DurableLog

TASK = "some_task"


def written(log: Path, rows: list[dict], close: bool = True) -> list[str]:
    opened = DurableLog(log / TASK, "predictions")
    ids = [identifier for row in rows for identifier in opened.append([row])]
    if close:
        opened.close()
    return ids


def row(number: int, **more) -> dict:
    return {"model": "m:1", "text": f"text {number} ß \U0001f333", "label": "fresh", "score": number / 100, **more}


def scanned(log: Path) -> dict[str, dict]:
    found = [
        one
        for hour in hours(log, TASK)
        for t in scan(log, TASK, hour, extent(log, TASK, hour))
        for one in t.to_pylist()
    ]
    by_id = {one["id"]: one for one in found}
    assert len(by_id) == len(found), "a row came twice"
    return by_id


def read(log: Path) -> dict[str, dict]:
    return {one["id"]: one for hour in hours(log, TASK) for one in read_log(log, TASK, hour).to_pylist()}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a few rows, and some rows across two."""
    monkeypatch.setattr(log_scan, "BLOCK_BYTES", 1_000)


def test_segments_and_parquet_give_every_row_once(tmp_path: Path):
    first = written(tmp_path, [row(n) for n in range(30)])
    for stage in ("segments", "both", "both, and later ones"):
        if stage == "both":
            for hour in hours(tmp_path, TASK):
                compact_hour(tmp_path, TASK, hour)
        if stage == "both, and later ones":
            first += written(tmp_path, [row(n) for n in range(30, 50)])
        found, known = scanned(tmp_path), read(tmp_path)
        assert list(sorted(found)) == first == list(known), stage
        assert all(found[i][name] == known[i][name] for i in first for name in ("text", "label", "score", "model"))


def test_an_open_log_can_be_scanned_and_what_is_no_row_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    opened = DurableLog(tmp_path / TASK, "predictions")
    ids = [identifier for n in range(20) for identifier in opened.append([row(n)])]
    (hour,) = hours(tmp_path, TASK)
    (segment,) = segments(tmp_path, TASK, hour)
    assert list(scanned(tmp_path)) == ids, "zeros follow the rows"
    before = extent(tmp_path, TASK, hour)
    ids += opened.append([row(20)])
    opened.close()
    assert before != extent(tmp_path, TASK, hour)
    assert sum(table.num_rows for table in scan(tmp_path, TASK, hour, before)) == 20, "what came since does not count"
    with segment.open("ab") as file:
        file.write(b'{"id":"damaged\n{"id":"cut sho')
    assert list(scanned(tmp_path)) == ids and "cannot be read" in caplog.text


def test_media_are_not_read(tmp_path: Path):
    store = MediaStore(tmp_path / TASK)
    rows = store.keep([{**row(0), "image": b"x" * 10}, {**row(1), "image": b"y" * 10_000}])
    ids = written(tmp_path, rows)
    for _ in ("segment", "parquet"):
        found = scanned(tmp_path)
        assert list(found) == ids and all("image" not in one for one in found.values())
        for hour in hours(tmp_path, TASK):
            compact_hour(tmp_path, TASK, hour)


def test_answers_that_are_boxes_keep_their_shape(tmp_path: Path):
    boxes = [{"box": [1.0, 2.0, 3.0, 4.5], "label": "tree", "score": 0.5}]
    written(tmp_path, [{"model": "m:1", "boxes": boxes, "width": 40}, {"model": "m:1", "boxes": [], "width": 41}])
    assert [one["boxes"] for one in scanned(tmp_path).values()] == [boxes, []]


def test_an_hour_that_is_compacted_meanwhile_is_an_error_to_try_again(tmp_path: Path):
    written(tmp_path, [row(1)])
    (hour,) = hours(tmp_path, TASK)
    what = extent(tmp_path, TASK, hour)
    for segment in segments(tmp_path, TASK, hour):
        segment.unlink()
    with pytest.raises(FileNotFoundError):
        pa.concat_tables(scan(tmp_path, TASK, hour, what))
    assert extent(tmp_path, TASK, "2026-01-01T00") == {}
