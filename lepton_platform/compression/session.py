"""An exported model at work: numpy in, numpy out, no torch."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_platform.models.graph import Run

# ONNX Runtime fuses a sum and the layer norm after it into one kernel, which is slower than the two on a CPU.
SLOW_FUSIONS = ("SkipLayerNormFusion",)


class Session:
    """One ONNX graph on the CPU. ``threads``: the last bits of float sums depend on it."""

    def __init__(self, path: Path, threads: int = 1, disabled_optimizers: tuple[str, ...] = SLOW_FUSIONS) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled_optimizers)
        )
        self.inputs = [value.name for value in self._session.get_inputs()]

    def run(self, feeds: Mapping[str, NDArray]) -> list[NDArray]:
        """The graph's inputs by name, B rows each → its outputs."""
        return [np.asarray(o) for o in self._session.run(None, {name: feeds[name] for name in self.inputs})]


def file_of(graph: str) -> str:
    """The name of a graph's file in a model's folder."""
    return f"{graph}.onnx"


def runs(sessions: Mapping[str, Session]) -> dict[str, Run]:
    return {name: session.run for name, session in sessions.items()}
