"""``POST /predict``: from a request's headers and body to its answer, whichever way both came.

Bare ASGI in front of Starlette, whose router, request and response cost a short request more than reading it does. Over
the gateway's link (``link.py``) the same ``answered`` is asked without HTTP.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.datastructures import QueryParams
from starlette.types import Receive, Scope, Send

from lepton_platform.serving.answering import Running
from lepton_platform.serving.body import check_headers, read_body, read_headers
from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.protocols import Encoded, Json
from lepton_platform.serving.rejected import malformed
from lepton_platform.serving.replies import JSON, Answer, as_json, refused, rejected_for

if TYPE_CHECKING:
    from lepton_platform.serving.app import Service

PREDICT = "/predict"
INLINE_BYTES = 4096  # a larger body is encoded in a thread; a task may say less
MIRROR = "x-lepton-mirror"  # a header: the answer is for comparison, and logged apart
ANNOTATE = "annotate"  # of the query: answer with the input itself, the answer drawn on it
_READ = {name.encode(): name for name in ("content-type", "content-encoding", "content-length", MIRROR)}


class PredictRoute:
    """Made with the service, whose limits and figures it shares."""

    def __init__(self, service: "Service") -> None:
        self.service, self.bundle = service, service.bundle
        self.inline_bytes: int = getattr(self.bundle.api, "INLINE_BYTES", INLINE_BYTES)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self.answered(read_headers(scope["headers"], _READ), scope["query_string"], receive)
        headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def answered(self, headers: Mapping[str, str], query: bytes, body: bytes | Receive) -> Answer:
        """Errors become answers, every answer is counted. ``body``: it, or what gives it as ASGI does."""
        started = time.perf_counter()
        try:
            answer = await self._predicted(headers, query, body, started)
        except Exception as error:
            answer = refused(rejected_for(error, f"POST {PREDICT}"))
        route = f"{PREDICT} (mirrored)" if MIRROR in headers else PREDICT  # nobody was given the answer
        self.service.metrics.request(route, answer.status, time.perf_counter() - started)
        return answer

    async def _predicted(
        self, headers: Mapping[str, str], query: bytes, source: bytes | Receive, started: float
    ) -> Answer:
        api, service = self.bundle.api, self.service
        content_type = check_headers(headers, api.CONTENT_TYPES, api.MAX_BODY_BYTES)
        drawn = bool(query) and self._is_drawn(query)
        running = service.running
        with service.counted() as hold:
            body = await read_body(source, api.MAX_BODY_BYTES, hold)
            inputs, parts = await self._encode(running, body, content_type, drawn)
            del body
            service.metrics.stage_seconds["preprocess"].observe(time.perf_counter() - started)
            mirrored = MIRROR in headers
            answers, known = await service.answering.answer(running, inputs, parts, started, mirrored=mirrored)
            if drawn:
                return await self._drawn(running, inputs[0], {**answers[0], **known[0]})
        return Answer(200, JSON, as_json({"predictions": answers, "model": self.bundle.tag}).encode())

    def _is_drawn(self, query: bytes) -> bool:
        given = QueryParams(query).getlist(ANNOTATE) or ["false"]
        if given not in (["true"], ["false"]):
            raise malformed(f'"{ANNOTATE}" is true or false, not {shown(", ".join(given))}.', ANNOTATE)
        if given == ["true"] and not hasattr(self.bundle.api, "annotated"):
            raise malformed(f"The answers of {self.bundle.task} cannot be drawn.", ANNOTATE)
        return given == ["true"]

    async def _drawn(self, running: Running, value: Any, answer: Json) -> Answer:
        """The input with its answer drawn on it; ids and model are in the headers."""
        draw: Callable[[Any, Json], tuple[bytes, str]] = self.bundle.api.annotated  # pyright: ignore[reportAttributeAccessIssue]
        content, kind = await asyncio.get_running_loop().run_in_executor(running.threads, draw, value, answer)
        told = {"x-prediction-id": answer["id"], "x-model": self.bundle.tag, "content-type": kind}
        return Answer(200, [(name.encode(), value.encode("latin-1")) for name, value in told.items()], content)

    async def _encode(
        self, running: Running, body: bytes, content_type: str, alone: bool
    ) -> tuple[list[Any], list[list[Encoded]]]:
        def work() -> tuple[list[Any], list[list[Encoded]]]:
            inputs = self.bundle.api.decode(body, content_type)
            if alone and len(inputs) != 1:
                raise malformed(f'"{ANNOTATE}" is for one input a request, not {len(inputs)}.', ANNOTATE)
            return inputs, running.engine.encoder.prepare(inputs)

        if len(body) <= self.inline_bytes:
            return work()
        return await asyncio.get_running_loop().run_in_executor(running.threads, work)
