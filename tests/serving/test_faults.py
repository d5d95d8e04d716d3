"""A fault inside meets the request that brought it, as a 500, and nobody else."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from lepton_platform.serving.app import create_app
from lepton_platform.serving.batching import Batcher, BatchLimits, Group
from lepton_platform.serving.bundle import Bundle
from lepton_platform.serving.log_reader import hours, read_rows
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.serving.protocols import Encoded

TASK = "sentiment"


def with_client(bento: Path, log: Path, use: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def inside() -> None:
        app = create_app(Bundle.load(bento), log)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", timeout=20) as client,
        ):
            await use(client)

    asyncio.run(inside())


async def ask(client: httpx.AsyncClient, text: str) -> httpx.Response:
    return await client.post("/predict", json={"texts": [text]})


def test_an_answer_that_cannot_be_made_is_500_and_the_service_goes_on(
    bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = Bundle.load(bento).api
    real = api.answer

    def answer(labels: Any, parts: Any, outputs: Sequence[np.ndarray]) -> Any:
        if outputs[0][0] > 0:  # rotten
            raise RuntimeError("a fault of the task's")
        return real(labels, parts, outputs)

    monkeypatch.setattr(api, "answer", answer)

    async def use(client: httpx.AsyncClient) -> None:
        for _ in range(8):  # more often than there are lanes
            given = await ask(client, "bad")
            assert given.status_code == 500 and "fault of the task" not in given.text
        mixed = await asyncio.gather(*(ask(client, text) for text in ["good", "bad"] * 10))
        assert [one.status_code for one in mixed] == [200, 500] * 10

    with_client(bento, tmp_path, use)
    rows = [row for hour in hours(tmp_path, TASK) for row in read_rows(tmp_path, TASK, hour)]
    assert [row["label"] for row in rows] == ["fresh"] * 10


def test_an_output_that_is_not_a_number_is_no_answer(
    bento: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lepton_platform.serving.engine import Engine

    real = Engine.run
    monkeypatch.setattr(Engine, "run", lambda self, batch: real(self, batch) * np.float32("nan"))

    async def use(client: httpx.AsyncClient) -> None:
        assert (await ask(client, "good")).status_code == 500
        assert (await client.get("/readyz")).status_code == 200

    with_client(bento, tmp_path, use)
    assert not [row for hour in hours(tmp_path, TASK) for row in read_rows(tmp_path, TASK, hour)]


def test_a_lane_survives_whoever_it_answers() -> None:
    seen: list[int] = []

    def done(group: Group) -> None:
        if not seen:
            seen.append(0)
            raise RuntimeError("gone")
        seen.append(len(group.outputs))

    batcher = Batcher(lambda batch: np.zeros((len(batch), 2)), BatchLimits(lanes=1))
    for _ in range(3):
        batcher.submit([Encoded([1], 1)], done)
    batcher.close()
    assert seen == [0, 1, 1]


@pytest.mark.parametrize("value", [float("nan"), "\ud800", object()])
def test_a_row_that_is_no_json_is_refused_before_it_meets_others(tmp_path: Path, value: object) -> None:
    log = DurableLog(tmp_path / TASK, "predictions")
    with pytest.raises((ValueError, TypeError)):
        log.append([{"text": value}])
    log.append([{"text": "good"}])
    log.close()
    rows = [row for hour in hours(tmp_path, TASK) for row in read_rows(tmp_path, TASK, hour)]
    assert [row["text"] for row in rows] == ["good"]


def test_the_log_survives_whoever_it_answers(tmp_path: Path) -> None:
    log = DurableLog(tmp_path / TASK, "predictions")

    def gone(_ids: object) -> None:
        raise RuntimeError("gone")

    log.submit([{"text": "first"}], gone)
    assert len(log.append([{"text": "second"}, {}])) == 2
    log.close()
