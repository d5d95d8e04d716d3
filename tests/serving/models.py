"""A real model that is made in milliseconds: a bag of words as ONNX, with a tokenizer of its own.

Each word has a weight; a text's logits are -sum and +sum of its words' weights. No training, no torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = {"good": 2.0, "charming": 3.0, "film": 0.1, "bad": -2.0, "dull": -3.0, "the": 0.0, "never": -1.0, "a": 0.0}


def write_model(folder: Path, words: Mapping[str, float] = WORDS, max_tokens: int = 64) -> Path:
    """model.onnx, tokenizer.json, config.json: what the stage ``compressed`` leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, **{word: index for index, word in enumerate(words, 3)}}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = np.array([0.0, 0.0, 0.0, *words.values()], dtype=np.float32)
    table = numpy_helper.from_array(np.stack([-weights, weights], axis=1), "table")  # (V, 2)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["each"]),  # (B, T, 2)
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide"]),
        helper.make_node("Mul", ["each", "wide"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "tokens"], ["logits"], keepdims=0),
    ]
    constants = [
        table,
        numpy_helper.from_array(np.array([2], np.int64), "last"),
        numpy_helper.from_array(np.array([1], np.int64), "tokens"),
    ]
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["B", "T"]) for n in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 2])]
    graph = helper.make_graph(nodes, "bag_of_words", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    config = {"labels": ["rotten", "fresh"], "max_tokens": max_tokens, "files": ["tokenizer.json"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder
