"""The load, a process of its own: N connections that each ask again as soon as they are answered.

``python -m benchmarks.load URL BODIES CLIENTS SECONDS``; BODIES is a file with a JSON body a line. Prints one JSON
object: seconds, failed (answers that are not 200), latencies_ms. A closed loop: the figures say what N patient
clients see, not what a burst would.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import uvloop


class Connection(asyncio.Protocol):
    """One client: sends, reads the whole answer, notes the time, sends the next body."""

    def __init__(self, requests: list[bytes], first: int, until: float, ended: asyncio.Future[None]) -> None:
        self.requests, self.turn, self.until, self.ended = requests, first, until, ended
        self.latencies_s: list[float] = []
        self.failed = 0
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.turn += 1
        self.sent_at = time.perf_counter()
        self.transport.write(self.requests[self.turn % len(self.requests)])

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        if self.parser.get_status_code() == 200:
            self.latencies_s.append(now - self.sent_at)
        else:
            self.failed += 1
        if now < self.until:
            asyncio.get_running_loop().call_soon(self.send)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.failed += exc is not None or time.perf_counter() < self.until
        if not self.ended.done():
            self.ended.set_result(None)


async def ask(url: str, bodies: list[bytes], clients: int, seconds: float) -> dict[str, object]:
    address = urlsplit(url)
    head = f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
    requests = [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    made: list[Connection] = []
    for number in range(clients):
        first = number * len(requests) // clients  # no two ask the same at the same time
        connection = Connection(requests, first, started + seconds, loop.create_future())
        await loop.create_connection(lambda c=connection: c, address.hostname or "", address.port or 80)
        made.append(connection)
    await asyncio.wait_for(asyncio.gather(*(c.ended for c in made)), seconds + 30)
    latencies = [round(1e3 * s, 3) for c in made for s in c.latencies_s]
    failed = sum(c.failed for c in made)
    return {"seconds": time.perf_counter() - started, "failed": failed, "latencies_ms": latencies}


if __name__ == "__main__":
    lines = Path(sys.argv[2]).read_bytes().splitlines()
    print(json.dumps(uvloop.run(ask(sys.argv[1], lines, int(sys.argv[3]), float(sys.argv[4])))))
