"""The gateway's end of the link to a worker: frames over one connection, many requests at a time.

See ``serving/frames.py`` for what a frame is and ``serving/link.py`` for the other end.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from lepton_platform.serving.frames import MOST_ANSWER_BYTES, UPGRADE, UPGRADED, Frames, Malformed, encode
from lepton_platform.serving.replies import Answer

UPGRADE_S = 2.0
_MOST_ID = (1 << 32) - 1


class NoLink(Exception):
    """The worker is of a Bento whose code knows none."""


class Link(asyncio.Protocol):
    """``open`` while it takes requests; one that is not may have some to answer still."""

    def __init__(self, lost: "Callable[[Link], None]") -> None:
        """``lost`` is called when it is open no more."""
        self.open, self._lost = False, lost
        self._upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._told = b""  # before it is a link
        self._frames = Frames(MOST_ANSWER_BYTES)
        self._last = 0  # id that was given
        self._asked: dict[int, asyncio.Future[Answer]] = {}

    @classmethod
    async def to(cls, socket: str, lost: "Callable[[Link], None]") -> "Link":
        """``NoLink`` where the worker speaks HTTP alone; ``OSError`` where it does not answer."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(UPGRADE_S):
            _, link = await loop.create_unix_connection(lambda: cls(lost), socket)
            try:
                await link._upgraded
            except BaseException:
                link.transport.close()
                raise
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.transport.write(UPGRADE)

    async def ask(self, headers: Mapping[str, str], body: bytes, within_s: float) -> Answer:
        """``ConnectionError`` where the link ends first, ``TimeoutError`` where so many seconds pass, ``ValueError`` where no
        frame holds it.
        """
        told = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        identifier = self._last = self._last % _MOST_ID + 1
        self.transport.write(encode(identifier, 0, told, body))
        answer = self._asked[identifier] = self._loop.create_future()
        timer = self._loop.call_later(within_s, _settle, answer, TimeoutError())
        try:
            return await answer
        finally:
            timer.cancel()
            self._asked.pop(identifier, None)
            self._close_if_done()

    def data_received(self, data: bytes) -> None:
        if not self.open and not self._upgraded.done():
            self._begin(data)
            return
        try:
            frames = self._frames.feed(data)
        except Malformed as error:
            self._fail(ConnectionError(f"no frame: {error}"))
            self.transport.close()
            return
        for identifier, status, headers, body in frames:
            answer = self._asked.get(identifier)
            if not identifier:
                self.finish()
            elif answer is not None and not answer.done():  # else nobody waits for it any more
                answer.set_result(Answer(status, headers, body))

    def _begin(self, data: bytes) -> None:
        self._told += data
        if self._told == UPGRADED:  # no frame follows before one is asked
            self.open = True
            self._upgraded.set_result(None)
        elif not UPGRADED.startswith(self._told):
            self._upgraded.set_exception(NoLink())

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc if isinstance(exc, OSError) else ConnectionResetError("the worker hung up"))

    def _fail(self, error: OSError) -> None:
        self.open = False
        self._lost(self)
        for answer in (self._upgraded, *self._asked.values()):
            _settle(answer, error)

    def finish(self) -> None:
        """Ask nothing more; hang up when what was asked is answered."""
        self.open = False
        self._lost(self)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if not self.open and not self._asked:
            self.transport.close()


def _settle(future: "asyncio.Future[Any]", error: OSError) -> None:
    if not future.done():
        future.set_exception(error)
