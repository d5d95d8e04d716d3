"""A bounded load: some clients that ask again and again until they are told to stop, and note what they are told."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx


@dataclass
class Load:
    """``failed``: whatever was not a 200; ``ids``: of the predictions that were acknowledged."""

    url: str
    failed: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    models: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(self, number: int) -> None:
        texts = ["good film", "bad film", "dull", "good"]
        with httpx.Client(timeout=60) as client:
            turn = number
            while not self._stop.is_set():
                turn += 1
                begun = time.monotonic()
                try:
                    answer = client.post(f"{self.url}/v1/sentiment/predict", json={"texts": [texts[turn % 4]]})
                except httpx.HTTPError as error:
                    self.failed.append(repr(error))
                    continue
                self.longest_s = max(self.longest_s, time.monotonic() - begun)
                if answer.status_code != 200:
                    self.failed.append(f"{answer.status_code} {answer.text[:200]}")
                    time.sleep(0.05)
                    continue
                told = answer.json()
                self.ids.append(told["predictions"][0]["id"])
                self.models[told["model"]] += 1

    def wait(self, more: int, within_s: float = 60.0) -> None:
        """Until so many more have been answered."""
        wanted, until = len(self.ids) + more, time.monotonic() + within_s
        while len(self.ids) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        assert len(self.ids) >= wanted, f"{len(self.ids)} of {wanted} answered; {self.failed[:3]}"


@contextmanager
def loaded(url: str, clients: int = 8) -> Iterator[Load]:
    load = Load(url)
    threads = [threading.Thread(target=load.ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load._stop.set()
        for thread in threads:
            thread.join()
