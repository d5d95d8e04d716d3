"""Where a training stands, so that a kill costs seconds: weights, optimiser, best weights, history.

A checkpoint is a folder of safetensors and one JSON file, written beside its place and renamed: it is there whole or
not at all. No generator's state is kept because none lives from one step to the next: dropout is drawn from a seed
made of the run's seed, the step and the micro-batch (``batches.mixed_seed``), the order of rows from seed and epoch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.training.weights import save_weights, sync, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

STATE, NETWORK, OPTIMIZER, BEST = "state.json", "network.safetensors", "optimizer.safetensors", "best.safetensors"


@dataclass
class State:
    """What a resumed run must know beside tensors; JSON values only."""

    step: int = 0  # steps done
    steps: list[dict[str, float]] = field(default_factory=list)  # the logged ones
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_value: float | None = None  # lower is better
    since_best: int = 0  # evaluations
    stopped_early: bool = False
    scaler: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    state: State
    network: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    best: Mapping[str, Tensor]


def optimizer_tensors(optimizer: Optimizer, network: nn.Module) -> dict[str, Tensor]:
    """The optimiser's moments as ``<parameter>/<moment>``."""
    return {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, parameter in network.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(optimizer: Optimizer, network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    for path, value in tensors.items():
        name, _, key = path.rpartition("/")
        parameter = network.get_parameter(name)
        optimizer.state[parameter][key] = value.to(parameter.device)


def save_checkpoint(folder: Path, run: str, found: Checkpoint) -> None:
    """Make it the only checkpoint in ``folder``. ``run`` says what it belongs to."""
    fresh, target = folder / "new", folder / f"step-{found.state.step:09d}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for name, tensors in ((NETWORK, found.network), (OPTIMIZER, found.optimizer), (BEST, found.best)):
        save_weights(tensors, fresh / name)
    write_json(fresh / STATE, {"run": run, **asdict(found.state)})
    sync(fresh / STATE)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    sync(folder)
    for other in folder.glob("step-*"):
        if other != target:
            shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(folder: Path, run: str) -> Checkpoint | None:
    """The newest checkpoint of this very run, or ``None``."""
    from safetensors.torch import load_file

    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:  # a kill while it was being removed: a newer one took its place
            continue
        if state.pop("run") == run:
            return Checkpoint(State(**state), *(load_file(path / name) for name in (NETWORK, OPTIMIZER, BEST)))
    return None
