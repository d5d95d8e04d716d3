"""What a network is fed: named tensors, and what it should say to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """``inputs`` are the network's keyword arguments, ``targets`` what it should say; B rows each."""

    inputs: Mapping[str, Tensor]
    targets: Mapping[str, Tensor]

    def to(self, device: Any) -> Batch:
        """The same on ``device``, without waiting for the copy."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, {name: tensor.to(device, non_blocking=True) for name, tensor in self.targets.items()})
