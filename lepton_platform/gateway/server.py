"""The gateway's process: ``python -m lepton_platform.gateway.server --fd N``, started by the supervisor.

It reads the routing table from its input, a line of JSON each time, and writes what it has seen of the deployments to
its output every second. Its input's end is its own.
"""

import argparse
import asyncio
import functools
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from lepton_platform.gateway.access import Access, redact_logs
from lepton_platform.gateway.app import Gateway, create_app
from lepton_platform.gateway.loop import Loop
from lepton_platform.gateway.routing import Table, from_json
from lepton_platform.serving.server import DRAIN_S, die_with_parent, give_back_large_blocks
from lepton_platform.settings import Settings, get_settings

REPORT_S = 0.5
_LINE_BYTES = 1 << 22
logger = logging.getLogger("lepton.gateway")


def access(settings: Settings) -> Access:
    """Keys, unless they are switched off where only this machine can ask."""
    from lepton_platform.gateway.keys import Keys

    return Access.off(settings.host) if settings.auth == "off" else Access(Keys(settings))


def lineage(settings: Settings) -> Any:
    """A prediction's past by its id. What it imports is imported now, and not within the first one's request."""
    from lepton_platform.pipeline.trace import trace

    return lambda identifier, task: trace(settings, identifier, task)


async def tables(end: Callable[[], None]) -> AsyncIterator[Table]:
    """Every table that the supervisor tells; ``end`` is called when it tells no more."""
    reader = asyncio.StreamReader(limit=_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield from_json(json.loads(line))
    end()


async def _report(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(REPORT_S)
        seen = gateway.forwarding.taken()
        if seen:
            line = json.dumps({str(identifier): found.as_json() for identifier, found in seen.items()})
            os.write(sys.stdout.fileno(), line.encode() + b"\n")  # a pipe's reader is the supervisor, every 50 ms


def server(gateway: Gateway) -> Any:
    import uvicorn

    from lepton_platform.gateway.front import Front
    from lepton_platform.serving.stream_route import READ_BYTES

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            self._reporting = asyncio.ensure_future(_report(gateway))

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await super().shutdown(sockets)
            self._reporting.cancel()

    app = create_app(gateway)
    options: dict[str, Any] = {"log_config": None, "access_log": False, "server_header": False, "lifespan": "on"}
    options |= {"http": functools.partial(Front, app), "ws": "websockets-sansio"}
    options |= {"ws_per_message_deflate": False, "ws_max_size": READ_BYTES}
    return Server(uvicorn.Config(app, timeout_graceful_shutdown=DRAIN_S, backlog=1024, **options))


def main() -> None:
    parser = argparse.ArgumentParser(prog="lepton_platform.gateway.server")
    parser.add_argument("--fd", type=int, required=True, help="a listening socket")
    parser.add_argument("--parent", type=int, help="end with this process")
    chosen = parser.parse_args()
    if chosen.parent:
        die_with_parent(chosen.parent)
    give_back_large_blocks()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    redact_logs()
    settings = get_settings()
    gateway = Gateway(access(settings), lineage(settings), lambda: tables(end), Loop(settings))
    serving = server(gateway)

    def end() -> None:
        serving.should_exit = True

    serving.run(sockets=[socket.socket(fileno=chosen.fd)])


if __name__ == "__main__":
    main()
