"""A model's folder: ``model.safetensors``, ``config.json`` and the files that its config names. Nothing executable."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_platform.stage import StageFailed

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
HISTORY = "history.json"


def write_json(path: Path, value: Any) -> None:
    """The same bytes for the same value."""
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """A model's ``config.json``; ``StageFailed`` where the folder holds no model."""
    try:
        return json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise StageFailed(f"{folder} is not a model's folder: {CONFIG} cannot be read ({error}).") from None


def snapshot(network: nn.Module, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Copies on the CPU of all weights and buffers but those named in ``without``."""
    import torch

    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
        if name not in without
    }


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write safetensors, and see them on the disk before returning."""
    from safetensors.torch import save_file

    save_file(dict(weights), path)
    sync(path)


def load_weights(network: nn.Module, folder: Path) -> None:
    """Fill the network with a model folder's weights: all of them and no others."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise StageFailed(f"{folder / WEIGHTS} does not fit the network that {CONFIG} describes: {error}") from None


def sync(path: Path) -> None:
    """Wait until the file's bytes, or the folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parameter_count(network: nn.Module, trained_only: bool = False) -> int:
    return sum(p.numel() for p in network.parameters() if p.requires_grad or not trained_only)


def digest(value: Any) -> str:
    """A short hash of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:20]
