"""Far more than can be answered: every request is answered all the same, and when it is over all is as it was."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import aiohttp.web
import pytest

from lepton_platform.gateway.forwarding import Forwarding
from lepton_platform.gateway.keys import SCOPES, Keys
from lepton_platform.gateway.routing import Route, Target
from lepton_platform.gateway.upstream import Upstream
from lepton_platform.gateway.workers import Workers
from lepton_platform.serving.agreement import agreement
from lepton_platform.serving.log_reader import hours, read_rows
from tests.gateway.conftest import Serving, new_settings, offer, serve
from tests.serving.conftest import make_bento

TASK = "sentiment"
CLIENTS, SECONDS = 200, 3.0
FEW = 16  # requests that the worker answers at a time
HELD_MIB = 8  # of bodies, in the worker
LARGE_BYTES = 900_000  # of a body
GATEWAY_BYTES = 600 << 20  # that its memory may grow by: the bodies of all clients, three times over
WORKER_BYTES = 200 << 20
SMALL_GROWTH_BYTES = 100 << 20  # of either, where bodies are small
AS_BEFORE, BACK_S = 10, 5.0  # times as long as before it; seconds after it
LEAST_S = 0.1  # what is quick on any machine


@dataclass
class Guarded:
    """Services whose worker is soon busy; a key without a limit, and one that may ask ten times a second."""

    serving: Serving
    key: dict[str, str]
    slow: dict[str, str]

    def predict_s(self) -> float:
        begun = time.monotonic()
        self.serving.predict("good", headers=self.key).raise_for_status()
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    bento = make_bento(tmp_path_factory.mktemp("busy"), lanes=1, max_waiting=8, max_requests=FEW, max_held_mib=HELD_MIB)
    settings = new_settings(tmp_path_factory.mktemp("overload"), (TASK,), auth="on")
    offer(settings, TASK, bento)
    keys = Keys(settings)
    _, secret = keys.create("all", SCOPES)
    _, slow = keys.create("slow", ["predict"], rate_per_minute=600, burst=10)
    with serve(settings) as serving:
        yield Guarded(serving, {"X-API-Key": secret}, {"X-API-Key": slow})


@dataclass
class Told:
    """What the clients were told; ``wrong``: what is no answer, or one that does not say when to come again."""

    statuses: Counter[int] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def take(self, status: int, headers: Any, body: bytes) -> None:
        self.statuses[status] += 1
        if status == 200:
            self.ids += [one["id"] for one in json.loads(body)["predictions"]]
        elif status not in (429, 503) or not headers.get("Retry-After", "").isdecimal():
            self.wrong.append(f"{status} {dict(headers)} {body[:200]!r}")


async def client(
    session: aiohttp.ClientSession, url: str, body: bytes, told: Told, until: float, **headers: str
) -> None:
    """Asks again and again, and comes back at once whatever it was told."""
    while time.monotonic() < until:
        try:
            async with session.post(f"{url}/v1/{TASK}/predict", data=body, headers=headers) as answer:
                told.take(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, OSError) as error:
            told.wrong.append(repr(error))


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=60), headers={"Content-Type": "application/json"}
    ) as made:
        yield made


async def crowd(guarded: Guarded, body: bytes, seconds: float) -> Told:
    told, until = Told(), time.monotonic() + seconds
    keys = [guarded.slow if number % 10 == 0 else guarded.key for number in range(CLIENTS)]
    async with session() as shared:
        url = guarded.serving.url
        await asyncio.gather(*(client(shared, url, body, told, until, **key) for key in keys))
    return told


class Memory:
    """The most that the processes of a kind have grown by, looked at all the time."""

    def __init__(self, serving: Serving, module: str) -> None:
        self.processes = serving.processes(module)
        self.before = {process.pid: process.memory_info().rss for process in self.processes}
        self.most_bytes = 0

    def look(self) -> None:
        for process in self.processes:
            self.most_bytes = max(self.most_bytes, process.memory_info().rss - self.before[process.pid])


def overloaded(guarded: Guarded, body: bytes, seconds: float = SECONDS) -> tuple[Told, int, int]:
    """What the crowd was told; what the gateway grew by, and the worker."""
    gateway, worker = (Memory(guarded.serving, module) for module in ("gateway.server", "serving.server"))

    async def both() -> Told:
        crowded = asyncio.ensure_future(crowd(guarded, body, seconds))
        while not crowded.done():
            gateway.look()
            worker.look()
            await asyncio.sleep(0.1)
        return await crowded

    return asyncio.run(both()), gateway.most_bytes, worker.most_bytes


def back_to_normal(guarded: Guarded, before_s: float) -> None:
    """Within ``BACK_S`` answers come as quickly as before, or nearly so, and nothing is being answered any more."""
    until, enough_s = time.monotonic() + BACK_S, max(AS_BEFORE * before_s, LEAST_S)
    while (taken := statistics.median(guarded.predict_s() for _ in range(5))) > enough_s:
        assert time.monotonic() < until, f"{taken:.3f} s, before it {before_s:.4f} s"
    told = guarded.serving.client.get(f"{guarded.serving.url}/metrics", headers=guarded.key).text
    left = [line for line in told.splitlines() if "requests_in_flight" in line and not line.startswith("#")]
    assert len(left) == 2 and all(line.endswith(" 0.0") for line in left)


@pytest.mark.parametrize(
    ("blanks", "gateway_bytes", "worker_bytes"),
    [(0, SMALL_GROWTH_BYTES, SMALL_GROWTH_BYTES), (LARGE_BYTES, GATEWAY_BYTES, WORKER_BYTES)],
)
def test_whoever_asks_is_answered_and_the_memory_is_bounded(
    guarded: Guarded, blanks: int, gateway_bytes: int, worker_bytes: int
) -> None:
    """Answered, or told to come again; with bodies that are small, or nearly as large as they may be."""
    before_s = statistics.median(guarded.predict_s() for _ in range(20))
    told, gateway_grew, worker_grew = overloaded(guarded, b'{"texts":["good film"]}' + b" " * blanks)
    back_to_normal(guarded, before_s)
    assert not told.wrong, told.wrong[:3]
    assert set(told.statuses) == {200, 429, 503} and told.statuses[503] > CLIENTS, told.statuses
    assert gateway_grew < gateway_bytes and worker_grew < worker_bytes, (gateway_grew >> 20, worker_grew >> 20)
    assert all_logged(guarded.serving, told.ids)


def all_logged(serving: Serving, ids: list[str]) -> bool:
    folder = serving.settings.predictions_dir
    return set(ids) <= {row["id"] for hour in hours(folder, TASK) for row in read_rows(folder, TASK, hour)}


def test_it_does_not_grow_from_one_time_to_the_next(guarded: Guarded) -> None:
    body = b'{"texts":["good film"]}' + b" " * LARGE_BYTES
    overloaded(guarded, body, 1.0)
    _, gateway_grew, worker_grew = overloaded(guarded, body, 1.0)
    assert max(gateway_grew, worker_grew) < GATEWAY_BYTES / 2, (gateway_grew >> 20, worker_grew >> 20)


def test_a_worker_that_hangs_does_not_take_all_with_it(guarded: Guarded) -> None:
    """More than the worker may hold are told at once; the others are answered when it comes to itself."""
    beyond, told = 300, Told()
    [worker] = guarded.serving.processes("serving.server")
    before_s = statistics.median(guarded.predict_s() for _ in range(20))

    async def all_at_once() -> None:
        async with session() as shared:
            asked = [once(shared, guarded, told) for _ in range(FEW + beyond)]
            waiting = asyncio.gather(*asked)
            while told.statuses[503] < beyond:
                await asyncio.sleep(0.05)
            assert told.statuses == {503: beyond}
            async with shared.get(f"{guarded.serving.url}/livez") as answer:
                assert answer.status == 200
            worker.resume()
            await waiting

    worker.suspend()
    try:
        asyncio.run(asyncio.wait_for(all_at_once(), 50))
    finally:
        worker.resume()
    back_to_normal(guarded, before_s)
    assert not told.wrong, told.wrong[:3]
    assert told.statuses.total() == FEW + beyond and told.statuses[200] >= FEW // 2, told.statuses
    assert all_logged(guarded.serving, told.ids)


async def once(shared: aiohttp.ClientSession, guarded: Guarded, told: Told) -> None:
    url = f"{guarded.serving.url}/v1/{TASK}/predict"
    async with shared.post(url, data=b'{"texts":["good film"]}', headers=guarded.key) as answer:
        told.take(answer.status, answer.headers, await answer.read())


# --- what is asked beside


def test_to_compare_large_answers_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two versions that found thousands of trees: it takes seconds, in which the others are answered."""
    monkeypatch.chdir(tmp_path)
    boxes = [
        {"box": [x, y, x + 9, y + 9], "label": "tree", "score": 0.9}
        for x in range(0, 400, 10)
        for y in range(0, 400, 10)
    ]
    answers = {
        name: {"predictions": [{"id": name, "boxes": boxes[:: 1 if name == "champion" else -1]}]}
        for name in ("champion", "shadow")
    }
    begun = time.perf_counter()
    assert agreement(*(answer["predictions"] for answer in answers.values())) == 1
    alone_s = time.perf_counter() - begun

    async def lags() -> tuple[list[float], Any]:
        upstream, runners = Upstream(), []
        for name, answer in answers.items():
            app = aiohttp.web.Application()
            app.router.add_post("/predict", partial(_answered, answer))
            runners.append(aiohttp.web.AppRunner(app))
            await runners[-1].setup()
            await aiohttp.web.UnixSite(runners[-1], f"{name}.sock").start()
        workers = Workers(upstream)
        workers.table = {
            "trees": Route(Target(1, "trees:1", "champion.sock"), shadow=Target(2, "trees:2", "shadow.sock"))
        }
        forwarding, found = Forwarding(workers, upstream), []
        await forwarding.predict("trees", "/predict", {}, b"{}", None)
        while forwarding.seen.get(2) is None or not forwarding.seen[2].compared:
            begun = time.perf_counter()
            await asyncio.sleep(0.01)
            found.append(time.perf_counter() - begun)
        await upstream.close()
        for runner in runners:
            await runner.cleanup()
        return found, forwarding.seen[2]

    found, seen = asyncio.run(lags())
    assert (seen.compared, seen.agreement, seen.requests) == (1, 1.0, 1)
    assert max(found) < alone_s / 2, f"{max(found):.2f} s at a time of {alone_s:.2f} s"


async def _answered(answer: Any, _: aiohttp.web.Request) -> aiohttp.web.Response:
    return aiohttp.web.json_response(answer)
