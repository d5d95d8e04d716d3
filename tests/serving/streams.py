"""Speech sent over a WebSocket, and what comes back."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from lepton_platform.models.speech_input import as_pcm
from tests.data.sounds import RATE
from tests.serving.conftest import Running
from tests.serving.recordings import spoken

END = '{"end": true}'


def opened(service: Running, path: str = "/stream", **options: Any) -> ClientConnection:
    return connect(f"{service.url.replace('http', 'ws')}{path}", open_timeout=20, **options)


def pcm(*given: Any, **options: Any) -> bytes:
    return as_pcm(spoken(*given, **options)).tobytes()


def sent(stream: ClientConnection, sound: bytes, size: int = RATE // 5, pause_s: float = 0.0) -> None:
    for place in range(0, len(sound), 2 * size):
        stream.send(sound[place : place + 2 * size])
        time.sleep(pause_s)
    stream.send(END)


def received(stream: ClientConnection) -> tuple[list[str], dict[str, Any]]:
    """The partial texts, and the last message; then it was closed as it should be."""
    messages = [json.loads(message) for message in stream]  # ends where it is closed with 1000
    assert stream.close_code == 1000
    assert all(set(message) == {"partial"} for message in messages[:-1])
    return [message["partial"] for message in messages[:-1]], messages[-1]


def closed(stream: ClientConnection) -> tuple[int | None, str | None]:
    with pytest.raises(ConnectionClosed):
        while True:
            stream.recv(timeout=20)
    return stream.close_code, stream.close_reason


def said(service: Running) -> dict[str, Any]:
    """A stream as it should be."""
    with opened(service) as stream:
        sent(stream, pcm())
        return received(stream)[1]


@contextmanager
def changed(bento: Path, log: Path, change: str) -> Iterator[str]:
    """A service in whose process ``change`` was run first; its address."""
    code = f"import os; {change}; from lepton_platform.serving.server import main; main()"
    ready, told = os.pipe()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        words = ["--bento", str(bento), "--predictions", str(log), "--parent", str(os.getpid())]
        words += ["--fd", str(listening.fileno()), "--ready-fd", str(told)]
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], cwd=bento / "src", pass_fds=[listening.fileno(), told]
        )
        try:
            os.close(told)
            assert os.read(ready, 1) == b"1"
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}/stream"
        finally:
            os.close(ready)
            process.terminate()
            process.wait(20)
