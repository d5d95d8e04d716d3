"""Media of the log: on the disk before their row, once, read back wherever rows are, missed without harm, swept safely."""

import asyncio
import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lepton_platform.monitoring.feedback import export_labels
from lepton_platform.serving import log_reader, media_store
from lepton_platform.serving.compaction import compact_hour, hour_end
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS, find, hours, read_all, read_log, segments
from lepton_platform.serving.media_store import MediaStore, media_path, sweep
from lepton_platform.serving.prediction_log import DurableLog
from tests.serving import pictures
from tests.serving.conftest import Running, build, start
from tests.serving.models import write_classifier

TASK = "digits"
LATER = datetime.now(UTC) + timedelta(days=2)
CHANCE = random.Random(11)
KILLS, CLIENTS = 4, 4


def content(size: int) -> bytes:
    return CHANCE.randbytes(size)


def write(folder: Path, *contents: bytes, **more: Any) -> list[str]:
    """As the service does it: media first, then the rows."""
    store, log = MediaStore(folder / TASK), DurableLog(folder / TASK, PREDICTIONS)
    try:
        made = [{"model": f"{TASK}:1", "image": c, "label": "7", "score": 0.5, **more} for c in contents]
        return log.append(store.keep(made))
    finally:
        log.close()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / TASK / "media").rglob("*") if path.is_file())


def only_hour(folder: Path) -> str:
    [hour] = hours(folder, TASK)
    return hour


def images(folder: Path) -> list[bytes | None]:
    return [image for table in read_all(folder, TASK) for image in table["image"].to_pylist()]


def aged(folder: Path, hours_: float = 30) -> None:
    past = time.time() - hours_ * 3600
    for path in files(folder):
        os.utime(path, (past, past))


# --- written and read


@pytest.mark.parametrize("size", [0, 1, 4_095, 4_096, 5_000, 3_000_000])
def test_media_of_any_size_come_back(tmp_path: Path, size: int) -> None:
    one = content(size)
    [identifier] = write(tmp_path, one)
    table = read_log(tmp_path, TASK, only_hour(tmp_path))
    assert table["image"].to_pylist() == [one] and table.schema.field("image").type == pa.binary()
    row = find(tmp_path, TASK, identifier)
    assert row is not None and row["image"]["bytes"] == size and len(str(row)) < 600
    assert len(files(tmp_path)) == (size >= 4_096)


def test_the_same_content_lies_there_once(tmp_path: Path) -> None:
    one, other = content(9_000), content(9_000)
    write(tmp_path, one, other, one)
    write(tmp_path, one)
    assert len(files(tmp_path)) == 2 and images(tmp_path) == [one, other, one, one]
    assert all((path.stat().st_mode & 0o077) == 0 for path in files(tmp_path))


def test_threads_that_keep_the_same_content_do_not_meet(tmp_path: Path) -> None:
    store, one, kept = MediaStore(tmp_path), content(50_000), []
    threads = [threading.Thread(target=lambda: kept.append(store.keep([{"image": one}]))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kept) == 16 and [p.read_bytes() for p in (tmp_path / "media").rglob("*") if p.is_file()] == [one]


def test_an_hour_of_many_media_comes_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "PIECE_BYTES", 20_000)
    sent = [content(7_000) for _ in range(10)]
    ids = write(tmp_path, *sent)
    pieces = list(read_all(tmp_path, TASK))
    assert [piece.num_rows for piece in pieces] == [3, 3, 3, 1] and images(tmp_path) == sent
    wanted = set(ids[4:6])
    assert [p["id"].to_pylist() for p in read_all(tmp_path, TASK, ids=wanted)] == [ids[4:6]]
    [bare] = read_all(tmp_path, TASK, media=False)
    assert bare["image"].null_count == 10 and bare.schema.field("image").type == pa.binary()
    path = compact_hour(tmp_path, TASK, only_hour(tmp_path), LATER)
    assert pq.ParquetFile(path).num_row_groups == 4
    assert images(tmp_path) == sent and [p["id"].to_pylist() for p in read_all(tmp_path, TASK, ids=wanted)] == [
        ids[4:6]
    ]


# --- missed


def test_a_missing_file_is_told_and_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = content(9_000), content(9_000)
    ids = write(tmp_path, first, second)
    row = find(tmp_path, TASK, ids[0])
    assert row is not None and "missing" not in row["image"]
    media_path(tmp_path / TASK, row["image"]["$media"]).unlink()
    assert images(tmp_path) == [None, second] and row["image"]["$media"] in caplog.text
    again = find(tmp_path, TASK, ids[0])
    assert again is not None and again["image"]["missing"] is True
    compact_hour(tmp_path, TASK, only_hour(tmp_path), LATER)
    assert images(tmp_path) == [None, second]
    said = pa.table({"id": ids, "label": ["1", "2"], "at": pa.array([LATER] * 2, pa.timestamp("us", tz="UTC"))})
    done = export_labels(
        predictions=read_all(tmp_path, TASK), feedback=said, labels=tmp_path / "labels.jsonl", inputs=["image"]
    )
    assert (done.added, done.missing, done.unknown) == (1, 1, 0)
    assert '"image": {"$base64": "' in (tmp_path / "labels.jsonl").read_text()


