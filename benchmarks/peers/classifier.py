"""Text in, label out with the tokenizer and ONNX Runtime alone: what both peers wrap."""

import json
from pathlib import Path

import numpy as np


class Classifier:
    """``threads``: of ONNX Runtime, a call; 0: its default, one a core."""

    def __init__(self, model: Path, threads: int = 0) -> None:
        import onnxruntime as ort
        from tokenizers import Tokenizer

        config = json.loads((model / "config.json").read_text("utf-8"))
        self.labels: list[str] = config["labels"]
        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.enable_truncation(int(config["max_tokens"]))
        self.tokenizer.enable_padding()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = ort.InferenceSession(str(model / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def encode(self, values: list[str]) -> list[dict[str, np.ndarray]]:
        """→ input_ids, attention_mask: int64 [B, T], all in one call."""
        found = self.tokenizer.encode_batch(values)
        ids = np.array([e.ids for e in found], dtype=np.int64)
        return [{"input_ids": ids, "attention_mask": np.array([e.attention_mask for e in found], dtype=np.int64)}]

    def predict(self, values: list[str]) -> list[dict[str, str | float]]:
        logits = np.asarray(self.session.run(None, self.encode(values)[0])[0], dtype=np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return [{"label": self.labels[row.argmax()], "score": float(row.max())} for row in shares]
