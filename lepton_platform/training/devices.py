"""Where training runs, how precisely, and that it runs the same way twice."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from lepton_platform.settings import get_settings
from lepton_platform.stage import StageFailed

_DTYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(asked: str, rank: int = 0) -> torch.device:
    """``auto`` is the setting LEPTON_DEVICE, and if that is ``auto`` too a GPU where there is one."""
    name = get_settings().device if asked == "auto" else asked
    if name == "cuda" and not torch.cuda.is_available():
        raise StageFailed("The device 'cuda' was asked for and torch sees no GPU. Set device to 'auto' or 'cpu'.")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % torch.cuda.device_count())


def visible_gpus() -> int:
    return torch.cuda.device_count()


@dataclass(frozen=True)
class Precision:
    """``dtype``: what matrix products are computed in; ``None`` for float32. Weights are float32 always."""

    device: str
    dtype: torch.dtype | None

    @property
    def scaled(self) -> bool:
        """float16 underflows: its loss is scaled (Micikevicius et al., 2017, arXiv:1710.03740)."""
        return self.dtype is torch.float16

    def autocast(self) -> AbstractContextManager:
        return nullcontext() if self.dtype is None else torch.autocast(self.device, self.dtype)


def choose_precision(asked: str, device: torch.device) -> Precision:
    """``auto`` on a CPU is float32 on every CPU: what one can do faster must not decide which model comes out."""
    if asked != "auto":
        return Precision(device.type, _DTYPES[asked])
    if device.type == "cpu":
        return Precision("cpu", None)
    return Precision(device.type, torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Deterministic algorithms and a fixed number of CPU threads; what was set before is set again after."""
    from torch.utils import deterministic

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    fills = deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # pyright: ignore[reportAttributeAccessIssue] - costs time
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        torch.backends.cudnn.benchmark = before[2]
        deterministic.fill_uninitialized_memory = fills  # pyright: ignore[reportAttributeAccessIssue]


def peak_memory_bytes(device: torch.device) -> dict[str, int]:
    """The most that this process held, and the most that it held on its GPU."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        peak["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return peak


def describe(device: torch.device) -> str:
    """The device in words, with what the speed of its arithmetic depends on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({torch.backends.cpu.get_cpu_capability()})"
