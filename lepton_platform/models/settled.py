"""A network whose first part is frozen: what that computes of a row is the same in every epoch, and is computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Settled:
    """The network cut where its frozen part ends.

    ``first``: a batch's inputs, by name → vectors (B, D); nothing of it is trained. ``rest``: ``vectors`` → what the
    whole network puts out. It holds the whole network, whose parameters are trained in place.
    """

    first: Callable[..., Tensor]
    rest: nn.Module