def test_names_lead_nowhere_else(tmp_path: Path) -> None:
    """A row is read as it is written; one that was made by hand opens no other file."""
    (tmp_path / "secret").write_text("secret")
    log = DurableLog(tmp_path / TASK, PREDICTIONS)
    log.append([{"image": {"$media": name, "bytes": 6}} for name in ("../../secret", "/etc/passwd", "", "0" * 63)])
    log.close()
    assert images(tmp_path) and all(not isinstance(image, bytes) for image in images(tmp_path))


# --- compacted and swept


def test_compaction_takes_media_in_and_then_removes_their_files(tmp_path: Path) -> None:
    sent = [content(100), content(9_000), content(70_000)]
    ids = write(tmp_path, *sent)
    hour = only_hour(tmp_path)
    before = read_log(tmp_path, TASK, hour)
    compact_hour(tmp_path, TASK, hour, now=hour_end(hour))  # not settled: all stays
    assert len(files(tmp_path)) == 2 and segments(tmp_path, TASK, hour) and read_log(tmp_path, TASK, hour) == before
    compact_hour(tmp_path, TASK, hour, LATER)
    assert not files(tmp_path) and not segments(tmp_path, TASK, hour) and read_log(tmp_path, TASK, hour) == before
    row = find(tmp_path, TASK, ids[2])
    assert row is not None and row["image"]["bytes"] == 70_000 and len(row["image"]["$media"]) == 64
    more = write(tmp_path, sent[1])  # sent again after its file was swept
    assert images(tmp_path) == [*sent, sent[1]] and len(files(tmp_path)) == 1
    compact_hour(tmp_path, TASK, hour, LATER)
    assert images(tmp_path) == [*sent, sent[1]] and find(tmp_path, TASK, more[0]) is not None


def test_a_file_that_an_earlier_hour_still_names_stays(tmp_path: Path) -> None:
    write(tmp_path, content(9_000))
    aged(tmp_path)
    hour = only_hour(tmp_path)
    earlier = (datetime.now(UTC) - timedelta(hours=40)).strftime("%Y-%m-%dT%H")
    assert sweep(tmp_path / TASK, earlier, LATER) == 0 and len(files(tmp_path)) == 1
    assert sweep(tmp_path / TASK, hour, LATER) == 1


def test_a_file_in_use_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service touches it between the sweep's look and its move."""
    one = content(9_000)
    write(tmp_path, one)
    aged(tmp_path)
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if not self.name.startswith("."):
            os.utime(self)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    assert sweep(tmp_path / TASK, None, datetime.now(UTC)) == 0
    assert images(tmp_path) == [one]


def test_a_sweep_that_was_killed_is_mended(tmp_path: Path) -> None:
    one = content(9_000)
    write(tmp_path, one)
    [path] = files(tmp_path)
    path.rename(path.with_name(f".gone-{path.name}"))
    assert images(tmp_path) == [one]
    assert sweep(tmp_path / TASK, None, datetime.now(UTC)) == 0 and files(tmp_path) == [path]
    (path.parent / ".half-written").write_bytes(b"x")
    aged(tmp_path)
    assert sweep(tmp_path / TASK, None, datetime.now(UTC)) == 1 and not files(tmp_path)


def test_rows_read_before_a_compaction_find_their_media_after_it(tmp_path: Path) -> None:
    sent = [content(9_000) for _ in range(3)]
    write(tmp_path, *sent)
    hour = only_hour(tmp_path)
    [segment] = segments(tmp_path, TASK, hour)
    kept = segment.read_bytes()
    compact_hour(tmp_path, TASK, hour, LATER)
    segment.write_bytes(kept)  # as who had read it sees it
    assert not files(tmp_path) and images(tmp_path) == sent


# --- the service


@pytest.fixture(scope="module")
def digits_bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("digits"), TASK, write_classifier)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "log"


