"""The link's frames, cut and broken in every way; the worker's end of it."""

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lepton_platform.serving.frames import (
    END,
    MOST_ASKED_BYTES,
    UPGRADE,
    UPGRADED,
    Frame,
    Frames,
    Malformed,
    encode,
)  # fmt: skip
from lepton_platform.serving.replies import JSON, Answer
from lepton_platform.serving.server import server
from tests.serving.test_connection import GOOD, app

NAMES = st.binary(min_size=1, max_size=20).filter(lambda word: b"\n" not in word)
FRAMES = st.builds(
    Frame,
    st.integers(0, 2**32 - 1),
    st.integers(0, 999),
    st.lists(st.tuples(NAMES, NAMES | st.just(b"")), max_size=4),
    st.binary(max_size=300),
)


@given(st.lists(FRAMES, max_size=6), st.lists(st.integers(0, 2500), max_size=8))
def test_frames_come_out_as_they_went_in_wherever_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    data, reader = b"".join(encode(*frame) for frame in sent), Frames(MOST_ASKED_BYTES)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    found: list[Frame] = []
    for start, stop in itertools.pairwise(places):
        found += reader.feed(data[start:stop])
    assert found == sent
    assert reader.feed(END) == [Frame(0, 0, [], b"")]


@given(st.lists(FRAMES, max_size=2), st.binary(max_size=60))
def test_garbage_is_refused_or_waited_for_and_never_more(sent: list[Frame], garbage: bytes) -> None:
    reader = Frames(1000)
    try:
        found = reader.feed(b"".join(encode(*frame) for frame in sent) + garbage)
    except Malformed:
        return
    assert found[: len(sent)] == sent


def test_what_no_frame_can_hold() -> None:
    with pytest.raises(Malformed, match="1,000"):
        Frames(999).feed(encode(1, 200, [], bytes(992)))
    with pytest.raises(Malformed):
        Frames(999).feed(b"\0\0\0\x08" + b"\0\0\0\1\0\0\0\1")  # its head is longer than itself
    with pytest.raises(Malformed):
        Frames(999).feed(b"\0\0\0\x09\0\0\0\1\0\0\0\1a")  # a name without a value
    with pytest.raises(ValueError, match="line feed"):
        encode(1, 0, [(b"accept", b"a\nx-lepton-mirror: 1")], b"")
    with pytest.raises(ValueError, match="bytes"):
        encode(1, 0, [(b"accept", bytes(70_000))], b"")


# --- the worker's end


async def answered(headers: Any, query: bytes, body: bytes) -> Answer:
    return Answer(201, JSON, str(sorted(headers)).encode() + body)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("run") / "w"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        running = server(app, None, answered=answered)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        yield path
        running.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def linked(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(str(path))
    client.sendall(UPGRADE)
    assert client.recv(1000) == UPGRADED
    return client


def test_a_prediction_over_the_link_and_all_else_over_http(worker: Path) -> None:
    with linked(worker) as client:
        client.sendall(encode(7, 0, [(b"accept", b"*/*")], b"body"))
        assert Frames(1000).feed(client.recv(1000)) == [Frame(7, 201, JSON, b"['accept']body")]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(worker))
        client.sendall(GOOD)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


@given(st.binary(min_size=1, max_size=200))
def test_garbage_closes_the_link_and_brings_nothing_down(worker: Path, garbage: bytes) -> None:
    with linked(worker) as client:
        client.sendall(garbage + b"\xff" * 40)
        while client.recv(1000):  # until it hangs up
            pass
    with linked(worker) as client:
        client.sendall(encode(1, 0, [], b"body"))
        assert Frames(1000).feed(client.recv(1000))[0].status == 201


def test_a_port_that_others_reach_has_no_link() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    running = server(app, None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    with socket.create_connection(listening.getsockname()) as client:
        client.sendall(UPGRADE)
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
    running.should_exit = True
    thread.join(20)
