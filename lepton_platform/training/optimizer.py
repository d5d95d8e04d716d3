"""Which parameter learns how fast: optimiser, schedule, L1 and L2."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import torch

from lepton_platform.stage import StageFailed
from lepton_platform.training.params import TrainParams

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def freeze(network: nn.Module, patterns: list[str]) -> list[str]:
    """Take the parameters whose names match out of training; their names. A pattern that matches none is an error.

    ``encoder.layers.0`` means everything below it; ``*`` and ``?`` work as in file names.
    """
    names = [name for name, _ in network.named_parameters()]
    frozen: list[str] = []
    for pattern in patterns:
        found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f"{pattern}.*")]
        if not found:
            roots = sorted({".".join(n.split(".")[:2]) for n in names})
            raise StageFailed(f"train.freeze: no parameter matches '{pattern}'. There are: {', '.join(roots)}.")
        for name in found:
            network.get_parameter(name).requires_grad_(False)
        frozen += found
    if not any(p.requires_grad for p in network.parameters()):
        raise StageFailed(f"train.freeze: {patterns} leaves nothing to train.")
    return list(dict.fromkeys(frozen))


def thaw(network: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        network.get_parameter(name).requires_grad_(True)


def build_optimizer(
    network: nn.Module, params: TrainParams, depths: Mapping[str, int], later: Collection[str] = ()
) -> Optimizer:
    """One group for each learning rate and decay; ``group["scale"]`` is relative to ``learning_rate``.

    Matrices decay, biases and norms do not. Below the head the rate falls by ``layer_decay`` a layer (Howard & Ruder, 2018,
    arXiv:1801.06146). ``later``: names of what is frozen still; without a gradient the optimiser passes over it.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad or name in later:
            depth = depths[name]
            scale = params.head_learning_rate_factor if depth == 0 else params.layer_decay ** (depth - 1)
            groups.setdefault((scale, parameter.ndim > 1), []).append(parameter)
    built = [
        {"params": some, "scale": scale, "weight_decay": params.weight_decay if decays else 0.0, "decays": decays}
        for (scale, decays), some in groups.items()
    ]
    if params.optimizer == "sgd":
        return torch.optim.SGD(built, lr=params.learning_rate, momentum=params.momentum, fused=True)
    kind = torch.optim.AdamW if params.optimizer == "adamw" else torch.optim.Adam
    return kind(built, lr=params.learning_rate, fused=True)


def schedule(step: int, total: int, params: TrainParams) -> float:
    """The learning rate of step ``step`` (0 …) as a share of its peak: a linear rise, then the decay to zero."""
    warmup = round(total * params.warmup_fraction)
    if step < warmup:
        return (step + 1) / warmup
    if params.decay == "constant":
        return 1.0
    done = (step - warmup) / max(total - warmup, 1)
    return 1.0 - done if params.decay == "linear" else (1.0 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["scale"]


@torch.no_grad()
def shrink(optimizer: Optimizer, l1: float) -> None:
    """The proximal step of L1: every decaying weight moves ``lr × l1`` towards zero and stops there.

    Decoupled from the gradient as AdamW's weight decay is; for SGD it is ISTA (Parikh & Boyd, Proximal Algorithms, 2014).
    """
    if not l1:
        return
    for group in optimizer.param_groups:
        if group["decays"]:
            for weight in group["params"]:
                weight.copy_(torch.nn.functional.softshrink(weight, group["lr"] * l1))
