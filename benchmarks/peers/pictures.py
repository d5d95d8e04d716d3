"""Pictures in base64 in, the task's answer out: decoded, cut, run and merged by the task's own functions, nothing else."""

import base64
from pathlib import Path
from typing import Any

import numpy as np

from lepton_platform.serving.bundle import Bundle


class Pictures:
    """``threads``: of ONNX Runtime, a call; 0: its default, one a core. A call a tile: a batch gains nothing."""

    def __init__(self, model: Path, threads: int = 0) -> None:
        import onnxruntime as ort

        self.bundle = Bundle.load(model.parents[1])
        self.encoder = self.bundle.api.encoder(model, self.bundle.preprocess)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def encode(self, values: list[str]) -> list[dict[str, np.ndarray]]:
        """→ image: uint8 (1, C, H, W), a call a tile."""
        inputs = self.encoder.prepare([base64.b64decode(picture) for picture in values])
        return [dict(self.encoder.collate([part])) for parts in inputs for part in parts]

    def predict(self, values: list[str]) -> list[dict[str, Any]]:
        answers = []
        for parts in self.encoder.prepare([base64.b64decode(picture) for picture in values]):
            outputs = [np.asarray(self.session.run(None, dict(self.encoder.collate([p])))[0])[0] for p in parts]
            answers.append(self.bundle.api.answer(self.bundle.labels, parts, outputs)[0])
        return answers
