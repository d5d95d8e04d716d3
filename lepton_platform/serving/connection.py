"""uvicorn's HTTP connection with what it lacks: a request's head has a size and a time.

Without it a client that sends header lines for ever, or a byte of one now and then, is kept for ever.
"""

import asyncio
import json

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lepton_platform.serving.rejected import Rejected

MOST_HEAD_BYTES = 65_536  # request line and headers
HEAD_TIMEOUT_S = 30.0
_PHRASES = {408: "Request Timeout", 431: "Request Header Fields Too Large"}


class Bounded(HttpToolsProtocol):
    """Refuses a head that is too long (431) or too slow (408) and closes the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self._head_timer: asyncio.TimerHandle | None = None
        self._begin_head()
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._in_head:  # all of it was head, or the end of a request and the start of a head
            self._time_head()
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._too_large()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begin_head()

    def on_url(self, url: bytes) -> None:
        self._parsed_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._parsed_bytes += len(name) + len(value) + len(b": \r\n")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._end_head()
        if self._parsed_bytes > MOST_HEAD_BYTES:  # all of it came at once, and its body perhaps with it
            self._too_large()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if self._parsed_bytes <= MOST_HEAD_BYTES:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._parsed_bytes <= MOST_HEAD_BYTES:
            super().on_message_complete()

    def _begin_head(self) -> None:
        self._head_bytes = self._parsed_bytes = 0
        self._in_head = True

    def _time_head(self) -> None:
        """Of most requests the head comes at once, and needs no timer."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _end_head(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _too_large(self) -> None:
        self._refuse(431, f"The request line and headers are larger than {MOST_HEAD_BYTES:,} bytes.")

    def _too_slow(self) -> None:
        self._refuse(408, f"The headers did not arrive within {HEAD_TIMEOUT_S:g} s.")

    def _refuse(self, status: int, message: str) -> None:
        self._end_head()
        if self.transport.is_closing():
            return
        if self._answering:  # no second answer into the middle of the first
            self.transport.close()
            return
        body = json.dumps(Rejected(status, message, "headers").as_json()).encode()
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self.transport.close()
