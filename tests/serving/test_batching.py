"""The queue: every input answered once and in order, batches bounded and alike, overload refused."""

import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_platform.serving.batching import Batcher, BatchLimits, Group
from lepton_platform.serving.protocols import Encoded
from lepton_platform.serving.rejected import Rejected


def echo(batch: Sequence[Encoded]) -> np.ndarray:
    return np.array([[item.payload] for item in batch])


class Requests:
    """Collects what groups end with."""

    def __init__(self) -> None:
        self.ended: dict[int, Group] = {}
        self._change = threading.Condition()

    def end(self, number: int, group: Group) -> None:
        with self._change:
            assert number not in self.ended, "a request was answered twice"
            self.ended[number] = group
            self._change.notify_all()

    def wait(self, count: int) -> None:
        with self._change:
            assert self._change.wait_for(lambda: len(self.ended) >= count, 20)


@settings(max_examples=60, deadline=None)
@given(
    groups=st.lists(st.lists(st.integers(1, 300), min_size=1, max_size=12), min_size=1, max_size=12),
    lanes=st.integers(1, 4),
    most=st.integers(1, 6),
)
def test_every_input_is_answered_once_and_in_order(groups: list[list[int]], lanes: int, most: int) -> None:
    sizes: list[list[int]] = []

    def run(batch: Sequence[Encoded]) -> np.ndarray:
        sizes.append([item.size for item in batch])
        return echo(batch)

    limits = BatchLimits(lanes=lanes, max_batch=most, max_waiting=10_000, max_wait_s=1e9)
    batcher, requests = Batcher(run, limits), Requests()
    payload = 0
    expected: list[list[int]] = []
    for number, group in enumerate(groups):
        items = [Encoded(payload + i, size) for i, size in enumerate(group)]
        payload += len(group)
        expected.append([item.payload for item in items])
        batcher.submit(items, lambda ended, number=number: requests.end(number, ended))
    requests.wait(len(groups))
    batcher.close()
    for number, payloads in enumerate(expected):
        assert [int(row[0]) for row in requests.ended[number].outputs] == payloads
    assert sum(map(len, sizes)) == payload
    for batch in sizes:
        assert len(batch) <= most
        assert all(size <= batch[0] * 1.25 and batch[0] <= size * 1.25 for size in batch[1:])


class Gate:
    """A model that waits until it may run."""

    def __init__(self) -> None:
        self.open, self.entered, self.batches = threading.Event(), threading.Semaphore(0), []

    def __call__(self, batch: Sequence[Encoded]) -> np.ndarray:
        self.entered.release()
        assert self.open.wait(20)
        self.batches.append(len(batch))
        return echo(batch)


def test_batches_grow_with_the_load() -> None:
    gate, requests = Gate(), Requests()
    batcher = Batcher(gate, BatchLimits(lanes=1, max_batch=4))
    for number in range(9):
        batcher.submit([Encoded(number, 10)], lambda group, number=number: requests.end(number, group))
        if number == 0:
            assert gate.entered.acquire(timeout=20)  # the lane is busy: the others gather
    gate.open.set()
    requests.wait(9)
    batcher.close()
    assert gate.batches == [1, 4, 4]


def test_more_than_may_wait_is_refused_and_the_rest_is_answered() -> None:
    gate, requests = Gate(), Requests()
    batcher = Batcher(gate, BatchLimits(lanes=1, max_batch=1, max_waiting=3))
    accepted = refused = 0
    for number in range(10):
        try:
            batcher.submit([Encoded(number, 10)], lambda group, number=number: requests.end(number, group))
            accepted += 1
            if number == 0:
                assert gate.entered.acquire(timeout=20)
        except Rejected as error:
            assert error.status == 503 and error.retry_after_s is not None and error.retry_after_s >= 1
            refused += 1
    assert (accepted, refused) == (4, 6)
    gate.open.set()
    requests.wait(accepted)
    batcher.close()


def test_a_wait_that_would_be_too_long_is_refused() -> None:
    gate, requests = Gate(), Requests()
    batcher = Batcher(gate, BatchLimits(lanes=1, max_batch=1, max_wait_s=0.5))
    gate.open.set()
    batcher.submit([Encoded(0, 1)], lambda group: requests.end(0, group))
    requests.wait(1)  # its speed is known now
    batcher._speed = 10.0
    gate.open.clear()
    batcher.submit([Encoded(1, 100)], lambda group: requests.end(1, group))
    assert gate.entered.acquire(timeout=20) and gate.entered.acquire(timeout=20)
    batcher.submit([Encoded(2, 100)], lambda group: requests.end(2, group))  # nothing waited yet
    with pytest.raises(Rejected) as refused:
        batcher.submit([Encoded(3, 1)], lambda group: requests.end(3, group))
    assert refused.value.status == 503 and refused.value.retry_after_s == 20
    gate.open.set()
    requests.wait(3)
    batcher.close()


def test_a_bad_batch_ends_its_request_and_not_the_lane() -> None:
    def run(batch: Sequence[Encoded]) -> np.ndarray:
        if any(item.payload < 0 for item in batch):
            raise ValueError("bad")
        return echo(batch)

    requests = Requests()
    batcher = Batcher(run, BatchLimits(lanes=1, max_batch=1))
    batcher.submit([Encoded(1, 1), Encoded(-1, 1), Encoded(2, 1)], lambda group: requests.end(0, group))
    batcher.submit([Encoded(3, 1)], lambda group: requests.end(1, group))
    requests.wait(2)
    assert isinstance(requests.ended[0].error, ValueError) and requests.ended[1].error is None
    batcher.close()
    with pytest.raises(Rejected, match="stopping"):
        batcher.submit([Encoded(4, 1)], lambda group: requests.end(2, group))
