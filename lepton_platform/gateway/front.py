"""uvicorn's HTTP connection with a short way for predictions: one that has come whole is answered without ASGI.

ASGI's scope, events and messages, and uvicorn's cycle that makes them of bytes, cost such a request as much here as all
else. What is not that simple (a body in pieces, a query, a proxy's headers, a request before the last is answered)
goes uvicorn's way; ``PredictRoute`` answers both.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from lepton_platform.gateway.predict_route import READ, PredictRoute, task_of
from lepton_platform.serving.body import read_headers
from lepton_platform.serving.connection import MOST_HEAD_BYTES, Bounded
from lepton_platform.serving.replies import Answer

FORWARDED = "x-forwarded-for"  # by a proxy before this one; uvicorn knows which to believe
_READ = {**READ, FORWARDED.encode(): FORWARDED}
_END = b"/predict"
logger = logging.getLogger("lepton.gateway")


class _Cycle:
    """As much of uvicorn's cycle as its connection asks for."""

    def __init__(self) -> None:
        self.response_complete = self.disconnected = False
        self.keep_alive = True
        self.message_event = asyncio.Event()


class Front(Bounded):
    """``cycle`` is uvicorn's name for the request that is being answered, or was."""

    def __init__(self, route: PredictRoute, **options: Any) -> None:
        super().__init__(**options)
        self.route = route
        self._simple: tuple[str, Mapping[str, str]] | None = None  # task and headers of one whose body is coming
        self._parts: list[bytes] = []

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._simple is not None:  # its body has not come whole
            self._simple = None
            if not self.transport.is_closing():
                super().on_headers_complete()
                for part in self._parts:
                    super().on_body(part)

    def on_headers_complete(self) -> None:
        self._simple = self._is_simple()
        if self._simple is None:
            super().on_headers_complete()
        else:
            self._end_head()
            self._parts = []

    def on_body(self, body: bytes) -> None:
        if self._simple is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._simple is None:
            super().on_message_complete()
            return
        (task, found), self._simple = self._simple, None
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self.cycle = cycle = _Cycle()  # pyright: ignore[reportAttributeAccessIssue] - it has what is asked of it
        scope: Scope = {"headers": self.headers, "client": self.client, "query_string": b""}
        answering = self.loop.create_task(self._answer(cycle, task, scope, found, body))
        self.tasks.add(answering)
        answering.add_done_callback(self.tasks.discard)

    def _is_simple(self) -> tuple[str, Mapping[str, str]] | None:
        """May it go the short way? Its task and the headers that are looked at."""
        url = self.url
        parser: Any = self.parser  # none is left only behind the connection's end
        if not url.endswith(_END) or b"?" in url or b"%" in url or self._answering or self.expect_100_continue:
            return None
        if parser.get_method() != b"POST" or parser.get_http_version() != "1.1" or self._parsed_bytes > MOST_HEAD_BYTES:
            return None
        if parser.should_upgrade() or not parser.should_keep_alive():
            return None
        task, found = task_of(url.decode("latin-1")), read_headers(self.headers, _READ)
        return None if task is None or FORWARDED in found else (task, found)

    async def _answer(self, cycle: _Cycle, task: str, scope: Scope, found: Mapping[str, str], body: bytes) -> None:
        try:
            answer = await self.route.answered(task, scope, found, body)
            if self.flow.write_paused:
                await self.flow.drain()
            self._send(cycle, answer)
        except Exception:
            logger.exception("a prediction's connection is closed")
            self.transport.close()

    def _send(self, cycle: _Cycle, answer: Answer) -> None:
        cycle.response_complete = True
        if cycle.disconnected:
            return
        headers = [*self.server_state.default_headers, *answer.headers]
        closes = answer.status != 200 and any(name == b"connection" for name, _ in answer.headers)
        if not cycle.keep_alive and not closes:
            headers.append((b"connection", b"close"))
            closes = True
        head = [b"%b: %b\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[answer.status], *head, b"\r\n", answer.body]))
        if closes:
            self.transport.close()
        self.on_response_complete()
