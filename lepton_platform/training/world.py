"""The processes that train together; one process alone is a world of one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Is it the process that writes?"""
        return self.rank == 0

    def total(self, values: list[float]) -> list[float]:
        """The sums over all processes, the same in each."""
        if self.size == 1:
            return values
        import torch
        from torch import distributed

        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            self.total([0.0])

    def shared(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with its gradients averaged over all processes."""
        if self.size == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        ids = [device.index] if device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids, broadcast_buffers=False)

    def alone(self, network: nn.Module) -> AbstractContextManager:
        """Within it a backward pass through the shared network keeps its gradients to this process."""
        from torch.nn.parallel import DistributedDataParallel

        assert isinstance(network, DistributedDataParallel)
        return network.no_sync()
