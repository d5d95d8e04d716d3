"""Batches side by side on a CPU's cores, one thread each: no waiting for the slowest thread in every product."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread_a_batch() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """The cores that this process may use, fewer where OMP_NUM_THREADS says so."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(available, int(asked))) if asked.isdigit() else available
