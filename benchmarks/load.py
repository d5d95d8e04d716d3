"""The load, a process of its own: N connections that each ask again as soon as they are answered.

``python -m benchmarks.load URL BODIES CLIENTS SECONDS``; BODIES is a file with a JSON body a line. Prints one JSON
object: begun (``time.monotonic``), seconds, failed (answers that are not 200), statuses, latencies_ms (of the 200s),
own_cpu_s (the load's own CPU time). A closed loop: the figures say what N patient clients see, not what a burst would.

``--rate N``: an open loop, N requests a second on CLIENTS connections at most, whether or not anything is answered;
what finds no free connection is ``unsent``. ``--records``: a line of JSON for every request instead, written as it
ends, the fields of ``Record``; if SECONDS is 0, until the input ends.
"""

import argparse
import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop

PAUSE_S = 0.05
TICK_S = 0.002  # of the open loop
PATIENCE_S = 75.0  # longer than the gateway lets anybody wait
LAST_S = 5.0  # of the open loop, for what is on its way at the end
_ID, _MODEL = re.compile(rb'"id":"([^"]+)"'), re.compile(rb'"model":"([^"]+)"')


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self.open = True
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        """→ status and body; ``ConnectionError`` where the connection ends first."""
        self._answer = asyncio.get_running_loop().create_future()
        self._body, self._parser = [], httptools.HttpResponseParser(self)
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), b"".join(self._body)))
        if not self._parser.should_keep_alive():
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, ConnectionError) else ConnectionResetError("closed"))

    def close(self) -> None:
        self.open = False
        self.transport.close()


@dataclass
class Load:
    """What is asked of whom, and what came of it."""

    url: str
    requests: list[bytes]
    until: float
    statuses: Counter[str] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    unsent: int = 0

    @classmethod
    def of(cls, url: str, bodies: list[bytes], until: float, key: str | None) -> "Load":
        address = urlsplit(url)
        head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        head += f"Authorization: Bearer {key}\r\n" if key else ""
        return cls(url, [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies], until)

    async def connect(self) -> Connection:
        address = urlsplit(self.url)
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(Connection, address.hostname or "", address.port or 80)
        return made

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    def note(self, kind: str, seconds: float) -> None:
        self.statuses[kind] += 1
        if kind == "200":
            self.latencies_s.append(seconds)

    async def patient(self, turn: int, write: Callable[[str], object] | None = None) -> None:
        """A client that keeps its connection, makes a new one when it loses it, and pauses after a failure."""
        connection: Connection | None = None
        while not self.over:
            turn += 1
            begun, told = time.monotonic(), b""
            try:
                async with asyncio.timeout(PATIENCE_S):
                    if connection is None or not connection.open:
                        connection = await self.connect()
                    status, told = await connection.ask(self.requests[turn % len(self.requests)])
                kind = str(status)
            except OSError as error:  # ``TimeoutError`` is one
                kind, connection = type(error).__name__, None
            seconds = time.monotonic() - begun
            self.note(kind, seconds)
            if write is not None:
                named = [found[1].decode() if (found := form.search(told)) else None for form in (_ID, _MODEL)]
                write(json.dumps([begun, seconds, kind, *named]) + "\n")
            if kind != "200":
                await asyncio.sleep(PAUSE_S)
        if connection is not None:
            connection.close()

    async def flood(self, rate: float, most: int) -> None:
        """``rate`` requests a second until the end, on ``most`` connections at most."""
        idle: list[Connection] = []
        tasks: set[asyncio.Task[None]] = set()
        begun, sent = time.monotonic(), 0
        while not self.over:
            due = int((time.monotonic() - begun) * rate) - sent
            for _ in range(due):
                sent += 1
                if len(tasks) >= most:
                    self.unsent += 1
                    continue
                task = asyncio.create_task(self._once(sent, idle))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            await asyncio.sleep(TICK_S)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_S)
            for task in late:
                self.note("unanswered", 0.0)
                task.cancel()
        for connection in idle:
            connection.close()

    async def _once(self, turn: int, idle: list[Connection]) -> None:
        begun = time.perf_counter()
        try:
            connection = idle.pop() if idle else await self.connect()
            if not connection.open:
                connection = await self.connect()
            status, _ = await connection.ask(self.requests[turn % len(self.requests)])
        except OSError as error:
            self.note(type(error).__name__, 0.0)
            return
        self.note(str(status), time.perf_counter() - begun)
        if connection.open:
            idle.append(connection)