class Client(threading.Thread):
    """Sends pictures until the service is gone, and remembers every answer that it got."""

    def __init__(self, service: Running, number: int, got: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.service, self.number, self.got = service, number, got
        self.answered: dict[str, bytes] = {}

    def run(self) -> None:
        with httpx.Client(timeout=30) as client:
            for turn in range(100_000):
                seed = self.number * 1_000_000 + turn
                sizes = [(40, 40), (100 + turn % 50, 60)][: 1 + turn % 2]  # inline, and a file
                sent = [pictures.file(pictures.noise(*size, seed=seed + 7 * k)) for k, size in enumerate(sizes)]
                sent += [pictures.file(pictures.noise(80, 80, seed=turn % 5))]  # the same from several clients
                parts = [("images", ("x", picture)) for picture in sent]
                try:
                    answer = client.post(f"{self.service.url}/predict", files=parts)
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                self.answered |= {p["id"]: s for p, s in zip(answer.json()["predictions"], sent, strict=True)}
                self.got.release()


def test_kill_9_loses_no_picture(digits_bento: Path, log: Path) -> None:
    chance, answered = random.Random(3), {}
    for _ in range(KILLS):
        service, got = start(digits_bento, log), threading.Semaphore(0)
        clients = [Client(service, number, got) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(chance.randrange(10, 60)):
            assert got.acquire(timeout=30)
        threading.Event().wait(chance.uniform(0.0, 0.02))
        service.process.kill()
        service.process.wait()
        for client in clients:
            client.join(30)
            assert not client.is_alive()
            answered |= client.answered
    assert len(answered) >= KILLS * 20
    kept = {i: c for t in read_all(log, TASK) for i, c in zip(t["id"].to_pylist(), t["image"].to_pylist(), strict=True)}
    assert not [identifier for identifier, picture in answered.items() if kept.get(identifier) != picture]


def in_process(bento: Path, log: Path, use: Any) -> None:
    from lepton_platform.serving.app import create_app
    from lepton_platform.serving.bundle import Bundle

    async def inside() -> None:
        app = create_app(Bundle.load(bento), log)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=30) as client,
        ):
            await use(client)

    asyncio.run(inside())


PICTURE = pictures.file(pictures.noise(120, 80))
FILES = [("images", ("x", PICTURE))]


def test_an_answer_waits_for_its_picture_to_be_on_the_disk(
    digits_bento: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its file's flush hangs no answer is sent and no row is written; others are answered meanwhile."""
    flushing, free, real = threading.Event(), threading.Event(), media_store._write

    def slow(path: Path, sent: bytes) -> None:
        flushing.set()
        assert free.wait(20)
        real(path, sent)

    monkeypatch.setattr(media_store, "_write", slow)

    async def use(client: httpx.AsyncClient) -> None:
        asked = asyncio.ensure_future(client.post("/predict", files=FILES))
        assert await asyncio.to_thread(flushing.wait, 20)
        small = await client.post("/predict", files=[("images", ("x", pictures.good()["png"]))])
        assert small.status_code == 200
        done, _ = await asyncio.wait([asked], timeout=0.3)
        assert not done and sum(t.num_rows for t in read_all(log, TASK)) == 1
        free.set()
        [answer] = (await asked).json()["predictions"]
        assert find(log, TASK, answer["id"])

    in_process(digits_bento, log, use)
    assert PICTURE in images(log)


def test_a_disk_that_takes_no_media_is_503_and_forgotten_when_it_does(
    digits_bento: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def use(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(media_store.os, "fsync", full)
        refused = await client.post("/predict", files=FILES)
        monkeypatch.setattr(media_store.os, "fsync", real)
        assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        assert (await client.post("/predict", files=FILES)).status_code == 200

    in_process(digits_bento, log, use)
    assert images(log) == [PICTURE] and len(files(log)) == 1


def test_bodies_fill_no_more_memory_than_is_theirs(tmp_path: Path) -> None:
    """What would be too much is refused as it comes; afterwards the memory is free again."""
    bento = build(tmp_path / "small", TASK, write_classifier, max_held_mib=1)
    large = pictures.file(pictures.noise(800, 600))
    assert len(large) > 1 << 20

    async def use(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            refused = await client.post("/predict", files=[("images", ("x", large))])
            assert refused.status_code == 503 and "memory" in refused.text
        for _ in range(30):
            assert (await client.post("/predict", files=FILES)).status_code == 200

    in_process(bento, tmp_path / "log", use)


def test_feedback_is_exported_with_the_picture(digits_bento: Path, log: Path) -> None:
    async def use(client: httpx.AsyncClient) -> None:
        [answer] = (await client.post("/predict", files=FILES)).json()["predictions"]
        said = {"feedback": [{"id": answer["id"], "label": "3"}]}
        assert (await client.post("/feedback", json=said)).json() == {"accepted": 1}

    in_process(digits_bento, log, use)
    said = pa.concat_tables(read_all(log, TASK, FEEDBACK))
    labels = log / "labels.jsonl"
    done = export_labels(predictions=read_all(log, TASK), feedback=said, labels=labels, inputs=["image"])
    assert done.added == 1

    from lepton_platform.data.images import as_bytes
    from lepton_platform.data.tables import json_row

    line = json_row(labels.read_bytes().splitlines()[0], "labels.jsonl line 1").values
    assert as_bytes(line["image"]) == PICTURE and line["label"] == "3"
