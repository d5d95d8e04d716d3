"""All that can be seen of what serves, gathered in one place: ``/metrics`` and ``/v1/overview`` are two ways to tell it.

Every ten seconds the expositions of all processes are kept, compressed and unread, for five minutes: what the overview
calls "now" is what has come since the oldest. To read them is a thread's work, when somebody asks.
"""

import asyncio
import contextlib
import logging
import time
import zlib
from collections import deque
from dataclasses import dataclass
from typing import Any

from lepton_platform.gateway import gpus, loop_metrics
from lepton_platform.gateway.loop import Loop, State
from lepton_platform.gateway.metrics import Metrics, Told, text
from lepton_platform.gateway.overview import overview, with_events
from lepton_platform.gateway.routing import Table, Target
from lepton_platform.gateway.samples import Samples
from lepton_platform.gateway.upstream import Unreachable
from lepton_platform.gateway.workers import Workers, named

METRICS_S = 3.0  # for a worker to tell its own
SAMPLE_S, WINDOW_S = 10.0, 300.0
KEPT_S = 1.0  # an overview: many who look at it cost what one does
EVENTS = 12  # of a task's history
logger = logging.getLogger("lepton.gateway")


@dataclass(frozen=True)
class Moment:
    """What was told at a time (monotonic, seconds), compressed."""

    at: float
    told: tuple[tuple[dict[str, str], bytes], ...]

    @classmethod
    def of(cls, at: float, told: list[Told]) -> "Moment":
        return cls(at, tuple((dict(labels), zlib.compress(words.encode(), 1)) for labels, words in told))

    def samples(self) -> Samples:
        return Samples.of((labels, zlib.decompress(words).decode()) for labels, words in self.told)


class Seeing:
    """Made with the gateway's app, started and stopped with it."""

    def __init__(self, metrics: Metrics, loop: Loop | None) -> None:
        self.metrics, self.loop = metrics, loop
        self.moments: deque[Moment] = deque(maxlen=round(WINDOW_S / SAMPLE_S))
        self._overview: tuple[float, dict[str, Any]] = (-KEPT_S, {})
        self._looking = asyncio.Lock()

    async def keep(self, workers: Workers) -> None:
        """For ever: a moment every ``SAMPLE_S``."""
        while True:
            try:
                told = [({}, text(self.metrics.registry.collect())), *await self._ask(workers)]
                self.moments.append(Moment.of(time.monotonic(), told))
            except Exception:
                logger.exception("what serves could not be looked at")
            await asyncio.sleep(SAMPLE_S)

    async def exposition(self, workers: Workers, in_flight: int) -> tuple[bytes, str]:
        """All of it, as Prometheus reads it, and its content type."""
        self.metrics.in_flight.set(in_flight)
        told, state = await asyncio.gather(self._ask(workers), self._state(workers.table))

        def render() -> tuple[bytes, str]:
            return self.metrics.render(told, [*loop_metrics.families(state), *self._machine(gpus.read())])

        return await asyncio.get_running_loop().run_in_executor(None, render)

    async def overview(self, workers: Workers) -> dict[str, Any]:
        """The same for people, with the latest events: JSON values."""
        async with self._looking:
            at, told = self._overview
            if time.monotonic() - at >= KEPT_S:
                told = await self.figures(workers)
                if self.loop is not None:
                    names = [task["name"] for task in told["tasks"]]
                    told = with_events(told, await self.loop.events(names, EVENTS))
                self._overview = time.monotonic(), told
        return told

    async def figures(self, workers: Workers) -> dict[str, Any]:
        """The overview without what has happened."""
        asked, state = await asyncio.gather(self._ask(workers), self._state(workers.table))
        table, begun = dict(workers.table), self.moments[0] if self.moments else None

        def put_together() -> dict[str, Any]:
            cards = gpus.read()
            own = text(self.metrics.registry.collect()) + text(self._machine(cards))
            now = Samples.of([({}, own), *asked])
            before = Samples() if begun is None else begun.samples()
            seconds = 0.0 if begun is None else time.monotonic() - begun.at
            return overview(table, now, now.since(before), seconds, state, cards)

        return await asyncio.get_running_loop().run_in_executor(None, put_together)

    # --- who is asked

    async def _ask(self, workers: Workers) -> list[Told]:
        """Every worker that answers; what the routing table says is set beside."""
        table = workers.table
        asked = named(table)
        told = await asyncio.gather(*(self._told_by(workers, *one) for one in asked))
        self.metrics.percent.clear()
        self.metrics.up.clear()
        for task, route in table.items():
            self.metrics.percent.labels(task).set(route.percent if route.canary else 0.0)
            self.metrics.up.labels(task, "champion").set(0)  # unless it is seen below
        for (labels, _), found in zip(asked, told, strict=True):
            self.metrics.up.labels(labels["task"], labels["role"]).set(found is not None)
        return [found for found in told if found is not None]

    async def _told_by(self, workers: Workers, labels: dict[str, str], target: Target) -> Told | None:
        """A worker's own metrics; ``None`` where it does not answer."""
        try:
            answer = await workers.upstream.send(target, "GET", "/metrics", {}, b"", METRICS_S)
        except Unreachable:
            return None
        return (labels, answer.body.decode()) if answer.status == 200 else None

    async def _state(self, table: Table) -> State:
        return State() if self.loop is None else await self.loop.latest(table)

    def _machine(self, cards: list[gpus.Gpu]) -> Any:
        if self.loop is not None:
            with contextlib.suppress(OSError):  # the folder is not made yet
                yield from loop_metrics.machine(self.loop.settings.state_dir, cards)
