"""The gateway's end of the link to a worker: many at a time, lost, ended, or not there at all."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from lepton_platform.gateway.routing import Target
from lepton_platform.gateway.upstream import Unreachable, Upstream
from lepton_platform.serving.frames import MOST_REQUEST_BYTES, UPGRADED
from lepton_platform.serving.replies import Answer
from lepton_platform.serving.server import server
from tests.gateway.conftest import Serving, new_settings, offer, serve

TASK = "sentiment"
CLIENTS = 16
HTTP, LINK = b"over HTTP ", b"over the link "


@dataclass
class Worker:
    """One that says how it was asked; a body ``wait`` is answered when ``go`` is set, in the worker's own thread."""

    socket: str
    asked: int = 0
    go: threading.Event = field(default_factory=threading.Event)

    @property
    def target(self) -> Target:
        return Target(1, "sentiment:1", self.socket)

    async def answered(self, headers: Any, query: bytes, body: bytes) -> Answer:
        self.asked += 1
        while body == b"wait" and not self.go.is_set():
            await asyncio.sleep(0.01)
        if body.isdigit():  # the later it was asked, the sooner it is answered
            await asyncio.sleep(0.5 - int(body) / 100)
        return Answer(200, [(b"content-type", b"text/plain"), (b"x-secret", b"1")], LINK + body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-length", b"%d" % len(HTTP))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": HTTP})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A worker with a link, or as those were that had none → it, and the server that it is."""
    ended: list[Callable[[], None]] = []

    def begin(link: bool = True) -> tuple[Worker, Any]:
        worker = Worker(str(tmp_path / f"{len(ended)}.sock"))
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(worker.socket)
        listening.listen()
        running = server(worker, None, answered=worker.answered if link else None)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()

        def end() -> None:
            worker.go.set()
            running.should_exit = True
            thread.join(20)
            listening.close()
            assert not thread.is_alive()

        ended.append(end)
        return worker, running

    yield begin
    for end in ended:
        end()


async def ask(upstream: Upstream, worker: Worker, body: bytes, within_s: float = 10, path: str = "/predict") -> bytes:
    return (await upstream.send(worker.target, "POST", path, {"accept": "*/*"}, body, within_s)).body


@asynccontextmanager
async def linked(worker: Worker) -> AsyncIterator[Upstream]:
    """With a link to it: the first request is answered without."""
    upstream = Upstream()
    assert await ask(upstream, worker, b"") == HTTP
    async with asyncio.timeout(10):
        while await ask(upstream, worker, b"") == HTTP:
            await asyncio.sleep(0.01)
    yield upstream
    await upstream.close()


def test_small_predictions_take_the_link_and_all_else_http(start: Callable[..., Any]) -> None:
    worker, _ = start()

    async def asked() -> None:
        async with linked(worker) as upstream:
            small = await upstream.send(worker.target, "POST", "/predict", {}, b"x" * MOST_REQUEST_BYTES, 10)
            assert small == (200, [(b"content-type", b"text/plain")], LINK + b"x" * MOST_REQUEST_BYTES)
            assert await ask(upstream, worker, b"x" * (MOST_REQUEST_BYTES + 1)) == HTTP
            assert await ask(upstream, worker, b"x", path="/predict?annotate=true") == HTTP
            assert await ask(upstream, worker, b"x", path="/feedback") == HTTP
            long = await upstream.send(worker.target, "POST", "/predict", {"accept": "x" * 65_535}, b"x", 10)
            assert long.status == 431  # as HTTP says it

    asyncio.run(asked())


def test_many_at_a_time_are_answered_in_any_order(start: Callable[..., Any]) -> None:
    worker, _ = start()

    async def asked() -> list[bytes]:
        async with linked(worker) as upstream:
            return await asyncio.gather(*(ask(upstream, worker, b"%d" % number) for number in range(40)))

    assert asyncio.run(asked()) == [LINK + b"%d" % number for number in range(40)]


def test_a_worker_without_a_link_is_asked_over_http(start: Callable[..., Any]) -> None:
    worker, _ = start(link=False)

    async def asked() -> None:
        upstream = Upstream()
        for _ in range(50):
            assert await ask(upstream, worker, b"") == HTTP
            await asyncio.sleep(0.01)
        await upstream.close()

    asyncio.run(asked())
    assert worker.asked == 0


def test_who_waits_too_long_is_told_and_nobody_else(start: Callable[..., Any]) -> None:
    worker, _ = start()

    async def asked() -> None:
        async with linked(worker) as upstream:
            with pytest.raises(Unreachable) as slow:
                await ask(upstream, worker, b"wait", within_s=0.2)
            assert not slow.value.gone
            worker.go.set()
            assert await ask(upstream, worker, b"next") == LINK + b"next"

    asyncio.run(asked())


def test_a_worker_that_stops_answers_what_it_has_taken(start: Callable[..., Any]) -> None:
    worker, running = start()

    async def asked() -> None:
        async with linked(worker) as upstream:
            before = worker.asked
            waiting = [asyncio.ensure_future(ask(upstream, worker, b"wait")) for _ in range(3)]
            while worker.asked < before + 3:
                await asyncio.sleep(0.01)
            running.should_exit = True
            while upstream._links:  # until it has said so
                await asyncio.sleep(0.01)
            with pytest.raises(Unreachable) as gone:
                await ask(upstream, worker, b"late")
            assert gone.value.gone
            worker.go.set()
            assert await asyncio.gather(*waiting) == [LINK + b"wait"] * 3

    asyncio.run(asked())


def test_a_worker_whose_frames_are_none_is_gone(tmp_path: Path) -> None:
    worker = Worker(str(tmp_path / "w"))

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(UPGRADED if b"Upgrade" in asked else b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" + HTTP)
        await reader.readexactly(4)
        writer.write(b"\xff" * 100)

    async def asked() -> None:
        made = await asyncio.start_unix_server(babble, worker.socket)
        async with made:
            upstream = Upstream()
            await ask(upstream, worker, b"")
            while not any(upstream._links.values()):
                await asyncio.sleep(0.01)
            for found in await asyncio.gather(*(ask(upstream, worker, b"x") for _ in range(3)), return_exceptions=True):
                assert isinstance(found, Unreachable) and found.gone
            await upstream.close()

    asyncio.run(asked())


# --- in earnest


@pytest.fixture
def serving(bentos: dict[str, Path], tmp_path: Path) -> Iterator[Serving]:
    settings = new_settings(tmp_path, (TASK,))
    offer(settings, TASK, bentos[TASK])
    with serve(settings) as running:
        yield running


def test_a_worker_that_is_killed_while_it_answers_costs_time_and_no_request(serving: Serving) -> None:
    [worker], gateways = serving.processes("serving.server"), serving.processes("gateway.server")
    before = {serving.predict("good").json()["predictions"][0]["id"] for _ in range(20)}

    def one(_: int) -> httpx.Response:
        return httpx.post(f"{serving.url}/v1/{TASK}/predict", json={"texts": ["good"]}, timeout=60)

    with ThreadPoolExecutor(CLIENTS) as clients:
        os.kill(worker.pid, signal.SIGSTOP)
        waiting = [clients.submit(one, number) for number in range(CLIENTS)]
        assert not wait(waiting, 1.0).done
        connections = sum(len(process.net_connections("unix")) for process in gateways)
        os.kill(worker.pid, signal.SIGKILL)
        answers = [found.result() for found in waiting]
    assert connections < CLIENTS / 2, "they are not asked over one"
    ids = {answer.raise_for_status().json()["predictions"][0]["id"] for answer in answers}
    assert len(ids) == CLIENTS and not ids & before
