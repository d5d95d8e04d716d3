"""The service: a Starlette app around one model. Requests in, durable answers out.

An answer's way: event loop (read, check, encode) → a lane of the batcher (model) → the log's writer (durable) →
event loop (send). Only small requests are encoded on the event loop; large ones have a thread, so that the
health checks stay quick beside them. Media are written while the model runs; their row waits for both.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from lepton_platform.serving.answering import Answering, Mirrored, Running
from lepton_platform.serving.batching import Batcher
from lepton_platform.serving.body import check_headers, read_body
from lepton_platform.serving.bundle import Bundle
from lepton_platform.serving.engine import Engine
from lepton_platform.serving.feedback import FEEDBACK_BYTES, check_known, decode_feedback, truth_of
from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.log_reader import FEEDBACK, PREDICTIONS
from lepton_platform.serving.media_store import MediaStore
from lepton_platform.serving.metrics import Metrics
from lepton_platform.serving.openapi import describe
from lepton_platform.serving.predict_route import PREDICT, PredictRoute
from lepton_platform.serving.prediction_log import DurableLog
from lepton_platform.serving.rejected import Rejected, overloaded
from lepton_platform.serving.replies import refusal, rejected_for, reply
from lepton_platform.serving.stream_route import STREAM, StreamRoute, streams

MEDIA_THREADS = 4  # files flushed side by side cost the disk little more than one


class Service:
    """The routes, and what they share."""

    def __init__(self, bundle: Bundle, predictions: Path, deployment: str | None) -> None:
        self.bundle, self.log_folder = bundle, predictions
        self.labels = bundle.labels
        self.metrics = Metrics(bundle.tag)
        self.answering = Answering(bundle, self.metrics, deployment)
        self.schema = describe(bundle.task, bundle.tag, bundle.api, self.labels)
        self.truth = truth_of(bundle.api)
        self.feedback_bytes: int = getattr(bundle.api, "MAX_FEEDBACK_BYTES", FEEDBACK_BYTES)
        self.in_flight = self.held_bytes = 0
        self._running: Running | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """The model is loaded here and not before: BentoML's parent process imports the app and never runs it."""
        engine = Engine(self.bundle.model, self.bundle.api, self.bundle.preprocess)
        engine.warm_up()
        folder = self.log_folder / self.bundle.task
        self._running = Running(
            engine=engine,
            batcher=Batcher(engine.run, self.bundle.limits, self.metrics.batch),
            predictions=DurableLog(folder, PREDICTIONS),
            mirrored=Mirrored(folder),
            feedback=DurableLog(folder, FEEDBACK),
            media=MediaStore(folder),
            threads=ThreadPoolExecutor(1, "encode"),
            media_threads=ThreadPoolExecutor(MEDIA_THREADS, "media"),
        )
        try:
            yield
        finally:
            running, self._running = self._running, None
            running.threads.shutdown()
            running.media_threads.shutdown()
            running.batcher.close()
            running.predictions.close()
            running.mirrored.close()
            running.feedback.close()

    @property
    def running(self) -> Running:
        if self._running is None:
            raise overloaded("The service is starting or stopping.")
        return self._running

    @contextlib.contextmanager
    def counted(self) -> Iterator[Callable[[int], None]]:
        """Bound the requests, and the bytes of their bodies, that are held in memory.

        Gives the function that a body's bytes are announced to: what would be too much is refused as it comes, not
        by what a request says that it will send.
        """
        most = self.bundle.max_requests
        if self.in_flight >= most:
            raise overloaded(f"{most} requests are being answered already.")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self.held_bytes + size > self.bundle.max_held_bytes:
                raise overloaded("The requests that are being answered fill the memory that is theirs.")
            held += size
            self.held_bytes += size

        self.in_flight += 1
        try:
            yield hold
        finally:
            self.in_flight -= 1
            self.held_bytes -= held

    async def feedback(self, request: Request) -> Response:
        check_headers(request.headers, ("application/json",), self.feedback_bytes)
        running = self.running
        with self.counted() as hold:
            body = await read_body(request.receive, self.feedback_bytes, hold)

            def work() -> int:
                items = decode_feedback(body, self.labels, self.truth)
                check_known(self.log_folder, self.bundle.task, items)
                return len(running.feedback.append(items))

            count = await asyncio.get_running_loop().run_in_executor(running.threads, work)
        return reply({"accepted": count})

    async def livez(self, _: Request) -> Response:
        return reply({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        self.running  # noqa: B018 - Rejected while there is nothing to answer with
        return reply({"status": "ready", "model": self.bundle.tag})

    async def show_metrics(self, _: Request) -> Response:
        self.metrics.in_flight.set(self.in_flight)
        self.metrics.waiting.set(self._running.batcher.waiting if self._running else 0)
        body, content_type = self.metrics.render()
        return Response(body, media_type=content_type)

    async def show_schema(self, _: Request) -> Response:
        return reply(self.schema)

    async def index(self, _: Request) -> Response:
        links = ["/predict", "/feedback", "/livez", "/readyz", "/metrics", "/schema.json"]
        links += [STREAM] if streams(self.bundle.api) else []
        bundle, api = self.bundle, self.bundle.api
        about = {"task": bundle.task, "model": bundle.tag, "labels": self.labels, "routes": links}
        limits = {"content_types": list(api.CONTENT_TYPES), "max_body_bytes": api.MAX_BODY_BYTES}
        can = {"kind": api.KIND, "annotate": hasattr(api, "annotated"), "example": api.EXAMPLE}
        limits |= {"max_requests": bundle.max_requests, "max_feedback_bytes": self.feedback_bytes}
        return reply({**about, **limits, **can})

    def guarded(self, name: str, work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Any]:
        """Errors become answers, every answer is counted."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await work(request)
            except Exception as error:
                response = refusal(rejected_for(error, f"{request.method} {name}"))
            self.metrics.request(name, response.status_code, time.perf_counter() - started)
            return response

        return endpoint

    async def refused(self, request: Request, error: Exception) -> Response:
        """No such route, no such method."""
        assert isinstance(error, HTTPException)
        self.metrics.request("other", error.status_code, 0.0)
        path = shown(request.url.path, 80)
        text = {404: f"There is no route {path}.", 405: f"{path} does not take this method."}
        response = refusal(Rejected(error.status_code, text.get(error.status_code, error.detail)))
        response.headers.update(error.headers or {})
        return response


class App(Starlette):
    """Starlette for all routes but the one that carries the load, which is answered before."""

    def __init__(self, service: Service, routes: list[BaseRoute]) -> None:
        refusing = {HTTPException: service.refused}
        super().__init__(routes=routes, lifespan=service.lifespan, exception_handlers=refusing)
        self.router.redirect_slashes = False
        self.predict = PredictRoute(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PREDICT and scope["method"] == "POST":
            await self.predict(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


async def _answered_before(_: Request) -> Response:
    raise HTTPException(404)  # what is asked here, `PredictRoute` answers


def create_app(bundle: Bundle, predictions: Path, deployment: str | None = None) -> App:
    """The app that serves a Bento; ``predictions``: the folder of the log."""
    service = Service(bundle, predictions, deployment)
    routes: list[BaseRoute] = [
        Route(PREDICT, _answered_before, methods=["POST"]),  # so that another method is told which would do
        Route("/feedback", service.guarded("/feedback", service.feedback), methods=["POST"]),
        Route("/livez", service.guarded("/livez", service.livez)),
        Route("/readyz", service.guarded("/readyz", service.readyz)),
        Route("/metrics", service.guarded("/metrics", service.show_metrics)),
        Route("/schema.json", service.guarded("/schema.json", service.show_schema)),
        Route("/", service.guarded("/", service.index)),
    ]
    if streams(bundle.api):
        routes.append(WebSocketRoute(STREAM, StreamRoute(service).endpoint))
    return App(service, routes)
