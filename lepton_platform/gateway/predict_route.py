"""``POST /v1/{task}/predict``, the route that carries the load, as bare ASGI in front of all others.

Starlette's router, request and response cost a request as much time here as everything that the gateway is for.
"""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Receive, Scope, Send

from lepton_platform.gateway.access import challenge
from lepton_platform.serving.body import check_length, read_body, read_headers
from lepton_platform.serving.rejected import malformed
from lepton_platform.serving.replies import Answer, refusal, rejected_for

if TYPE_CHECKING:
    from lepton_platform.gateway.app import Gateway

ROUTE = "/v1/{task}/predict"
STICKY = "x-request-key"
MOST_KEY_CHARACTERS = 200
_TOLD = ("content-type", "content-encoding", "accept")  # what a worker is told of a request's headers
READ = {name.encode(): name for name in (*_TOLD, "host", "origin", "content-length", STICKY)}


class PredictRoute:
    """Answers its own route; ``others`` answers the rest."""

    def __init__(self, gateway: "Gateway", others: ASGIApp) -> None:
        self.gateway, self.others = gateway, others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task = task_of(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if task is None:
            await self.others(scope, receive, send)
            return
        answer = await self.answered(task, scope, read_headers(scope["headers"], READ), receive)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def answered(self, task: str, scope: Scope, found: Mapping[str, str], body: bytes | Receive) -> Answer:
        """With the body's length among its headers. ``found``: those of ``READ``; ``body``: it, or what gives it."""
        started = time.perf_counter()
        try:
            answer = await self._predicted(task, scope, found, body)
        except Exception as error:
            rejected = rejected_for(error, f"POST {ROUTE}")
            response = refusal(rejected)
            response.headers.update(challenge(rejected))
            answer = Answer(response.status_code, response.raw_headers, bytes(response.body))
        self.gateway.count(task, ROUTE, answer.status, time.perf_counter() - started)
        return answer

    async def _predicted(self, task: str, scope: Scope, found: Mapping[str, str], source: bytes | Receive) -> Answer:
        gateway = self.gateway
        gateway.check(scope, found, "predict")
        about, key = gateway.about(task), found.get(STICKY)
        if key is not None and len(key) > MOST_KEY_CHARACTERS:
            raise malformed(f"The key has more than {MOST_KEY_CHARACTERS} characters.", STICKY)
        query: bytes = scope["query_string"]
        path = f"/predict?{query.decode('latin-1')}" if query else "/predict"
        with gateway.counted(task, about.max_requests) as hold:
            check_length(found.get("content-length", "0"), about.max_body_bytes)
            body = await read_body(source, about.max_body_bytes, hold)
            answer, target = await gateway.forwarding.predict(task, path, told(found), body, key)
        gateway.answered(task, target)
        length = (b"content-length", b"%d" % len(answer.body))
        headers = [*answer.headers, length, (b"x-deployment", b"%d" % target.deployment)]
        return Answer(answer.status, headers, answer.body)


def told(headers: Mapping[str, str]) -> dict[str, str]:
    """What a worker is told of them."""
    return {name: headers[name] for name in _TOLD if name in headers}


def task_of(path: str) -> str | None:
    """The task, where it is this route's path; otherwise ``None``."""
    parts = path.split("/")
    return parts[2] if len(parts) == 4 and parts[1] == "v1" and parts[3] == "predict" and not parts[0] else None
