"""What learners share whose network answers in one go: see ``models/graph.py``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.graph import MODEL, Graph, Run

if TYPE_CHECKING:
    from torch import Tensor, nn


class OneGraph:
    """A learner of one graph has ``examples`` and ``scores``."""

    def graphs(self, network: nn.Module, config: Mapping[str, Any]) -> dict[str, Graph]:
        return {MODEL: Graph(network, *self.examples(config))}

    def answer(
        self, run: Mapping[str, Run], inputs: Mapping[str, NDArray], config: Mapping[str, Any], folder: Path
    ) -> NDArray:
        import torch

        del folder  # nothing is read that the config does not hold
        [outputs] = run[MODEL](inputs)
        return self.scores(torch.from_numpy(np.asarray(outputs)), config).float().numpy()

    def examples(self, config: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The network's inputs for two batches that differ in every size that may differ, in rows first of all."""
        raise NotImplementedError

    def scores(self, outputs: Tensor, config: Mapping[str, Any]) -> Tensor:
        """(B, …), what the task's evaluator reads, of the network's outputs."""
        raise NotImplementedError
