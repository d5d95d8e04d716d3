"""What the gateway knows of the workers: the routing table as the supervisor told it, and what each says of itself."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lepton_platform.gateway.routing import Route, Table, Target
from lepton_platform.gateway.upstream import Unreachable, Upstream

ABOUT_S = 5.0


@dataclass(frozen=True)
class About:
    """What a service says of itself at ``/``."""

    task: str
    kind: str
    content_types: tuple[str, ...]
    max_body_bytes: int
    max_feedback_bytes: int
    max_requests: int
    labels: tuple[str, ...]
    annotate: bool
    stream: bool
    example: Any

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "About":
        return cls(
            told["task"], told["kind"], tuple(told["content_types"]), told["max_body_bytes"],
            told["max_feedback_bytes"], told["max_requests"], tuple(told["labels"]), told["annotate"],
            "/stream" in told["routes"], told["example"],
        )  # fmt: skip


class Workers:
    """The table, and what the champions say of themselves; replaced as a whole, so that a reader sees one state."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.table: Table = {}
        self.about: dict[str, About] = {}
        self._known: dict[str, About] = {}  # by tag: what a Bento is does not change
        self.told = asyncio.Event()  # of the first table
        self.changed = asyncio.Event()  # set and replaced at every change

    def route(self, task: str) -> Route | None:
        return self.table.get(task)

    async def tell(self, table: Table) -> None:
        """Take a new table; what answers no more is let go. Then ask who is new what it is."""
        self.table = table
        self.about = {task: about for task, about in self.about.items() if task in table}
        before, self.changed = self.changed, asyncio.Event()
        before.set()
        self.upstream.forget({t.socket for route in table.values() for t in targets(route)})
        asked = {task: target for task, route in table.items() if (target := route.champion or route.canary)}
        found = await asyncio.gather(*map(self._ask, asked.values()))
        self.about |= {task: about for task, about in zip(asked, found, strict=True) if about is not None}
        self.told.set()

    async def _ask(self, target: Target) -> About | None:
        if target.tag in self._known:
            return self._known[target.tag]
        try:
            answer = await self.upstream.send(target, "GET", "/", {}, b"", ABOUT_S)
            if answer.status != 200:
                return None
            self._known[target.tag] = About.of(json.loads(answer.body))
            return self._known[target.tag]
        except (Unreachable, ValueError, KeyError, TypeError):
            return None


def named(table: Table) -> list[tuple[dict[str, str], Target]]:
    """Every worker, with the labels that tell its figures from others'."""
    roles = ("champion", "canary", "shadow")
    return [
        ({"task": task, "role": role, "deployment": str(target.deployment), "model": target.tag}, target)
        for task, route in table.items()
        for role, target in zip(roles, (route.champion, route.canary, route.shadow), strict=True)
        if target is not None
    ]


def targets(route: Route) -> list[Target]:
    return [target for target in (route.champion, route.canary, route.shadow) if target is not None]
