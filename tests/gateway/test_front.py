"""The short way and the long one: whatever comes in whatever pieces, each request has its own answer, in their order."""

import functools
import http.client
import itertools
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from lepton_platform.gateway.front import Front
from lepton_platform.gateway.predict_route import PredictRoute
from lepton_platform.serving.body import read_body
from lepton_platform.serving.replies import Answer

SHORT, LONG = b"short:", b"long:"


class Route(PredictRoute):
    """Answers with the body that it was sent, and says which way that came."""

    def __init__(self) -> None:
        pass  # there is no gateway

    async def answered(self, task: str, scope: Scope, found: Mapping[str, str], body: bytes | Receive) -> Answer:
        assert isinstance(body, bytes)
        if body == b"refuse":
            return Answer(413, [(b"content-length", b"2"), (b"connection", b"close")], b"no")
        told = SHORT + body
        return Answer(200, [(b"content-length", b"%d" % len(told))], told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        told = LONG + await read_body(receive, 1 << 20, lambda size: None)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
        await send({"type": "http.response.body", "body": told})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    route, listening = Route(), socket.create_server(("127.0.0.1", 0))
    options: dict[str, Any] = {"log_config": None, "access_log": False, "http": functools.partial(Front, route)}
    running = uvicorn.Server(uvicorn.Config(route, **options))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@dataclass(frozen=True)
class Asked:
    body: bytes
    path: str = "/v1/a/predict"
    chunked: bool = False
    forwarded: bool = False

    @property
    def words(self) -> bytes:
        head = f"POST {self.path} HTTP/1.1\r\nHost: x\r\n" + "X-Forwarded-For: 10.0.0.1\r\n" * self.forwarded
        if not self.chunked:
            return f"{head}Content-Length: {len(self.body)}\r\n\r\n".encode() + self.body
        parts = [part for part in (self.body[:3], self.body[3:]) if part]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"

    @property
    def short(self) -> bool:
        """May it go the short way, if it comes whole and alone?"""
        return self.path == "/v1/a/predict" and not self.forwarded


PATHS = st.sampled_from(["/v1/a/predict", "/v1/a/predict?annotate=true", "/v1/a/feedback", "/v1/a/b/predict", "/livez"])
ASKED = st.builds(Asked, st.binary(max_size=60).filter(lambda b: b != b"refuse"), PATHS, st.booleans(), st.booleans())


def answer(client: socket.socket) -> http.client.HTTPResponse:
    found = http.client.HTTPResponse(client)
    found.begin()
    return found


@given(st.lists(ASKED, min_size=1, max_size=5), st.lists(st.integers(0, 900), max_size=6))
def test_each_request_has_its_own_answer_however_they_are_cut(
    address: tuple[str, int], asked: list[Asked], cuts: list[int]
) -> None:
    data = b"".join(one.words for one in asked)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    with socket.create_connection(address, timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, stop in itertools.pairwise(places):
            client.sendall(data[start:stop])
        received = client.makefile("rb")
        for one in asked:
            assert received.readline().startswith(b"HTTP/1.1 200 ")
            headers = http.client.parse_headers(received)
            told = received.read(int(headers["content-length"]))
            assert told in (SHORT + one.body, LONG + one.body) and headers["date"]
            assert one.short or told.startswith(LONG)


@pytest.mark.parametrize(
    ("asked", "way"),
    [
        (Asked(b"x"), SHORT),
        (Asked(b"x", chunked=True), SHORT),
        (Asked(b""), SHORT),
        (Asked(b"x", forwarded=True), LONG),
        (Asked(b"x", path="/v1/a/predict?annotate=true"), LONG),
    ],
)
def test_what_is_simple_takes_the_short_way(address: tuple[str, int], asked: Asked, way: bytes) -> None:
    with socket.create_connection(address, timeout=10) as client:
        for _ in range(3):  # the connection is kept
            client.sendall(asked.words)
            assert answer(client).read() == way + asked.body


def test_what_is_not_simple_goes_uvicorns_way(address: tuple[str, int]) -> None:
    head = b"POST /v1/a/predict HTTP/1.%d\r\nHost: x\r\nContent-Length: 1\r\n%b\r\n"
    for minor, more, last in (
        (0, b"", True),
        (1, b"Connection: close\r\n", True),
        (1, b"Expect: 100-continue\r\n", False),
    ):
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(head % (minor, more) + b"x")
            received = b""
            while not received.endswith(LONG + b"x"):
                piece = client.recv(1000)
                assert piece, received
                received += piece
            assert not last or client.recv(1000) == b""


def test_a_refusal_that_ends_the_connection_ends_it(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(Asked(b"refuse").words)
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
        assert client.recv(1000) == b""
