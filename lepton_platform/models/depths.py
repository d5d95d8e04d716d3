"""How far a parameter is from the output, by the beginning of its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def depths(network: nn.Module, layers: Sequence[str | tuple[str, ...]]) -> dict[str, int]:
    """Parameter's name → the place in ``layers``, which lists modules from the output to the input; side by side in a tuple.

    What is named in none of them counts as the last.
    """

    beginnings = [tuple(f"{n}." for n in ((layer,) if isinstance(layer, str) else layer)) for layer in layers]

    def depth(name: str) -> int:
        return next((n for n, some in enumerate(beginnings) if name.startswith(some)), len(layers) - 1)

    return {name: depth(name) for name, _ in network.named_parameters()}
