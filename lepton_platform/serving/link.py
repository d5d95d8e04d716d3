"""The worker's end of the gateway's link: predictions in frames, many at a time on one connection.

The link begins as HTTP on the worker's own socket and is upgraded from it, so that a gateway need not know in advance
who has one. It answers what ``PredictRoute`` answers, with all its limits; uvicorn counts it among its connections and
lets it finish when it stops.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from lepton_platform.serving.connection import Bounded
from lepton_platform.serving.frames import END, MOST_ASKED_BYTES, UPGRADE, UPGRADED, Frame, Frames, Malformed, encode
from lepton_platform.serving.replies import Answer, refused, rejected_for

Answered = Callable[[Mapping[str, str], bytes, bytes], Awaitable[Answer]]  # ``PredictRoute.answered``
logger = logging.getLogger("lepton.serving")


class Linkable(Bounded):
    """uvicorn's connection, which becomes a link if it is asked to before all else."""

    def __init__(self, answered: Answered, **options: Any) -> None:
        super().__init__(**options)
        self._answered, self._fresh = answered, True

    def data_received(self, data: bytes) -> None:
        if self._fresh:
            self._fresh = False
            if data == UPGRADE:  # sent at once, and nothing behind it before the answer
                self._end_head()
                self.connections.discard(self)
                link = Link(self._answered, self.connections, self.tasks)
                self.transport.set_protocol(link)
                link.connection_made(self.transport)
                self.transport.write(UPGRADED)
                return
        super().data_received(data)


class Link(asyncio.Protocol):
    """``connections`` and ``tasks``: uvicorn's, which waits for both when it stops."""

    def __init__(self, answered: Answered, connections: set[Any], tasks: "set[asyncio.Task[None]]") -> None:
        self.answered, self.connections, self.tasks = answered, connections, tasks
        self._frames = Frames(MOST_ASKED_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            asked = self._frames.feed(data)
        except Malformed as error:
            logger.warning("the gateway's link is closed: %s", error)
            self.transport.close()
            return
        for frame in asked:
            task = self._loop.create_task(self._answer(frame))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, asked: Frame) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in asked.headers}
        try:
            told = encode(asked.id, *await self.answered(headers, b"", asked.body))
        except Exception as error:  # an answer that no frame holds; else `answered` has made one of it
            told = encode(asked.id, *refused(rejected_for(error, "an answer over the link")))
        if not self.transport.is_closing():
            self.transport.write(told)

    def shutdown(self) -> None:
        """uvicorn stops: the gateway is told, and hangs up when all that it has asked is answered."""
        self.transport.write(END)
