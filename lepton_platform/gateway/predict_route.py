"""``POST /v1/{task}/predict``, the route that carries the load, as bare ASGI in front of all others.

Starlette's router, request and response cost a request as much time here as everything that the gateway is for.
"""

import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from lepton_platform.gateway.access import challenge
from lepton_platform.serving.body import check_length, read_body, read_headers
from lepton_platform.serving.rejected import malformed
from lepton_platform.serving.replies import refusal, rejected_for

if TYPE_CHECKING:
    from lepton_platform.gateway.app import Gateway

ROUTE = "/v1/{task}/predict"
STICKY = "x-request-key"
MOST_KEY_CHARACTERS = 200
_TOLD = ("content-type", "content-encoding", "accept")  # what a worker is told of a request's headers
READ = {name.encode(): name for name in (*_TOLD, "host", "origin", "content-length", STICKY)}
Headers = list[tuple[bytes, bytes]]


class PredictRoute:
    """Answers its own route; ``others`` answers the rest."""

    def __init__(self, gateway: "Gateway", others: ASGIApp) -> None:
        self.gateway, self.others = gateway, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = _task(scope)
        if task is None:
            await self.others(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            status, headers, body = await self._answered(task, scope, receive)
        except Exception as error:
            rejected = rejected_for(error, f"POST {ROUTE}")
            response = refusal(rejected)
            response.headers.update(challenge(rejected))
            status, headers, body = response.status_code, response.raw_headers, bytes(response.body)
        self.gateway.count(task, ROUTE, status, time.perf_counter() - started)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answered(self, task: str, scope: Scope, receive: Receive) -> tuple[int, Headers, bytes]:
        gateway, found = self.gateway, read_headers(scope["headers"], READ)
        gateway.check(scope, found, "predict")
        about, key = gateway.about(task), found.get(STICKY)
        if key is not None and len(key) > MOST_KEY_CHARACTERS:
            raise malformed(f"The key has more than {MOST_KEY_CHARACTERS} characters.", STICKY)
        query: bytes = scope["query_string"]
        path = f"/predict?{query.decode('latin-1')}" if query else "/predict"
        with gateway.counted(task, about.max_requests) as hold:
            check_length(found.get("content-length", "0"), about.max_body_bytes)
            body = await read_body(receive, about.max_body_bytes, hold)
            answer, target = await gateway.forwarding.predict(task, path, told(found), body, key)
        gateway.answered(task, target)
        length = (b"content-length", b"%d" % len(answer.body))
        return answer.status, [*answer.headers, length, (b"x-deployment", b"%d" % target.deployment)], answer.body


def told(headers: dict[str, str]) -> dict[str, str]:
    """What a worker is told of them."""
    return {name: headers[name] for name in _TOLD if name in headers}


def _task(scope: Scope) -> str | None:
    """The task, where it is this route that is asked; otherwise ``None``."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    parts = scope["path"].split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "v1" and parts[3] == "predict" and not parts[0] else None
