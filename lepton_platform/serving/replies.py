"""What is sent: JSON, and what went wrong as a refusal."""

import json
import logging
from typing import Any, NamedTuple

from starlette.responses import Response

from lepton_platform.serving.prediction_log import LogUnavailable
from lepton_platform.serving.rejected import Rejected, overloaded

RETRY_LOG_S = 5.0
JSON = [(b"content-type", b"application/json")]
logger = logging.getLogger("lepton.serving")


class Answer(NamedTuple):
    """What is answered, whole. ``headers``: as ASGI has them, without the body's length."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def as_json(value: Any) -> str:
    return _encoder.encode(value)


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(as_json(value).encode(), status, headers, "application/json")


def refusal(error: Rejected) -> Response:
    """A refusal as an answer."""
    headers = {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}
    if error.status in {408, 413}:
        headers["Connection"] = "close"  # what was not read must not be taken for the next request
    return reply(error.as_json(), error.status, headers)


def refused(error: Rejected) -> Answer:
    """The same without Starlette."""
    response = refusal(error)
    headers = [header for header in response.raw_headers if header[0] != b"content-length"]
    return Answer(response.status_code, headers, bytes(response.body))


def rejected_for(error: Exception, what: str) -> Rejected:
    """What the one who asked is told; the fault itself goes to the service's log. ``what`` was being done."""
    if isinstance(error, Rejected):
        return error
    if isinstance(error, LogUnavailable):
        return overloaded(str(error), RETRY_LOG_S)
    logger.error("%s failed", what, exc_info=error)
    return Rejected(500, "The service has a fault; it is in its log.")
