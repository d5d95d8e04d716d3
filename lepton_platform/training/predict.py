"""What a trained network says to rows: used wherever a float model's answers are wanted. Deterministic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_platform.models.graph import Graph, Run
from lepton_platform.stage import Progress
from lepton_platform.training.batches import by_size
from lepton_platform.training.part import ModelPart
from lepton_platform.training.weights import load_weights, read_config

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray
    from torch import Tensor, nn

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
) -> NDArray:
    """The learner's answers, (N, …) in the rows' order: of a classifier (N, C) probabilities, C in the order of
    ``config.json``'s labels; of a detector (N, K, 6); of a speech network (N,) transcripts.

    The target's column may be missing. ``threads``: on a CPU the last bits depend on it, as on ``batch_size``.
    """
    import torch

    from lepton_platform.training.devices import choose_device, reproducible

    config, where = read_config(folder), choose_device(device)
    samples = part.LEARNER.encode(config, folder, rows)
    found: list[NDArray] = []
    batches = by_size(samples.sizes, batch_size)
    with reproducible(threads), torch.inference_mode():
        done, run = 0, torch_runs(part.LEARNER.graphs(load(folder, part).to(where), config), where)
        for batch in batches:
            found.append(part.LEARNER.answer(run, as_arrays(samples.batch(batch).inputs), config, folder))
            done += len(batch)
            if progress is not None:
                progress(done, rows.num_rows)
    return in_order(found, batches)


def torch_runs(graphs: Mapping[str, Graph], device: Any = "cpu") -> dict[str, Run]:
    """The network's own graphs as functions of arrays; to be called in torch's inference mode."""
    import torch

    def runner(module: nn.Module) -> Run:
        def run(inputs: Mapping[str, NDArray]) -> list[NDArray]:
            outputs = module(**{name: torch.from_numpy(array).to(device) for name, array in inputs.items()})
            each = outputs if isinstance(outputs, tuple | list) else [outputs]
            return [output.cpu().numpy() for output in each]

        return run

    return {name: runner(graph.module) for name, graph in graphs.items()}


def as_arrays(inputs: Mapping[str, Tensor]) -> dict[str, NDArray]:
    return {name: tensor.numpy() for name, tensor in inputs.items()}


def in_order(scores: Sequence[NDArray], batches: Sequence[NDArray]) -> NDArray:
    """The batches' scores, one array, in the order of the rows whose numbers ``batches`` are."""
    return np.concatenate(scores)[np.argsort(np.concatenate(batches), kind="stable")]
