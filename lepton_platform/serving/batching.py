"""Dynamic batching without waiting: a lane (a thread) that is free takes what is there.

Alone, an input is run at once. Under load inputs gather while the lanes are busy, and a lane takes the oldest
together with waiting ones of similar size, so that little is spent on padding: batches grow with the load by
themselves, and no timer delays anybody. Load beyond what can be answered in time is refused at the door.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lepton_platform.serving.protocols import Encoded
from lepton_platform.serving.rejected import overloaded

logger = logging.getLogger("lepton.serving")
_LOOK_AHEAD = 128  # waiting inputs that are considered for a batch
_SMOOTHING = 0.05  # of the measured speed, a batch


@dataclass(frozen=True)
class BatchLimits:
    """``padding``: what a batch may waste, as a share of its smallest input. Sizes are the encoder's (tokens)."""

    lanes: int = 2
    max_batch: int = 4
    padding: float = 0.25
    max_waiting: int = 2048
    max_wait_s: float = 2.0


class Group:
    """The inputs of one request, answered together. ``done(group)`` is called from a lane's thread.

    ``outputs``: a row an input, in order; ``error``: what went wrong in one of its batches.
    """

    __slots__ = ("done", "error", "left", "outputs", "taken_at", "waiting_since")

    def __init__(self, count: int, done: "Callable[[Group], None]") -> None:
        self.outputs: list[Any] = [None] * count
        self.left, self.done = count, done
        self.error: Exception | None = None
        self.waiting_since, self.taken_at = time.perf_counter(), 0.0


class _Waiting:
    __slots__ = ("group", "index", "item")

    def __init__(self, item: Encoded, group: Group, index: int) -> None:
        self.item, self.group, self.index = item, group, index


class Batcher:
    """A bounded queue in front of ``run``, a thread-safe function of a batch."""

    def __init__(
        self,
        run: Callable[[Sequence[Encoded]], np.ndarray],
        limits: BatchLimits,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self.run, self.limits, self.observe = run, limits, observe
        self._waiting: deque[_Waiting] = deque()
        self._size = 0  # of everything that waits or runs
        self._free = 0  # lanes without work
        self._speed = 0.0  # sizes a second, all lanes together; 0: not known yet
        self._open = True
        self._change = threading.Condition()
        self._lanes = [threading.Thread(target=self._lane, name=f"lane-{i}", daemon=True) for i in range(limits.lanes)]
        for lane in self._lanes:
            lane.start()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, items: Sequence[Encoded], done: Callable[[Group], None]) -> None:
        """Queue a request's inputs; ``Rejected`` (503) where they could not be answered in time."""
        group = Group(len(items), done)
        with self._change:
            self._admit(len(items))
            self._waiting.extend(_Waiting(item, group, index) for index, item in enumerate(items))
            self._size += sum(item.size for item in items)
            self._change.notify(len(items))

    def _admit(self, count: int) -> None:
        if not self._open:
            raise overloaded("The service is stopping.")
        if self._waiting and len(self._waiting) + count > self.limits.max_waiting:
            raise overloaded(f"{len(self._waiting)} inputs are waiting already.", self._delay())
        if self._waiting and self._delay() > self.limits.max_wait_s:
            raise overloaded(f"An answer would take longer than {self.limits.max_wait_s:g} s.", self._delay())

    def _delay(self) -> float:
        """Seconds until what waits now will have been answered."""
        return self._size / self._speed if self._speed else 0.0

    def close(self) -> None:
        """Answer what waits, then end the lanes."""
        with self._change:
            self._open = False
            self._change.notify_all()
        for lane in self._lanes:
            lane.join()

    def _lane(self) -> None:
        while batch := self._next():
            started = time.perf_counter()
            outputs, error = None, None
            try:
                outputs = self.run([waiting.item for waiting in batch])
            except Exception as raised:  # one bad batch must not end the lane
                error = raised
            self._finish(batch, outputs, error, time.perf_counter() - started)

    def _next(self) -> list[_Waiting]:
        with self._change:
            self._free += 1
            while not self._waiting and self._open:
                self._change.wait()
            batch = self._take()
            self._free -= 1
        now = time.perf_counter()
        for waiting in batch:
            waiting.group.taken_at = waiting.group.taken_at or now
        return batch

    def _take(self) -> list[_Waiting]:
        """The oldest, and those most like it; no more than its share while other lanes are free."""
        if not self._waiting:
            return []
        oldest = self._waiting.popleft()
        wanted = min(self.limits.max_batch, -(-(len(self._waiting) + 1) // self._free)) - 1
        if wanted < 1 or not self._waiting:
            return [oldest]
        size, slack = oldest.item.size, 1 + self.limits.padding
        near = [i for i in range(min(len(self._waiting), _LOOK_AHEAD)) if self._alike(i, size, slack)]
        near = sorted(sorted(near, key=lambda i: abs(self._waiting[i].item.size - size))[:wanted], reverse=True)
        batch = [oldest]
        for index in near:
            batch.append(self._waiting[index])
            del self._waiting[index]
        return batch

    def _alike(self, index: int, size: int, slack: float) -> bool:
        other = self._waiting[index].item.size
        return other <= size * slack and size <= other * slack

    def _finish(
        self, batch: list[_Waiting], outputs: np.ndarray | None, error: Exception | None, seconds: float
    ) -> None:
        self.observe(len(batch), seconds)
        size = sum(waiting.item.size for waiting in batch)
        finished: list[Group] = []
        with self._change:
            self._size -= size
            speed = size / max(seconds, 1e-6) * self.limits.lanes
            self._speed = speed if not self._speed else self._speed + _SMOOTHING * (speed - self._speed)
            for row, waiting in enumerate(batch):
                group = waiting.group
                group.left -= 1
                group.error = group.error or error
                if outputs is not None:
                    group.outputs[waiting.index] = outputs[row]
                if group.left == 0:
                    finished.append(group)
        for group in finished:
            try:
                group.done(group)
            except Exception:  # whoever asked is lost, the lane is not
                logger.exception("an answer could not be handed over")
