"""Heads that are too long or too slow, and what else happens before a request is one."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lepton_platform.serving import connection
from lepton_platform.serving.server import server

GOOD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers 200; below /slow only when the body is there."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT_S", 0.5)
    listening = socket.create_server(("127.0.0.1", 0))
    running = server(app, None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def answers(at: tuple[str, int], *parts: bytes) -> bytes:
    """What comes back until the service closes; the parts are sent as long as it takes them."""
    received = b""
    with socket.create_connection(at, timeout=20) as client:
        try:
            for part in parts:
                client.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            while piece := client.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
    return received


def test_headers_without_end_are_refused(address: tuple[str, int]) -> None:
    lines = (b"X-%d: " % number + b"a" * 4000 + b"\r\n" for number in range(5000))
    received = answers(address, b"GET / HTTP/1.1\r\n", *lines)
    assert received == b"" or received.startswith(b"HTTP/1.1 431 ")  # a reset may overtake the answer
    assert answers(address, b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nConnection: close\r\n\r\n").count(b" 200 ") == 1


def test_a_head_that_is_too_long_by_little_is_told(address: tuple[str, int]) -> None:
    received = answers(address, b"GET / HTTP/1.1\r\nX: " + b"a" * connection.MOST_HEAD_BYTES)
    assert received.startswith(b"HTTP/1.1 431 ") and b'"status": 431' in received


@pytest.mark.parametrize("start", [b"", b"G", GOOD[:-2]])
def test_a_head_that_does_not_end_is_refused(address: tuple[str, int], start: bytes) -> None:
    began = time.monotonic()
    received = answers(address, start)
    assert received.startswith(b"HTTP/1.1 408 ") and time.monotonic() - began >= 0.4


def test_a_slow_head_on_a_used_connection_is_refused_after_the_answer(address: tuple[str, int]) -> None:
    received = answers(address, GOOD + GOOD[:10])
    assert received.startswith(b"HTTP/1.1 200 ") and received.count(b"HTTP/1.1 408 ") == 1


def test_a_body_may_take_longer_than_a_head(address: tuple[str, int]) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(head + b"a")
        time.sleep(0.8)  # longer than the head's time
        client.sendall(b"bc")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_many_requests_on_one_connection_count_one_by_one(address: tuple[str, int]) -> None:
    padded = b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 30_000 + b"\r\n\r\n"
    with socket.create_connection(address, timeout=20) as client:
        for _ in range(5):
            client.sendall(padded)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("rest", [b"", b"body of a request", GOOD])
def test_a_whole_head_that_is_too_long_is_refused_though_it_came_at_once(address: tuple[str, int], rest: bytes) -> None:
    lines = b"".join(b"X-%05d: %s\r\n" % (number, b"y" * 90) for number in range(1100))
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % len(rest) + lines + b"\r\n"
    received = answers(address, head + rest)
    assert received.startswith(b"HTTP/1.1 431 ") and received.count(b"HTTP/1.1") == 1
