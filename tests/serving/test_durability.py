"""kill -9 at random moments under load: whatever was answered is in the log."""

import json
import random
import threading
from pathlib import Path

import httpx

from lepton_platform.serving.log_reader import find, hours, read_rows
from tests.serving.conftest import Running, Starter

TASK = "sentiment"
KILLS = 5
CLIENTS = 6


class Client(threading.Thread):
    """Asks until the service is gone, and remembers every answer that it got."""

    def __init__(self, service: Running, number: int, got: threading.Semaphore) -> None:
        super().__init__(daemon=True)
        self.service, self.number, self.got = service, number, got
        self.answered: dict[str, str] = {}

    def run(self) -> None:
        with httpx.Client(timeout=30) as client:
            for turn in range(100_000):
                texts = [f"good film {self.number} {turn} {part}" for part in range(1 + turn % 3)]
                try:
                    answer = client.post(f"{self.service.url}/predict", json={"texts": texts})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200, answer.text
                predictions = answer.json()["predictions"]
                self.answered |= {p["id"]: t for p, t in zip(predictions, texts, strict=True)}
                self.got.release()


def test_kill_9_loses_no_answer(starter: Starter, tmp_path: Path) -> None:
    """Every life writes into the same log; ids stay unique, rows of earlier lives stay as they were."""
    log, chance = tmp_path / "log", random.Random(7)
    answered: dict[str, str] = {}
    for _ in range(KILLS):
        service, got = starter(log), threading.Semaphore(0)
        clients = [Client(service, number, got) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for _ in range(chance.randrange(20, 150)):  # answers, not seconds: as many on a slow machine
            assert got.acquire(timeout=20)
        threading.Event().wait(chance.uniform(0.0, 0.01))  # anywhere within a request
        service.process.kill()
        for client in clients:
            client.join(20)
            assert not client.is_alive() and not answered.keys() & client.answered.keys()
            answered |= client.answered
    assert len(answered) >= KILLS * 20
    rows = {row["id"]: row for hour in hours(log, TASK) for row in read_rows(log, TASK, hour)}
    lost = [identifier for identifier, text in answered.items() if rows.get(identifier, {}).get("text") != text]
    assert not lost
    for identifier in chance.sample(sorted(answered), 50):
        assert find(log, TASK, identifier) == rows[identifier]
    assert len(rows) >= len(answered) and all(json.dumps(row) for row in rows.values())


def test_an_answer_waits_for_the_disk(bento: Path, tmp_path: Path) -> None:
    """In-process: while a flush hangs no answer is sent; after it the answer is, and its row is there."""
    import asyncio
    import os

    from lepton_platform.serving.app import create_app
    from lepton_platform.serving.bundle import Bundle

    flushing, free = threading.Event(), threading.Event()
    real = os.fdatasync

    def slow(handle: int) -> None:
        flushing.set()
        assert free.wait(20)
        real(handle)

    async def check() -> None:
        app = create_app(Bundle.load(bento), tmp_path)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            os.fdatasync = slow
            try:
                asked = asyncio.ensure_future(client.post("/predict", json={"texts": ["good"]}))
                assert await asyncio.to_thread(flushing.wait, 20)
                done, _ = await asyncio.wait([asked], timeout=0.3)
                assert not done
                free.set()
                answer = (await asked).json()
            finally:
                os.fdatasync = real
        assert find(tmp_path, TASK, answer["predictions"][0]["id"])

    asyncio.run(check())


def test_a_log_that_cannot_be_written_is_503(bento: Path, tmp_path: Path) -> None:
    """No disk, no answer: 503 with Retry-After, and once the disk is back the service goes on."""
    import asyncio
    import errno
    import os

    from lepton_platform.serving.app import create_app
    from lepton_platform.serving.bundle import Bundle

    real = os.fdatasync

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def check() -> None:
        app = create_app(Bundle.load(bento), tmp_path)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):
            os.fdatasync = full
            try:
                refused = await client.post("/predict", json={"texts": ["good"]})
            finally:
                os.fdatasync = real
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
            answer = (await client.post("/predict", json={"texts": ["good"]})).json()
        assert find(tmp_path, TASK, answer["predictions"][0]["id"])

    asyncio.run(check())
