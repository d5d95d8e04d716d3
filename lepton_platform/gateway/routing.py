"""Which deployment answers a request: champion and canary by share, the same one for the same key."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_DRAW_BYTES = 8


@dataclass(frozen=True)
class Target:
    """A worker: ``deployment`` its row, ``tag`` its Bento, ``socket`` its socket's name in the folder of sockets."""

    deployment: int
    tag: str
    socket: str


@dataclass(frozen=True)
class Route:
    """A task's workers that answer; ``percent`` of the requests are the canary's."""

    champion: Target | None = None
    canary: Target | None = None
    percent: float = 0.0
    shadow: Target | None = None

    def choose(self, drawn: float) -> Target | None:
        """``drawn`` in [0, 100): from the request's key, or by chance. ``None`` while nobody can answer.

        A key that is the canary's at one share is so at every larger one.
        """
        if self.canary is not None and (drawn < self.percent or self.champion is None):
            return self.canary
        return self.champion


Table = dict[str, Route]  # by task


def draw(task: str, canary: int, key: str) -> float:
    """Where a key stands in [0, 100), another place for every canary: not always the same users try what is new."""
    digest = hashlib.blake2b(f"{task}\0{canary}\0{key}".encode(), digest_size=_DRAW_BYTES).digest()
    return int.from_bytes(digest, "big") / 256**_DRAW_BYTES * 100


def as_json(table: Mapping[str, Route]) -> dict[str, Any]:
    return {task: asdict(route) for task, route in table.items()}


def from_json(told: Mapping[str, Any]) -> Table:
    """The inverse of ``as_json``."""

    def target(values: Mapping[str, Any] | None) -> Target | None:
        return None if values is None else Target(**values)

    return {
        task: Route(target(route["champion"]), target(route["canary"]), route["percent"], target(route["shadow"]))
        for task, route in told.items()
    }
