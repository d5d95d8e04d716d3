"""A request's way to the worker that answers it: chosen by share, tried again where a worker dies, mirrored to be compared.

A canary that does not answer costs a moment and no request: the champion is asked. A champion that dies is waited for
until the supervisor has its next process ready, within the time that a request has.
"""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Mapping

from lepton_platform.gateway.observed import Observed
from lepton_platform.gateway.routing import Route, Target, draw
from lepton_platform.gateway.upstream import Unreachable, Upstream
from lepton_platform.gateway.workers import Workers
from lepton_platform.serving.agreement import agreement
from lepton_platform.serving.rejected import Rejected, overloaded
from lepton_platform.serving.replies import Answer

REQUEST_S = 60.0  # for everything; longer than any worker lets a request wait
CANARY_S = 20.0  # a canary that takes longer has failed
GONE_S = 1.0  # a canary that hung up is not asked for so long: its death is one failure, and not one a request
PAUSE_S = 0.05  # before a champion that was just there is asked again
MIRRORS = 4  # answered beside at a time, a deployment; what would be more is not compared
MIRROR_HEADER = {"x-lepton-mirror": "1"}


class Forwarding:
    """Made in the event loop; keeps what was seen of every deployment until ``taken``."""

    def __init__(self, workers: Workers, upstream: Upstream) -> None:
        self.workers, self.upstream = workers, upstream
        self.seen: dict[int, Observed] = {}
        self._gone: dict[str, float] = {}  # a canary's socket → until when it is not asked
        self._mirroring: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def taken(self) -> dict[int, Observed]:
        """What has been seen since the last call."""
        seen, self.seen = self.seen, {}
        return seen

    async def predict(
        self, task: str, path: str, headers: Mapping[str, str], body: bytes, key: str | None
    ) -> tuple[Answer, Target]:
        """The answer, and whose it is. ``Rejected`` (503) where nobody could answer in time."""
        until = time.monotonic() + REQUEST_S
        route = self._route(task)
        first = route.champion
        if route.canary is not None:
            drawn = random.uniform(0, 100) if key is None else draw(task, route.canary.deployment, key)
            first = route.choose(drawn)
        trying = first is not None and first is route.canary and route.champion is not None
        if first is not None and trying and self._gone.get(first.socket, 0.0) < time.monotonic():
            answer = await self._try(first, path, headers, body, min(CANARY_S, until - time.monotonic()))
            if answer is not None and answer.status < 500:
                self._compare(route, first, path, headers, body, answer)
                return answer, first
        answer, target = await self._insist(task, path, headers, body, until)
        self._compare(route, target, path, headers, body, answer)
        return answer, target

    async def ask(self, task: str, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Anything else: feedback, a schema. Any live worker of the task will do."""
        return (await self._insist(task, path, headers, body, time.monotonic() + REQUEST_S, method, False))[0]

    def _route(self, task: str) -> Route:
        route = self.workers.route(task)
        if route is None:
            raise Rejected(404, f"There is no task {task[:80]!r} here.", "task")
        return route

    async def _try(
        self, target: Target, path: str, headers: Mapping[str, str], body: bytes, within_s: float
    ) -> Answer | None:
        """``None`` where no answer came; counted either way."""
        begun = time.monotonic()
        try:
            answer = await self.upstream.send(target, "POST", path, headers, body, within_s)
        except Unreachable as error:
            self._seen(target).answered(time.monotonic() - begun, failed=True)
            if error.gone:
                self._gone = {target.socket: time.monotonic() + GONE_S}
            return None
        self._seen(target).answered(time.monotonic() - begun, failed=answer.status >= 500)
        return answer

    async def _insist(
        self,
        task: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        until: float,
        method: str = "POST",
        counted: bool = True,
    ) -> tuple[Answer, Target]:
        """The champion, whichever process it has by then."""
        while (left := until - time.monotonic()) > 0:
            route, changed = self._route(task), self.workers.changed
            target = route.champion or route.canary
            if target is None:
                await _wait(changed, left)
                continue
            begun = time.monotonic()
            try:
                answer = await self.upstream.send(target, method, path, headers, body, left)
            except Unreachable:
                await _wait(changed, min(PAUSE_S, left))
                continue
            if counted:
                self._seen(target).answered(time.monotonic() - begun, failed=answer.status >= 500)
            return answer, target
        raise overloaded(f"No worker of {task} answered in {REQUEST_S:g} s.")

    def _seen(self, target: Target) -> Observed:
        found = self.seen.get(target.deployment)
        if found is None:
            found = self.seen[target.deployment] = Observed()
        return found

    # --- what is asked beside

    def _compare(
        self, route: Route, target: Target, path: str, headers: Mapping[str, str], body: bytes, answer: Answer
    ) -> None:
        """Ask the shadow what was asked, and the champion what a canary was asked; nobody waits for it."""
        if answer.status != 200 or path != "/predict":  # a picture with boxes drawn on it says nothing
            return
        if route.shadow is not None:
            self._beside(route.shadow, route.shadow, path, headers, body, answer)
        if target is route.canary and route.champion is not None:
            self._beside(route.champion, target, path, headers, body, answer)

    def _beside(
        self, asked: Target, about: Target, path: str, headers: Mapping[str, str], body: bytes, answer: Answer
    ) -> None:
        if self._mirroring.get(about.deployment, 0) >= MIRRORS:
            return
        self._mirroring[about.deployment] = self._mirroring.get(about.deployment, 0) + 1
        work = self._mirror(asked, about, path, {**headers, **MIRROR_HEADER}, body, answer)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _mirror(
        self, asked: Target, about: Target, path: str, headers: Mapping[str, str], body: bytes, answer: Answer
    ) -> None:
        begun, other = time.monotonic(), None
        try:
            with contextlib.suppress(Unreachable):
                other = await self.upstream.send(asked, "POST", path, headers, body, CANARY_S)
            if asked is about:  # a shadow: what it does is only seen here
                failed = other is None or other.status >= 500
                self._seen(about).answered(time.monotonic() - begun, failed=failed)
            if other is not None and other.status == 200:
                loop = asyncio.get_running_loop()  # which does not wait for thousands of boxes to be compared
                how_far = await loop.run_in_executor(None, _agreement, answer, other)
                self._seen(about).agreed(how_far)
        finally:
            self._mirroring[about.deployment] -= 1


def _agreement(one: Answer, other: Answer) -> float:
    return agreement(*(json.loads(answer.body)["predictions"] for answer in (one, other)))


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    """Until the table changes, or so long."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
