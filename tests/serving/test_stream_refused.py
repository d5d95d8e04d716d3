"""``/stream`` of those who do it wrong, say nothing, go away, or come while something fails: told as it closes."""

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from lepton_platform.serving.log_reader import hours, read_log
from lepton_platform.serving.stream_route import MAX_MESSAGE_BYTES
from tests.data.sounds import saved
from tests.serving.conftest import Running, build, start
from tests.serving.models import write_speech
from tests.serving.recordings import TEXT, WORDS, spoken
from tests.serving.streams import END, changed, closed, opened, pcm, received, said, sent

MOST_STREAMS = 6  # and other requests, at a time


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with room for few streams."""
    folder = tmp_path_factory.mktemp("few")
    running = start(build(folder, "prompts", write_speech, max_requests=MOST_STREAMS, max_wait_s=30), folder / "log")
    yield running
    running.process.terminate()
    running.process.wait(20)


WRONG: list[tuple[list[str | bytes], int, str]] = [
    ([END], 1007, "0.05 s"),
    ([b"", END], 1007, "0.05 s"),
    ([bytes(100), END], 1007, "0.05 s"),
    ([b"abc"], 1007, "half a sample"),
    (["hello"], 1007, "not JSON"),
    (["[" * 100_000], 1007, "nested"),
    (['{"rate": NaN}'], 1007, "NaN"),
    (['{"rate": 8000, "rate": 8000}'], 1007, "twice"),
    (["[]"], 1007, "an array"),
    (["1"], 1007, "a number"),
    (['{"rate": 1}'], 1007, "8000 to 48000"),
    (['{"rate": "8000"}'], 1007, "8000 to 48000"),
    (["{}"], 1007, "rate"),
    (['{"end": false}'], 1007, "last message"),
    (['{"end": true, "rate": 8000}'], 1007, "last message"),
    (['{"language": "en"}'], 1003, "language"),
    (['{"rate": 8000}', '{"rate": 8000}'], 1003, "first message"),
    ([bytes(100), '{"rate": 8000}'], 1003, "first message"),
    ([bytes(MAX_MESSAGE_BYTES), bytes(MAX_MESSAGE_BYTES)], 1009, "60 s"),
    ([bytes(MAX_MESSAGE_BYTES + 2)], 1009, f"{MAX_MESSAGE_BYTES:,}"),
    (["x" * (MAX_MESSAGE_BYTES + 1)], 1009, f"{MAX_MESSAGE_BYTES:,}"),
]


@pytest.mark.parametrize(("messages", "code", "says"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_told_when_it_closes(prompts: Running, messages: list[Any], code: int, says: str) -> None:
    with opened(prompts) as stream:
        for message in messages:
            stream.send(message)
        found, reason = closed(stream)
    assert found == code and says in (reason or ""), (found, reason)


def test_a_message_in_fragments_is_one(prompts: Running) -> None:
    sound = pcm()
    with opened(prompts) as stream:
        stream.send(sound[place : place + 999] for place in range(0, len(sound), 999))
        stream.send(END)
        assert received(stream)[1]["predictions"][0]["text"] == TEXT
    with opened(prompts) as stream:
        stream.send(bytes(100_000) for _ in range(11))
        assert closed(stream)[0] == 1009
    with opened(prompts) as stream:
        with contextlib.suppress(ConnectionClosed):
            stream.send(bytes(100_000) for _ in range(100))
        assert closed(stream)[0] in {1009, 1006}  # a reset may overtake the reason


def test_text_that_is_no_text(prompts: Running) -> None:
    with opened(prompts) as stream:
        stream.send(b"\xff\xfe", text=True)
        assert closed(stream)[0] == 1007


def test_nothing_is_compressed(prompts: Running) -> None:
    with opened(prompts, compression="deflate") as stream:
        assert not stream.protocol.extensions


def test_a_stream_counts_as_a_request(few: Running) -> None:
    with ExitStack() as stack:
        for _ in range(MOST_STREAMS):
            stack.enter_context(opened(few)).send(bytes(64))
        with pytest.raises(InvalidStatus) as refused:
            opened(few)
        answer = refused.value.response
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) >= 1
        assert json.loads(answer.body)["error"]["status"] == 503
        posted = few.client.post(f"{few.url}/predict", files={"audio": saved(spoken())})
        assert posted.status_code == 503
    said(few)  # who has gone makes room


def test_pages_of_another_site_are_refused(prompts: Running) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        with pytest.raises(InvalidStatus) as refused:
            opened(prompts, origin=origin)
        assert refused.value.response.status_code == 403
    with opened(prompts, origin=prompts.url) as stream:
        sent(stream, pcm())
        assert received(stream)[1]["predictions"][0]["text"] == TEXT


def test_other_routes_are_no_streams(prompts: Running, service: Running) -> None:
    for running, path in ((prompts, "/predict"), (prompts, "/streams"), (service, "/stream")):
        with pytest.raises(InvalidStatus) as refused:
            opened(running, path)
        assert refused.value.response.status_code in {403, 404}
    assert prompts.client.get(f"{prompts.url}/stream").status_code == 404
    assert "/stream" in prompts.client.get(prompts.url).json()["routes"]
    assert "/stream" not in service.client.get(service.url).json()["routes"]
    assert service.predict("good")["predictions"]


def test_a_client_that_goes_leaves_nothing(prompts: Running) -> None:
    process = psutil.Process(prompts.process.pid)
    before, rows = process.num_fds(), len(logged(prompts))
    for number in range(20):
        while True:
            try:
                with opened(prompts) as stream:
                    stream.send(pcm())
                    if number % 2:
                        stream.send(END)
                    if number % 3:
                        stream.socket.shutdown(socket.SHUT_RDWR)
                break
            except InvalidStatus:  # those before are still being answered
                time.sleep(0.05)
    said(prompts)
    time.sleep(0.2)
    assert process.num_fds() <= before + 2
    assert rows < len(logged(prompts)) <= rows + 11  # only what was sent to its end may be there


def logged(service: Running) -> list[str]:
    return [
        i for hour in hours(service.log, "prompts") for i in read_log(service.log, "prompts", hour)["id"].to_pylist()
    ]


def test_streams_are_counted(prompts: Running) -> None:
    def counted() -> dict[str, float]:
        lines = prompts.client.get(f"{prompts.url}/metrics").text.splitlines()
        found = [line for line in lines if line.startswith('lepton_requests_total{route="/stream"')]
        return {line.split('status="')[1][:3]: float(line.split()[-1]) for line in found}

    before = counted()
    said(prompts)
    for messages, _, _ in (WRONG[0], WRONG[15], WRONG[18], WRONG[19]):
        with opened(prompts) as stream:
            for message in messages:
                stream.send(message)
            closed(stream)
    after = counted()
    changed = {status: after[status] - before.get(status, 0) for status in after if after[status] != before.get(status)}
    assert changed == {"200": 1, "422": 1, "415": 1, "413": 2}
    assert "500" not in after


@pytest.mark.parametrize(("name", "limit"), [("IDLE_S", "No message came"), ("LONGEST_S", "A stream lasts")])
def test_who_says_nothing_is_sent_away(speech_bento: Path, tmp_path: Path, name: str, limit: str) -> None:
    """With limits that a test can wait for."""
    shorter = f"from lepton_platform.serving import stream_route; stream_route.{name} = 0.6"
    with changed(speech_bento, tmp_path, shorter) as url, connect(url) as stream:
        began = time.monotonic()
        stream.send(bytes(64))
        found, reason = closed(stream)
        assert found == 1008 and limit in (reason or "") and 0.5 < time.monotonic() - began < 5


def test_a_log_that_cannot_be_written_gives_no_answer(speech_bento: Path, tmp_path: Path) -> None:
    full = "os.fdatasync = lambda _: os.pwrite(-1, b'x', 0)"
    with changed(speech_bento, tmp_path, full) as url, connect(url) as stream:
        sent(stream, pcm())
        found, reason = closed(stream)
    assert found == 1013 and "The log cannot be written" in (reason or "")


def test_a_model_that_fails_is_a_fault_of_this_stream_alone(speech_bento: Path, tmp_path: Path) -> None:
    bento = shutil.copytree(speech_bento, tmp_path / "bento")
    running = start(bento, tmp_path / "log")
    tokenizer = bento / "src/model/tokenizer.json"
    aside = tokenizer.rename(tmp_path / "tokenizer.json")
    try:
        for pause_s in (0.0, 0.15):  # in the last pass, in one before
            with opened(running) as stream:
                with contextlib.suppress(ConnectionClosed):
                    sent(stream, pcm([*WORDS] * 3), pause_s=pause_s)
                assert closed(stream) == (1011, "The service has a fault; it is in its log.")
        aside.rename(tokenizer)
        assert said(running)["predictions"][0]["text"] == TEXT
    finally:
        running.process.terminate()
        running.process.wait(20)


def test_a_service_that_stops_says_so(speech_bento: Path, tmp_path: Path) -> None:
    running = start(speech_bento, tmp_path)
    with opened(running) as stream:
        sent(stream, pcm())
        received(stream)
    with opened(running) as stream:
        stream.send(pcm())
        running.process.terminate()
        assert closed(stream)[0] == 1012
        assert running.process.wait(20) is not None
