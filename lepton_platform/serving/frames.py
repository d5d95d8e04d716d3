"""Requests and answers as frames: what goes over the link between the gateway and a worker instead of HTTP.

A frame, integers in network order:

    length  4 bytes  of all that follows
    id      4        the request that it is about; 0: no further requests are wanted
    status  2        of an answer; 0: a request
    head    2        length of the head
    head             a header's name, its value, the next one's name…, with a line feed between them
    body             the rest

Both sides may send at any time, in any order. HTTP/1.1 carries one request at a time on a connection, and costs each
of them a parser, a head written and read in words, and wake-ups of its own.
"""

import functools
import struct
from collections.abc import Sequence
from typing import NamedTuple

UPGRADE = (  # RFC 9110, §7.8; a worker that knows no link answers it as any other request
    b"GET /livez HTTP/1.1\r\nHost: worker\r\nConnection: Upgrade\r\nUpgrade: lepton-link\r\n\r\n"
)
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lepton-link\r\n\r\n"
MOST_REQUEST_BYTES = 65_536  # of a body; a larger one goes over HTTP and holds up nobody's
MOST_HEAD_BYTES = 65_535
MOST_ASKED_BYTES = 1 << 18  # of a request's frame
MOST_ANSWER_BYTES = 1 << 28
_LENGTH, _REST = 4, 8
_LAYOUT = struct.Struct(">IIHH")
Headers = list[tuple[bytes, bytes]]


class Frame(NamedTuple):
    """``headers`` may be another frame's too: not to be changed."""

    id: int
    status: int
    headers: Headers
    body: bytes


class Malformed(ValueError):
    """What came is no frame; nothing behind it can be understood."""


def encode(identifier: int, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes:
    """``ValueError`` where it cannot be said in a frame: a line feed in a header, too much of it, too large a body."""
    head = b"\n".join([part for header in headers for part in header])
    if head.count(b"\n") != max(0, 2 * len(headers) - 1):
        raise ValueError("A header holds a line feed.")
    if len(head) > MOST_HEAD_BYTES or len(body) > MOST_ANSWER_BYTES - MOST_HEAD_BYTES - _REST:
        raise ValueError(f"A frame's head has {len(head):,} bytes, its body {len(body):,}.")
    return _LAYOUT.pack(_REST + len(head) + len(body), identifier, status, len(head)) + head + body


END = encode(0, 0, [], b"")


class Frames:
    """Frames from bytes as they come, in pieces of any size."""

    def __init__(self, most_bytes: int) -> None:
        """``most_bytes``: of a frame."""
        self._most, self._rest, self._wanted = most_bytes, bytearray(), _LAYOUT.size

    def feed(self, data: bytes) -> list[Frame]:
        """Those that are whole now. ``Malformed`` where there is no frame."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
            self._rest.clear()
        found: list[Frame] = []
        at, end = 0, len(data)
        self._wanted = _LAYOUT.size
        while end - at >= _LAYOUT.size:
            length, identifier, status, head = _LAYOUT.unpack_from(data, at)
            if not _REST + head <= length <= self._most:
                raise Malformed(f"A frame of {length:,} bytes with a head of {head:,}.")
            stop = at + _LENGTH + length
            if stop > end:
                self._wanted = stop - at
                break
            body = at + _LAYOUT.size + head
            found.append(Frame(identifier, status, _headers(data[at + _LAYOUT.size : body]), data[body:stop]))
            at = stop
        if at < end:
            self._rest += data[at:]
        return found


@functools.lru_cache(64)  # they are nearly always the same
def _headers(head: bytes) -> Headers:
    parts = head.split(b"\n") if head else []
    if len(parts) % 2:
        raise Malformed("A header without a value.")
    return list(zip(parts[::2], parts[1::2], strict=True))
