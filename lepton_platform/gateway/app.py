"""The gateway: one address for all tasks. Keys are checked here, requests find the deployment that answers them."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Scope as ASGIScope

from lepton_platform.gateway.access import Access, challenge, own_page
from lepton_platform.gateway.forwarding import Forwarding
from lepton_platform.gateway.keys import Scope
from lepton_platform.gateway.loop import Loop
from lepton_platform.gateway.metrics import Metrics
from lepton_platform.gateway.openapi import describe
from lepton_platform.gateway.page import page_routes
from lepton_platform.gateway.pasts import Lineage, Pasts
from lepton_platform.gateway.predict_route import READ, ROUTE, PredictRoute, told
from lepton_platform.gateway.routing import Table, Target
from lepton_platform.gateway.seeing import Seeing
from lepton_platform.gateway.streaming import StreamProxy
from lepton_platform.gateway.upstream import Upstream
from lepton_platform.gateway.workers import About, Workers
from lepton_platform.serving.body import check_length, read_body, read_headers
from lepton_platform.serving.jsonbody import shown
from lepton_platform.serving.rejected import Rejected, overloaded
from lepton_platform.serving.replies import Answer, refusal, rejected_for, reply

MOST_REQUESTS = 1024  # answered at a time, over all tasks; each worker has its own, lower bound
MOST_HELD_BYTES = 512 << 20  # of bodies
logger = logging.getLogger("lepton.gateway")
Tables = Callable[[], AsyncIterator[Table]]


class Gateway:
    """The routes and what they share. ``lineage`` runs in a thread; ``tables`` come as they change."""

    def __init__(self, access: Access, lineage: Lineage, tables: Tables, loop: Loop | None = None) -> None:
        self.access, self.pasts, self.tables = access, Pasts(lineage), tables
        self.metrics = Metrics()
        self.seeing = Seeing(self.metrics, loop)
        self.in_flight = self.held_bytes = 0
        self._of: Counter[str] = Counter()  # requests being answered, by task
        self._parts: tuple[Upstream, Workers, Forwarding] | None = None

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        upstream = Upstream()
        workers = Workers(upstream)
        self._parts = upstream, workers, Forwarding(workers, upstream)
        listening = asyncio.ensure_future(self._listen())
        await asyncio.wait([listening, asyncio.ensure_future(workers.told.wait())], return_when="FIRST_COMPLETED")
        seeing = [asyncio.ensure_future(work(workers)) for work in (self.seeing.keep, self.seeing.watch)]
        try:
            yield
        finally:
            for task in (*seeing, listening):
                task.cancel()
            self.access.close()
            self.pasts.close()
            await upstream.close()

    async def _listen(self) -> None:
        """Nothing is answered before the first table: after a restart no task is unknown for a moment."""
        async for table in self.tables():
            await self.workers.tell(table)

    @property
    def workers(self) -> Workers:
        assert self._parts is not None
        return self._parts[1]

    @property
    def forwarding(self) -> Forwarding:
        assert self._parts is not None
        return self._parts[2]

    def about(self, task: str) -> About:
        """``Rejected`` 404 where there is no such task, 503 while it starts."""
        about = self.workers.about.get(task)
        if about is None:
            if task in self.workers.table:
                raise overloaded(f"{task} is starting.")
            raise Rejected(404, f"There is no task {shown(task, 80)} here.", "task")
        return about

    # --- routes

    async def tasks(self, request: Request) -> Response:
        self.allow(request, None)
        table = self.workers.table
        told = []
        for task, about in sorted(self.workers.about.items()):
            route = table[task]
            target = route.champion or route.canary
            can = {"annotate": about.annotate, "stream": about.stream, "example": about.example}
            kinds = {"kind": about.kind, "content_types": list(about.content_types)}
            model = target.tag if target else None
            told.append({"name": task, **kinds, "model": model, "labels": list(about.labels), **can})
        return reply({"tasks": told, "authentication": self.access.authentication})

    async def feedback(self, request: Request) -> Response:
        self.allow(request, "feedback")
        task = request.path_params["task"]
        about = self.about(task)
        with self.counted() as hold:
            body = await self._body(request, about.max_feedback_bytes, hold)
            return _passed_on(
                await self.forwarding.ask(
                    task, "POST", "/feedback", told(read_headers(request.headers.raw, READ)), body
                )
            )

    async def schema(self, request: Request) -> Response:
        self.allow(request, "predict")
        task = request.path_params["task"]
        self.about(task)
        return _passed_on(await self.forwarding.ask(task, "GET", "/schema.json", {}, b""))

    async def past(self, request: Request) -> Response:
        """A task's prediction, or any where the route names no task, whoever asked for it."""
        self.allow(request, "trace")
        task, identifier = request.path_params.get("task"), request.path_params["id"]
        if task is not None:
            self.about(task)
        rows = request.query_params.get("rows", "some")
        return reply(await self.pasts.tell(identifier, task, rows))

    async def livez(self, _: Request) -> Response:
        return reply({"status": "alive"})

    async def readyz(self, _: Request) -> Response:
        """All tasks that are served answer."""
        missing = sorted(set(self.workers.table) - set(self.workers.about))
        if missing or not self.workers.table:
            raise overloaded(f"Starting: {', '.join(missing) or 'the workers'}.")
        return reply({"status": "ready", "tasks": sorted(self.workers.about)})

    async def show_metrics(self, request: Request) -> Response:
        self.allow(request, "admin")
        body, content_type = await self.seeing.exposition(self.workers, self.in_flight)
        return Response(body, media_type=content_type)

    async def overview(self, request: Request) -> Response:
        """The figures of ``/metrics`` and the state of the loop, for the page that shows them."""
        self.allow(request, "admin")
        return reply(await self.seeing.overview(self.workers))

    async def openapi(self, request: Request) -> Response:
        self.allow(request, "predict")
        documents = {}
        for task in sorted(self.workers.about):
            answer = await self.forwarding.ask(task, "GET", "/schema.json", {}, b"")
            if answer.status == 200:
                documents[task] = answer.body
        return reply(describe(documents, self.access.authentication))

    # --- what they share

    def allow(self, asked: HTTPConnection, scope: Scope | None) -> None:
        """``Rejected`` unless a request, or a WebSocket's, may pass."""
        self.check(asked.scope, asked.headers, scope)

    def check(self, asked: ASGIScope, headers: Mapping[str, str], scope: Scope | None) -> None:
        """The same of a request as ASGI has it."""
        if not self.access.authentication:
            try:
                own_page(headers)
            except ValueError:  # no address at all
                raise Rejected(403, "The header Host or Origin is none that this machine has.", "origin") from None
        client = asked.get("client")
        self.access.check(asked["headers"], scope, client[0] if client else None)

    @contextlib.contextmanager
    def counted(self, task: str = "", most: int = MOST_REQUESTS) -> Iterator[Callable[[int], None]]:
        """Bound what is held: ``Rejected`` (503) beyond. Gives the function that a body's bytes are announced to.

        ``most``: of this task at a time; what its worker would refuse is not carried there.
        """
        if self.in_flight >= MOST_REQUESTS or self._of[task] >= most:
            raise overloaded(f"{min(most, MOST_REQUESTS)} requests are being answered already.")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            if self.held_bytes + size > MOST_HELD_BYTES:
                raise overloaded("The requests that are being answered fill the memory that is theirs.")
            held += size
            self.held_bytes += size

        self.in_flight += 1
        self._of[task] += 1
        try:
            yield hold
        finally:
            self.in_flight -= 1
            self._of[task] -= 1
            self.held_bytes -= held

    async def _body(self, request: Request, most_bytes: int, hold: Callable[[int], None]) -> bytes:
        check_length(request.headers.get("content-length", "0"), most_bytes)
        return await read_body(request.receive, most_bytes, hold)

    def count(self, task: str, route: str, status: int, seconds: float) -> None:
        """A request that was answered; of tasks only those that there are, not all that are asked for."""
        known = task if self._parts is not None and task in self.workers.table else ""
        self.metrics.request(known, route, status, seconds)

    def answered(self, task: str, target: Target) -> None:
        """A prediction's request, by who answered it."""
        route = self.workers.route(task)
        role = "canary" if route and route.canary and route.canary.deployment == target.deployment else "champion"
        self.metrics.answer(task, target.tag, role)

    def guarded(self, name: str, route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Any]:
        """Errors become answers, every answer is counted."""

        async def endpoint(request: Request) -> Response:
            started = time.perf_counter()
            try:
                response = await route(request)
            except Exception as error:
                refused = rejected_for(error, f"{request.method} {name}")
                response = refusal(refused)
                response.headers.update(challenge(refused))
            task = request.path_params.get("task", "")
            self.count(task, name, response.status_code, time.perf_counter() - started)
            return response

        return endpoint

    async def refused(self, request: Request, error: Exception) -> Response:
        """No such route, no such method."""
        assert isinstance(error, HTTPException)
        path = shown(request.url.path, 80)
        text = {404: f"There is no route {path}.", 405: f"{path} does not take this method."}
        response = refusal(Rejected(error.status_code, text.get(error.status_code, error.detail)))
        response.headers.update(error.headers or {})
        self.metrics.request("", "other", error.status_code, 0.0)
        return response


