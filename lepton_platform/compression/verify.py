"""The exported graphs against the network that they were exported from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lepton_platform.compression.measure import Answer
from lepton_platform.compression.session import Session
from lepton_platform.models.graph import Graph, Run
from lepton_platform.stage import StageFailed
from lepton_platform.training.part import Samples
from lepton_platform.training.predict import as_arrays, torch_runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CHECKED_ROWS = 64


def check_export(
    graphs: Mapping[str, Graph],
    sessions: Mapping[str, Session],
    samples: Samples,
    answer: Answer,
    tolerance: float,
) -> None:
    """``StageFailed`` unless they compute the same, on rows of all sizes: whatever is asked of one is asked of the other."""
    import torch

    worst = dict.fromkeys(graphs, 0.0)

    def both(name: str, ours: Run) -> Run:
        def run(feeds: Mapping[str, NDArray]) -> Sequence[NDArray]:
            outputs = ours(feeds)
            for wanted, found in zip(outputs, sessions[name].run(feeds), strict=True):
                gap = np.abs(wanted - found) / (1 + np.abs(wanted))
                worst[name] = max(worst[name], float(gap.max(initial=0.0)))
            return outputs

        return run

    chosen = np.argsort(samples.sizes, kind="stable")
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(_CHECKED_ROWS, len(chosen))).astype(int)]
    checked = {name: both(name, ours) for name, ours in torch_runs(graphs).items()}
    with torch.inference_mode():
        for batch in (chosen[:1], chosen[-1:], *np.array_split(chosen, min(4, len(chosen)))):
            answer(checked, as_arrays(samples.batch(batch).inputs))
    for name, gap in worst.items():
        if not gap <= tolerance:
            raise StageFailed(
                f"The exported graph '{name}' does not compute what the network does: outputs differ by up to {gap:.2g} of "
                f"1 + their size, and {tolerance:.2g} is allowed (compress.export_tolerance). Some operation of the network "
                "is exported wrongly."
            )
