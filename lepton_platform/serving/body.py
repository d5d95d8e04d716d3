"""Reading a request's body: no more than is allowed, no longer than is reasonable."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from lepton_platform.serving.rejected import Rejected, malformed, too_large

BODY_TIMEOUT_S = 30.0


def check_headers(request: Request, content_type: str, most_bytes: int) -> None:
    """Refuse by the headers alone what need not be read."""
    given = request.headers.get("content-type", "")
    main, _, parameters = given.partition(";")
    if main.strip().lower() != content_type:
        raise Rejected(415, f"The content type must be {content_type}, not {given[:80] or 'missing'}.", "content-type")
    charset = parameters.strip().lower()
    if charset.startswith("charset=") and charset[8:].strip('"') not in {"utf-8", "utf8", "us-ascii"}:
        raise Rejected(415, "The charset must be utf-8.", "content-type")
    if request.headers.get("content-encoding", "identity").lower() not in {"", "identity"}:
        raise Rejected(415, "The body must not be compressed.", "content-encoding")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length[:20]) > most_bytes:
        raise _too_large(most_bytes)


async def read_body(request: Request, most_bytes: int) -> bytes:
    """The body, counted while it arrives: a length that lies, or none at all, changes nothing."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > most_bytes:
                    raise _too_large(most_bytes)
                parts.append(part)
    except TimeoutError:
        raise Rejected(408, f"The body did not arrive within {BODY_TIMEOUT_S:g} s.", "body") from None
    except ClientDisconnect:
        raise malformed("The body ended before its length.", "body") from None
    return b"".join(parts)


def _too_large(most_bytes: int) -> Rejected:
    return too_large(f"The body is larger than {most_bytes:,} bytes.", "body")
