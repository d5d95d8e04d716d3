"""What a trained network says to rows: used wherever a float model's answers are wanted. Deterministic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.stage import Progress
from lepton_platform.training.batches import by_size
from lepton_platform.training.part import ModelPart
from lepton_platform.training.weights import load_weights, read_config

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import nn

PredictPart = ModelPart  # to answer, a part tells the same things as to train


def load(folder: Path, part: ModelPart) -> nn.Module:
    """The network of a model's folder, on the CPU, ready to answer."""
    network = part.LEARNER.build(read_config(folder))
    load_weights(network, folder)
    return network.eval()


def predict_scores(
    folder: Path,
    rows: pa.Table,
    part: ModelPart,
    *,
    batch_size: int = 64,
    threads: int = 2,
    device: str = "auto",
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The learner's scores, (N, …) float32 in the rows' order: of a classifier (N, C) probabilities, C in the order of
    ``config.json``'s labels; of a detector (N, K, 6).

    The target's column may be missing. ``threads``: on a CPU the last bits depend on it, as on ``batch_size``.
    """
    import torch

    from lepton_platform.training.devices import choose_device, reproducible

    config, where = read_config(folder), choose_device(device)
    samples = part.LEARNER.encode(config, folder, rows)
    found: list[NDArray[np.float32]] = []
    batches = by_size(samples.sizes, batch_size)
    with reproducible(threads), torch.inference_mode():
        network, done = load(folder, part).to(where), 0
        for batch in batches:
            outputs = network(**samples.batch(batch).to(where).inputs)
            found.append(part.LEARNER.scores(outputs, config).float().cpu().numpy())
            done += len(batch)
            if progress is not None:
                progress(done, rows.num_rows)
    return in_order(found, batches)


def in_order(scores: Sequence[NDArray[np.float32]], batches: Sequence[NDArray]) -> NDArray[np.float32]:
    """The batches' scores, one array, in the order of the rows whose numbers ``batches`` are."""
    return np.concatenate(scores)[np.argsort(np.concatenate(batches), kind="stable")]
