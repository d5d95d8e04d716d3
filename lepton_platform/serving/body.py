"""Reading a request's body: no more than is allowed, no longer than is reasonable."""

import asyncio
from collections.abc import Callable, Iterable, Mapping

from starlette.types import Receive

from lepton_platform.serving.rejected import Rejected, malformed, too_large

BODY_TIMEOUT_S = 30.0
SLOWEST_BYTES_S = 524_288  # a body that may be larger than this takes in BODY_TIMEOUT_S has the time that it takes


def read_headers(raw: Iterable[tuple[bytes, bytes]], wanted: Mapping[bytes, str]) -> dict[str, str]:
    """The headers that are wanted, by name; of several of one name, the first."""
    found: dict[str, str] = {}
    for name, value in raw:
        known = wanted.get(name)
        if known is not None and known not in found:
            found[known] = value.decode("latin-1")
    return found


def check_headers(headers: Mapping[str, str], content_types: tuple[str, ...], most_bytes: int) -> str:
    """Refuse by the headers alone what need not be read; returns the content type with its parameters."""
    given = headers.get("content-type", "")
    main, _, parameters = given.partition(";")
    if main.strip().lower() not in content_types:
        wanted = " or ".join(content_types)
        raise Rejected(415, f"The content type must be {wanted}, not {given[:80] or 'missing'}.", "content-type")
    charset = parameters.strip().lower()
    if charset.startswith("charset=") and charset[8:].strip('"') not in {"utf-8", "utf8", "us-ascii"}:
        raise Rejected(415, "The charset must be utf-8.", "content-type")
    if headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise Rejected(415, "The body must not be compressed.", "content-encoding")
    check_length(headers.get("content-length", "0"), most_bytes)
    return given


def check_length(announced: str, most_bytes: int) -> None:
    """Refuse by the header content-length."""
    if announced.isdecimal() and int(announced[:20]) > most_bytes:
        raise _too_large(most_bytes)


async def read_body(body: bytes | Receive, most_bytes: int, hold: Callable[[int], None]) -> bytes:
    """The body, or what gives it as ASGI does; counted while it arrives: a length that lies, or none, changes nothing.

    ``hold`` is told of every part's bytes before they are kept, and may refuse them.
    """
    if isinstance(body, bytes):  # it is all there
        if len(body) > most_bytes:
            raise _too_large(most_bytes)
        hold(len(body))
        return body
    parts: list[bytes] = []
    size = 0
    timeout_s = max(BODY_TIMEOUT_S, most_bytes / SLOWEST_BYTES_S)
    try:
        async with asyncio.timeout(timeout_s):
            more = True
            while more:
                message = await body()
                if message["type"] == "http.disconnect":
                    raise malformed("The body ended before its length.", "body")
                part: bytes = message.get("body", b"")
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                hold(len(part))
                parts.append(part)
                more = message.get("more_body", False)
    except TimeoutError:
        raise Rejected(408, f"The body did not arrive within {timeout_s:g} s.", "body") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(most_bytes: int) -> Rejected:
    return too_large(f"The body is larger than {most_bytes:,} bytes.", "body")
