"""The user of a service: asks, says what would have been right, and keeps asking while a canary takes its share."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lepton_platform.stage import StageFailed
from lepton_platform.tasks import load_part

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 120.0
CLIENTS = 4  # at a time
SAID_AT_ONCE = 32  # pieces of feedback in a request
Json = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """An input as the service takes it (a text, a file's bytes), and what is true of it as feedback says it."""

    content: Any
    truth: Any


@dataclass
class User:
    """Talks to one task's service. ``failed``: answers that were none, in words."""

    url: str
    task: str
    failed: list[str] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)

    @property
    def api(self) -> ModuleType:
        return load_part(self.task, "api")

    def ask(self, rows: Sequence[Row]) -> list[Json]:
        """The answers, each with its ``id``, in order; ``StageFailed`` for one that was refused."""
        import httpx

        with httpx.Client(timeout=TIMEOUT_S) as client, ThreadPoolExecutor(CLIENTS) as pool:
            found = list(pool.map(lambda row: self._one(client, row), rows))
        if None in found:
            raise StageFailed(f"The service of {self.task} refused what it was sent: {self.failed[-1]}")
        return [answer for answer in found if answer is not None]

    def _one(self, client: "httpx.Client", row: Row) -> Json | None:
        import httpx

        given = row.content if isinstance(row.content, bytes) else str(row.content).encode("utf-8", "surrogateescape")
        request = self.api.from_command_line(given)
        try:
            answer = client.post(f"{self.url}/v1/{self.task}/predict", **request)
        except httpx.HTTPError as error:
            self.failed.append(repr(error))
            return None
        if answer.status_code != 200:
            self.failed.append(f"{answer.status_code} {answer.text[:200]}")
            return None
        told = answer.json()
        self.models[told["model"]] += 1
        return told["predictions"][0]

    def say(self, answers: Sequence[Json], rows: Sequence[Row]) -> None:
        """What would have been right, as feedback on these answers."""
        import httpx

        name = getattr(self.api, "TRUTH", "label")
        items = [{"id": one["id"], name: row.truth} for one, row in zip(answers, rows, strict=True)]
        with httpx.Client(timeout=TIMEOUT_S) as client:
            for start in range(0, len(items), SAID_AT_ONCE):
                body = {"feedback": items[start : start + SAID_AT_ONCE]}
                answer = client.post(f"{self.url}/v1/{self.task}/feedback", json=body)
                if answer.status_code != 200:
                    raise StageFailed(f"The service of {self.task} did not take the feedback: {answer.text[:300]}")

    @contextmanager
    def asking(self, rows: Sequence[Row], clients: int) -> Iterator["User"]:
        """Somebody asks again and again until the block ends; the counts are of another user, who is given."""
        import httpx

        other, stop = User(self.url, self.task), threading.Event()

        def ask(number: int) -> None:
            with httpx.Client(timeout=TIMEOUT_S) as client:
                while not stop.is_set():
                    other._one(client, rows[number % len(rows)])
                    number += clients

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield other
        finally:
            stop.set()
            for thread in threads:
                thread.join()
