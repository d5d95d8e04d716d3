"""Real models that are made in milliseconds, as ONNX: no training, no torch.

A bag of words with a tokenizer of its own: each word has a weight, a text's logits are -sum and +sum of its words'. A
classifier of pictures that says in which tenth of the columns a picture is brightest. A detector of bright squares.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

RUNTIME = {"graphs": {"model": "model.onnx"}}
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
    config = {"labels": ["rotten", "fresh"], "max_tokens": max_tokens, "files": ["tokenizer.json"], "runtime": RUNTIME}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def _save(folder: Path, nodes: list, constants: list, inputs: list, outputs: list, config: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({**config, "runtime": RUNTIME}), "utf-8")
    return folder


def write_classifier(folder: Path) -> Path:
    """(B, 1, 28, 28) uint8 → logits (B, 10): the mean brightness of each tenth of the columns, an eighth of a level each."""
    weights = np.zeros((28 * 28, 10), np.float32)
    for pixel in range(28 * 28):
        weights[pixel, pixel % 28 * 10 // 28] = 1 / (8 * 28 * 2.8)
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["levels"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", 1, 28, 28])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 10])]
    config = {"labels": list("0123456789"), "files": [], "input": {"channels": 1, "size": [28, 28]}}
    return _save(folder, nodes, [numpy_helper.from_array(weights, "weights")], inputs, outputs, config)


CELL = 16  # of the detector: a box is as large, and bright cells of this grid are what it finds


def write_detector(folder: Path) -> Path:
    """(B, 3, H, W) uint8 → (B, A, 5): a cell's corners, and (mean brightness - 128) / 8 as its logit."""
    nodes = [
        helper.make_node("Cast", ["image"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("AveragePool", ["levels"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("ReduceMean", ["cells"], ["mean"], axes=[1], keepdims=1),  # (B, 1, h, w)
        helper.make_node("Sub", ["mean", "middle"], ["above"]),
        helper.make_node("Div", ["above", "eight"], ["score"]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "cell"], ["steps"]),
        helper.make_node("CumSum", ["steps", "across"], ["x2"]),
        helper.make_node("CumSum", ["steps", "down"], ["y2"]),
        helper.make_node("Sub", ["x2", "cell"], ["x1"]),
        helper.make_node("Sub", ["y2", "cell"], ["y1"]),
        helper.make_node("Concat", ["x1", "y1", "x2", "y2", "score"], ["together"], axis=1),  # (B, 5, h, w)
        helper.make_node("Reshape", ["together", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["dense"], perm=[0, 2, 1]),
    ]
    numbers = {"middle": 128.0, "eight": 8.0, "zero": 0.0, "cell": float(CELL)}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()]
    constants += [
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in [("across", 3), ("down", 2)]
    ]
    constants.append(numpy_helper.from_array(np.array([0, 5, -1], np.int64), "rows"))
    inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, ["B", 3, "H", "W"])]
    outputs = [helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["B", "A", 5])]
    config = {
        "labels": ["tree"],
        "files": [],
        "input": {"channels": 3, "size": None, "multiple": 32},
        "postprocess": {"score_threshold": 0.5, "iou_threshold": 0.5, "max_detections": 300},
    }
    return _save(folder, nodes, constants, inputs, outputs, config)