async def ask(chosen: argparse.Namespace) -> dict[str, Any]:
    bodies, started, before = Path(chosen.bodies).read_bytes().splitlines(), time.monotonic(), time.process_time()
    load = Load.of(chosen.url, bodies, started + chosen.seconds if chosen.seconds else float("inf"), chosen.key)
    firsts = [number * len(bodies) // chosen.clients for number in range(chosen.clients)]  # no two ask the same at once
    if chosen.rate:
        await load.flood(chosen.rate, chosen.clients)
    elif chosen.records:
        cast(Any, sys.stdout).reconfigure(line_buffering=True)
        if not chosen.seconds:
            asyncio.get_running_loop().add_reader(sys.stdin, setattr, load, "until", 0.0)
        await asyncio.gather(*(load.patient(first, sys.stdout.write) for first in firsts))
    else:
        await asyncio.wait_for(asyncio.gather(*(load.patient(first) for first in firsts)), chosen.seconds + 30)
    return {
        "begun": started,
        "seconds": time.monotonic() - started,
        "failed": load.statuses.total() - load.statuses["200"],
        "statuses": dict(load.statuses),
        "unsent": load.unsent,
        "own_cpu_s": time.process_time() - before,
        "latencies_ms": [round(1e3 * s, 3) for s in load.latencies_s],
    }


# --- from another process


@dataclass(frozen=True)
class Record:
    """A request as its client saw it. ``sent``: ``time.monotonic``; ``kind``: a status, or how the connection ended."""

    sent: float
    seconds: float
    kind: str
    id: str | None
    model: str | None

    @property
    def ended(self) -> float:
        return self.sent + self.seconds


@dataclass
class Round:
    """One measurement, with the CPU time of the service and of what is in between."""

    seconds: float
    failed: int
    latencies_ms: list[float]
    worker_s: float
    between_s: float
    load_s: float

    @property
    def rate(self) -> float:
        return len(self.latencies_ms) / self.seconds

    def at(self, percent: float) -> float:
        """Milliseconds that so many percent of the answers took at most."""
        return sorted(self.latencies_ms)[min(len(self.latencies_ms) - 1, int(percent / 100 * len(self.latencies_ms)))]


def together(rounds: Sequence[Round]) -> Round:
    """All requests of several rounds."""
    names = ("seconds", "failed", "worker_s", "between_s", "load_s")
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in rounds) for name in names}
    return Round(latencies_ms=[ms for one in rounds for ms in one.latencies_ms], **sums)


class Clients:
    """A load that is read while it goes on; it stops when it is told to."""

    def __init__(self, url: str, asked: Path, clients: int, key: str | None = None) -> None:
        words = [url, str(asked), str(clients), "0", "--records", *(["--key", key] if key else [])]
        self.records: list[Record] = []
        self._process = start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.records.append(Record(*json.loads(line)))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S + 15)
        self._thread.join()


def start(words: list[str], **options: Any) -> "subprocess.Popen[str]":
    """The load with these arguments."""
    root = Path(__file__).resolve().parents[1]
    return subprocess.Popen([sys.executable, "-m", "benchmarks.load", *words], cwd=root, **options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("bodies")
    parser.add_argument("clients", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--key", help="sent as Authorization: Bearer")
    parser.add_argument("--rate", type=float, help="requests a second, answered or not")
    parser.add_argument("--records", action="store_true", help="print every request")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    found = uvloop.run(ask(options))
    if not options.records:
        print(json.dumps(found))
