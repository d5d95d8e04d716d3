"""The model as the service runs it: ONNX Runtime sessions, an encoder, the labels."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lepton_platform.models.graph import MODEL, Run
from lepton_platform.serving.protocols import Encoded, Encoder, TaskApi


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _runner(session: Any) -> Run:
    return lambda feeds: session.run(None, dict(feeds))


class Engine:
    """Thread-safe: several threads may call ``run`` at once, each computes on its own core.

    One thread a call, and calls side by side: on a few cores that yields more than one call on all of them, for
    reviews of 28 tokens 1.9 ms of one core against 2 x 1.4 ms of two.
    """

    def __init__(self, model: Path, api: TaskApi, preprocess: ModuleType) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        config: dict[str, Any] = json.loads((model / "config.json").read_text("utf-8"))
        self._graphs: dict[str, Run] = {
            name: _runner(ort.InferenceSession(str(model / file), options, providers=["CPUExecutionProvider"]))
            for name, file in config["runtime"]["graphs"].items()
        }
        self.labels: list[str] = config["labels"]
        self.api = api
        self.encoder: Encoder = api.encoder(model, preprocess)

    def run(self, batch: Sequence[Encoded]) -> np.ndarray:
        """Inputs → outputs (B, …), in order: of the one graph, or of what the encoder makes of several."""
        feeds = self.encoder.collate(batch)
        answer = getattr(self.encoder, "answer", None)
        return np.asarray(self._graphs[MODEL](feeds)[0]) if answer is None else answer(self._graphs, feeds)

    def warm_up(self) -> None:
        """Take the first call's costs (allocations, lazy imports) before anybody waits."""
        inputs = self.api.decode(json.dumps(self.api.EXAMPLE).encode(), "application/json")
        self.run([part for parts in self.encoder.prepare(inputs) for part in parts])