def _passed_on(answer: Answer) -> Response:
    response = Response(answer.body, answer.status)
    response.raw_headers[:0] = answer.headers
    return response


async def _answered_before(_: Request) -> Response:
    raise HTTPException(404)  # what is asked here, `PredictRoute` answers


def create_app(gateway: Gateway) -> PredictRoute:
    def get(path: str, route: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, gateway.guarded(path, route), methods=["GET"])

    def post(path: str, route: Callable[[Request], Awaitable[Response]]) -> Route:
        return Route(path, gateway.guarded(path, route), methods=["POST"])

    routes: list[BaseRoute] = [
        Route(ROUTE, _answered_before, methods=["POST"]),  # so that another method is told which would do
        post("/v1/{task}/feedback", gateway.feedback),
        get("/v1/{task}/lineage/{id}", gateway.past),
        get("/v1/lineage/{id}", gateway.past),
        get("/v1/{task}/schema", gateway.schema),
        WebSocketRoute("/v1/{task}/stream", StreamProxy(gateway).endpoint),
        get("/v1", gateway.tasks),
        get("/livez", gateway.livez),
        get("/readyz", gateway.readyz),
        get("/v1/overview", gateway.overview),
        get("/metrics", gateway.show_metrics),
        get("/openapi.json", gateway.openapi),
        *page_routes(),
    ]
    app = Starlette(routes=routes, lifespan=gateway.lifespan, exception_handlers={HTTPException: gateway.refused})
    app.router.redirect_slashes = False
    return PredictRoute(gateway, app)
